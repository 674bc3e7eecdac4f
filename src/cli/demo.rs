//! `gsdk2mqtt demo`: everything in one process, to look at.
//!
//! May not start anything but the demo: it prints what an outside MQTT client is told.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::demo::{Demo, Listen};
use crate::mqtt::{self, Event, Message, Retained};

/// An MQTT broker, a simulated gateway and the bridge in one process, on loopback. Nothing has to
/// be installed, and nothing is left behind.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// End after this long, as in 10s or 2m, instead of at Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    runs_for: Option<Duration>,
    /// Where the broker listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    mqtt: SocketAddr,
    /// Where metrics are served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    http: SocketAddr,
    /// Where the simulated gateway listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    gateway: SocketAddr,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    let duration = parsed.and_then(|span| Duration::try_from(span).ok());
    duration.ok_or_else(|| format!("{text:?} is not a time; write 10s or 2m"))
}

pub(super) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let listen = Listen { mqtt: args.mqtt, http: args.http, gateway: args.gateway };
    let demo = Demo::start(listen).await?;
    print(&greeting(&demo));
    let over = async {
        match args.runs_for {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = super::stop_signal() => {}
        () = over => {}
        () = show_events(demo.at.mqtt) => {}
    }
    demo.stop().await;
    Ok(())
}

fn greeting(demo: &Demo) -> String {
    let Listen { mqtt, http, gateway } = demo.at;
    format!(
        "broker    mqtt://{mqtt}\n\
         metrics   http://{http}/metrics\n\
         gateway   {gateway} (simulated, eight doors)\n\
         config    {}\n\n\
         Try, in another terminal:\n  \
         mosquitto_sub -h {} -p {} -v -t 'gsdk/#'\n  \
         curl -s http://{http}/metrics | grep gsdk_device\n\n\
         What happens at the doors (Ctrl-C ends it):\n",
        demo.config_file.display(),
        mqtt.ip(),
        mqtt.port(),
    )
}

/// Subscribes to the broker as anyone would, and prints the events.
async fn show_events(broker: SocketAddr) {
    let mut session = mqtt::session::spawn(mqtt::Settings {
        host: broker.ip().to_string(),
        port: broker.port(),
        tls: None,
        client_id: "gsdk2mqtt_demo_viewer".to_owned(),
        username: None,
        password: None,
        protocol: mqtt::Protocol::V5,
        will: mqtt::Will {
            topic: "gsdk2mqtt_demo_viewer/state".to_owned(),
            payload: Bytes::from_static(b"offline"),
            retain: false,
        },
        keep_alive: Duration::from_secs(30),
        limits: mqtt::Limits::default(),
        retry: mqtt::Retry::default(),
    });
    let mut connection = None;
    while let Some(event) = session.next().await {
        match event {
            Event::Connected(connected) => {
                let connection = connection.insert(connected.connection);
                if let Err(error) =
                    connection.subscribe(vec![("gsdk/#".to_owned(), Retained::Skipped)])
                {
                    tracing::warn!("{error}");
                }
            }
            Event::Message(message) => print(&line(&message).unwrap_or_default()),
            Event::Acked { .. }
            | Event::Subscribed { .. }
            | Event::Disconnected { .. }
            | Event::Unreachable { .. } => {}
        }
    }
}

/// An event as a line; nothing for other messages.
fn line(message: &Message) -> Option<String> {
    if !message.topic.contains("/event/") {
        return None;
    }
    let event: Value = serde_json::from_slice(&message.payload).ok()?;
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let time = text("received_at").get(11..19).unwrap_or_default();
    let what = text("event_type");
    let gateway = text("gateway");
    let Some(name) = event.get("name").and_then(Value::as_str) else {
        return Some(format!("{time}  {gateway:<6} {what}\n"));
    };
    let lasted = event.get("duration_s").and_then(Value::as_f64);
    let lasted = lasted.map(|seconds| format!(" after {seconds:.1} s")).unwrap_or_default();
    let (previous, status) = (text("previous"), text("status"));
    Some(format!("{time}  {gateway:<6} {name:<12} {what:<15} {previous} -> {status}{lasted}\n"))
}

fn print(text: &str) {
    use std::io::Write;
    // Whoever closed the pipe has seen enough; the demo goes on for other clients.
    _ = std::io::stdout().write_all(text.as_bytes());
}
