//! The floor: the stream piped to the same MQTT client, a retained state and an event for each
//! change, payloads of the bridge's sizes, QoS 1. No logic, no disk, no timer; one thread.
//!
//! It does the minimum that these libraries need, so that a ratio to it is the cost of the bridge
//! itself. It is not changed any more, so that figures of different days can be compared. `fill` is
//! the MQTT client alone, with as many retained messages as there are devices.

use bytes::Bytes;
use gsdk2mqtt::proto::connect::SubscribeStatusRequest;
use gsdk2mqtt::proto::connect::connect_client::ConnectClient;
use rumqttc_v5::mqttbytes::v5::Packet;
use rumqttc_v5::{AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, PublishOptions};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

/// The sizes of the bridge's messages, in bytes.
const STATE_LEN: usize = 430;
const EVENT_LEN: usize = 400;
/// Messages that wait for the client's loop, and go out in one write.
const BATCH_MAX: usize = 1_000;

/// Runs as a child of the bench: reads until the stream ends.
pub(crate) async fn pipe(gateway: &str, ca_file: &str, mqtt_port: u16) {
    let (client, mut events) = client(mqtt_port, "floor");
    tokio::spawn(async move {
        loop {
            events.poll().await.expect("the broker stays");
            events.state.events.clear();
        }
    });
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
    let pad = "x".repeat(STATE_LEN);
    loop {
        let change = match stream.message().await {
            Ok(Some(change)) => change,
            ended => panic!("the stream has ended: {ended:?}"),
        };
        let id = change.device_id;
        let state = payload(id, change.status, &pad, STATE_LEN);
        let event = payload(id, change.status, &pad, EVENT_LEN);
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
        let pad = "x".repeat(STATE_LEN);
        for id in 0..count {
            let topic = format!("fill/lobby/{id}/state");
            let options = PublishOptions::at_least_once().retain(true);
            client.publish(topic, payload(id, 1, &pad, STATE_LEN), options).await.unwrap();
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
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    let mut options = MqttOptions::new(name.to_owned(), ("127.0.0.1".to_owned(), mqtt_port));
    options.set_network_options(network).set_max_request_batch(BATCH_MAX);
    AsyncClient::builder(options).capacity(BATCH_MAX).build()
}

fn payload(id: u32, status: i32, pad: &str, len: usize) -> Bytes {
    use std::io::Write;
    let mut bytes = Vec::with_capacity(len);
    write!(bytes, "{{\"device_id\":{id},\"status\":{status},\"pad\":\"").unwrap();
    let fill = len.saturating_sub(bytes.len() + 2);
    bytes.extend_from_slice(&pad.as_bytes()[..fill]);
    bytes.extend_from_slice(b"\"}");
    bytes.into()
}
