//! `gsdk2mqtt demo`: starts the demo and prints addresses, commands to try, and events.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::demo::{Demo, Listen};
use crate::mqtt::{self, Message, RetainHandling, SessionEvent};

/// The client ID of the subscriber that prints the events.
const VIEWER: &str = "gsdk2mqtt_demo_viewer";

/// An MQTT broker, a simulated gateway and the bridge in one process, on loopback. Nothing has to
/// be installed, and nothing is left behind.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Stop after this time, such as 10s or 2m, instead of at Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    runs_for: Option<Duration>,
    #[command(flatten)]
    listen: Listen,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    let duration = parsed.and_then(|span| Duration::try_from(span).ok());
    duration.ok_or_else(|| format!("{text:?} is not a time; write 10s or 2m"))
}

pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let stop = super::stop_signal();
    tokio::pin!(stop);
    let demo = tokio::select! {
        started = Demo::start(args.listen) => started?,
        () = &mut stop => return Ok(()),
    };
    // A closed pipe does not stop the demo: other clients may use it.
    _ = super::print(&greeting(&demo));
    let timeout = async {
        match args.runs_for {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stop => {}
        () = timeout => {}
        () = show_events(demo.session.clone()) => {}
    }
    demo.stop().await;
    Ok(())
}

fn greeting(demo: &Demo) -> String {
    let Listen { mqtt, http, gateway } = demo.at;
    let program = program();
    let program = quoted(&program);
    let config = demo.config_file.to_string_lossy();
    let config = quoted(&config);
    let broker = format!("-h {} -p {}", mqtt.ip(), mqtt.port());
    format!(
        "status page  http://{http}/\n\
         metrics      http://{http}/metrics\n\
         broker       mqtt://{mqtt} (MQTT 3.1.1 and 5, no login)\n\
         gateway      {gateway} (simulated, eight doors)\n\n\
         Commands to try in another terminal:\n  \
         {program} ctl --config {config} devices\n  \
         {program} ctl --config {config} watch\n  \
         {program} check --config {config} --connect\n\n\
         With the mosquitto clients and curl installed:\n  \
         mosquitto_sub {broker} -v -t 'gsdk/#'\n  \
         mosquitto_rr {broker} -V 5 -t gsdk/demo/request/devices -e gsdk-reply/me -m '{{}}'\n  \
         curl -s http://{http}/metrics | grep gsdk_device\n\n\
         Events of the doors (Ctrl-C stops the demo):\n",
    )
}

/// How a shell finds this program: by its name if it is in the search path, else by its path, as
/// under `cargo run`.
fn program() -> String {
    let typed = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let is_name = typed.components().count() == 1;
    let program = if is_name { Ok(typed.clone()) } else { std::env::current_exe() };
    program.unwrap_or(typed).to_string_lossy().into_owned()
}

/// The text as one word of a POSIX shell.
fn quoted(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:,@%=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', "'\\''")))
}

/// Subscribes to the broker as any client does, and prints the events.
async fn show_events(mut settings: mqtt::SessionSettings) {
    settings.mqtt.client_id = VIEWER.to_owned();
    settings.will.topic = format!("{VIEWER}/state");
    settings.will.retain = false;
    let mut session = mqtt::session::spawn(settings);
    let mut connection = None;
    while let Some(event) = session.next().await {
        match event {
            SessionEvent::Connected(connected) => {
                let connection = connection.insert(connected.connection);
                if let Err(error) =
                    connection.subscribe(vec![("gsdk/#".to_owned(), RetainHandling::DoNotSend)])
                {
                    tracing::warn!(%error, "cannot subscribe to the events");
                }
            }
            SessionEvent::Message(message) => {
                _ = super::print(&line(&message).unwrap_or_default());
            }
            _ => {}
        }
    }
}

/// An event as a line; `None` for other messages.
fn line(message: &Message) -> Option<String> {
    if !message.topic.contains("/event/") {
        return None;
    }
    let event: Value = serde_json::from_slice(&message.payload).ok()?;
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let time = text("received_at").get(11..19).unwrap_or_default();
    let event_type = text("event_type");
    let gateway = text("gateway");
    let Some(name) = event.get("name").and_then(Value::as_str) else {
        return Some(format!("{time}  {gateway:<6} {event_type}\n"));
    };
    let duration = event.get("duration_s").and_then(Value::as_f64);
    let duration = duration.map(|seconds| format!(" after {seconds:.1} s")).unwrap_or_default();
    let change = format!("{} -> {}{duration}", text("previous"), text("status"));
    Some(format!("{time}  {gateway:<6} {name:<12} {event_type:<15} {change}\n"))
}
