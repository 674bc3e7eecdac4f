//! The floor: the stream piped to the MQTT client, a retained state and an event for each change.
//!
//! May not be clever: no memory, no disk, no metrics; the usual way to use tonic and rumqttc. And
//! `fill`: the MQTT client alone, with as many retained messages as there are devices.

use gsdk2mqtt::proto::connect::SubscribeStatusRequest;
use gsdk2mqtt::proto::connect::connect_client::ConnectClient;
use rumqttc_v5::mqttbytes::v5::Packet;
use rumqttc_v5::{AsyncClient, Event, EventLoop, MqttOptions, PublishOptions};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

/// What the bridge's messages weigh, in bytes.
const STATE_LEN: usize = 430;
const EVENT_LEN: usize = 400;

/// Runs as a child of the bench: reads until the stream ends.
pub(crate) async fn pipe(gateway: &str, ca_file: &str, mqtt_port: u16) {
    let (client, events) = client(mqtt_port, "floor");
    tokio::spawn(poll(events));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(std::fs::read(ca_file).unwrap()));
    let endpoint = Endpoint::from_shared(format!("https://{gateway}")).unwrap();
    // With windows of the usual size h2 ends the connection: changes wait unread in small frames.
    let endpoint = endpoint.initial_stream_window_size(1 << 21);
    let endpoint = endpoint.initial_connection_window_size(1 << 26);
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    let request = SubscribeStatusRequest { queue_size: 1 << 20 };
    let mut stream =
        ConnectClient::new(channel).subscribe_status(request).await.unwrap().into_inner();
    println!("ready");
    loop {
        let change = match stream.message().await {
            Ok(Some(change)) => change,
            ended => panic!("the stream has ended: {ended:?}"),
        };
        let id = change.device_id;
        let state = payload(id, change.status, STATE_LEN);
        let event = payload(id, change.status, EVENT_LEN);
        let once = PublishOptions::at_least_once;
        let topic = format!("gsdk/lobby/{id}/state");
        client.publish(topic, state, once().retain(true)).await.unwrap();
        let topic = format!("gsdk/lobby/{id}/event/status_changed");
        client.publish(topic, event, once()).await.unwrap();
    }
}

/// Runs as a child of the bench: publishes `count` retained messages and waits for each PUBACK.
pub(crate) async fn fill(count: u32, mqtt_port: u16) {
    let (client, mut events) = client(mqtt_port, "fill");
    tokio::spawn(async move {
        for id in 0..count {
            let (topic, state) = (format!("fill/lobby/{id}/state"), payload(id, 1, STATE_LEN));
            let options = PublishOptions::at_least_once().retain(true);
            client.publish(topic, state, options).await.unwrap();
        }
        // The client's end would end the loop before its last acknowledgement.
        std::future::pending::<()>().await;
        drop(client);
    });
    let mut acknowledged = 0;
    while acknowledged < count {
        if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.unwrap() {
            acknowledged += 1;
        }
    }
}

fn client(mqtt_port: u16, name: &str) -> (AsyncClient, EventLoop) {
    let options = MqttOptions::new(name.to_owned(), ("127.0.0.1".to_owned(), mqtt_port));
    AsyncClient::builder(options).capacity(1_000).build()
}

async fn poll(mut events: EventLoop) {
    loop {
        events.poll().await.expect("the broker stays");
    }
}

fn payload(id: u32, status: i32, len: usize) -> String {
    let mut text = format!("{{\"device_id\":{id},\"status\":{status},\"pad\":\"");
    let pad = len.saturating_sub(text.len() + 2);
    text.extend(std::iter::repeat_n('x', pad));
    text.push_str("\"}");
    text
}
