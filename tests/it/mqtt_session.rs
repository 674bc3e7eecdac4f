//! The broker session against real mosquitto processes: killed, frozen, refusing, over TLS.

mod faults;
mod kill;
mod scripted;
mod tls;
mod websocket;

use std::time::Duration;

use bytes::Bytes;
use gsdk2mqtt::bridge::broker_settings;
use gsdk2mqtt::config::{self, MqttVersion};
use gsdk2mqtt::mqtt::session::spawn;
use gsdk2mqtt::mqtt::{
    Connected, Message, Publish, RetainHandling, Session, SessionEvent, SessionSettings, Will,
};
use gsdk2mqtt::net::BackoffPolicy;

use crate::harness::mosquitto::Mosquitto;
use crate::harness::patiently;

/// Settings for a broker on this port, with waits short enough for a test.
fn settings(port: u16, protocol: MqttVersion) -> SessionSettings {
    let text = format!(
        "mqtt = {{ url = \"mqtt://127.0.0.1:{port}\", base_topic = \"t\", \
         client_id = \"gsdk2mqtt_test\", protocol = \"{}\" }}\n\
         gateways.lobby = {{ address = \"10.0.0.2\", ca_file = \"/ca.crt\" }}\n",
        protocol.as_str()
    );
    let loaded = config::from_toml("test.toml", text).unwrap();
    let retry = BackoffPolicy {
        first: Duration::from_millis(20),
        absent_max: Duration::from_millis(100),
        max: Duration::from_millis(200),
        ..BackoffPolicy::default()
    };
    SessionSettings { retry, ..broker_settings(&loaded.config) }
}

fn publish(topic: &str, payload: &str) -> Publish {
    Publish {
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        ..Publish::default()
    }
}

/// The next event that `wanted` makes something of; others are passed over.
async fn wait_for<T>(
    session: &mut Session,
    what: &str,
    mut wanted: impl FnMut(SessionEvent) -> Option<T>,
) -> T {
    patiently(what, async {
        loop {
            let event = session.next().await.expect("the session continues");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    })
    .await
}

async fn connected(session: &mut Session) -> Connected {
    wait_for(session, "connected", |event| match event {
        SessionEvent::Connected(connected) => Some(connected),
        _ => None,
    })
    .await
}

async fn acked(session: &mut Session, token: u64) -> Result<(), &'static str> {
    wait_for(session, "acknowledged", |event| match event {
        SessionEvent::Acked(acks) => acks
            .into_iter()
            .find(|ack| ack.token == token)
            .map(|ack| ack.result.map_err(gsdk2mqtt::mqtt::Refusal::as_str)),
        _ => None,
    })
    .await
}

async fn message(session: &mut Session) -> Message {
    wait_for(session, "a message", |event| match event {
        SessionEvent::Message(message) => Some(message),
        _ => None,
    })
    .await
}

async fn subscribed(session: &mut Session) -> Vec<String> {
    wait_for(session, "subscribed", |event| match event {
        SessionEvent::Subscribed { refused, .. } => {
            Some(refused.into_iter().map(|(filter, _)| filter).collect())
        }
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_are_acknowledged_and_messages_come_back_with_their_properties() {
    let broker = Mosquitto::start("").await;
    let mut session = spawn(settings(broker.port, MqttVersion::V5));
    let mut connection = connected(&mut session).await.connection;
    assert_eq!(connection.window(), 20, "mosquitto's own receive maximum");
    connection.subscribe(vec![("t/#".to_owned(), RetainHandling::DoNotSendAsPublished)]).unwrap();
    assert!(subscribed(&mut session).await.is_empty());
    let sent = Publish {
        content_type: Some("application/json"),
        correlation_data: Some(Bytes::from_static(b"\x00\xff")),
        response_topic: Some("t-reply/1".to_owned()),
        expires_in: Some(Duration::from_secs(60)),
        ..publish("t/a", "{}")
    };
    connection.publish(7, sent).unwrap();
    let got = message(&mut session).await;
    assert_eq!((got.topic.as_str(), &got.payload[..]), ("t/a", &b"{}"[..]));
    assert_eq!(got.response_topic.as_deref(), Some("t-reply/1"));
    assert_eq!(got.correlation_data.as_deref(), Some(&b"\x00\xff"[..]));
    assert!(got.expires_in.is_some_and(|left| left <= Duration::from_secs(60)));
    assert!(!got.retain);
    connection.publish(8, Publish { retain: true, ..publish("t/b", "x") }).unwrap();
    assert_eq!(acked(&mut session, 8).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_3_1_1_publishes_and_receives_too() {
    let broker = Mosquitto::start("").await;
    let mut session = spawn(settings(broker.port, MqttVersion::V311));
    let mut connection = connected(&mut session).await.connection;
    connection.subscribe(vec![("t/#".to_owned(), RetainHandling::DoNotSendAsPublished)]).unwrap();
    assert!(subscribed(&mut session).await.is_empty());
    connection.publish(1, publish("t/a", "x")).unwrap();
    assert_eq!(message(&mut session).await.topic, "t/a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_request_is_not_sent_on_subscribing_but_marked_when_sent_later() {
    let broker = Mosquitto::start("").await;
    let mut session = spawn(settings(broker.port, MqttVersion::V5));
    let mut connection = connected(&mut session).await.connection;
    connection.publish(1, Publish { retain: true, ..publish("t/r", "old") }).unwrap();
    assert_eq!(acked(&mut session, 1).await, Ok(()));
    connection.subscribe(vec![("t/r".to_owned(), RetainHandling::DoNotSendAsPublished)]).unwrap();
    assert!(subscribed(&mut session).await.is_empty());
    connection.publish(2, Publish { retain: true, ..publish("t/r", "new") }).unwrap();
    let got = message(&mut session).await;
    assert_eq!((&got.payload[..], got.retain), (&b"new"[..], true));
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnecting_ends_the_session_in_order_and_the_will_is_not_published() {
    let broker = Mosquitto::start("").await;
    let mut watcher = settings(broker.port, MqttVersion::V5);
    watcher.mqtt.client_id = "watcher".to_owned();
    watcher.will = Will { topic: "w".to_owned(), payload: Bytes::new(), retain: false };
    let mut watcher = spawn(watcher);
    let mut watching = connected(&mut watcher).await.connection;
    watching.subscribe(vec![("t/#".to_owned(), RetainHandling::DoNotSendAsPublished)]).unwrap();
    subscribed(&mut watcher).await;

    let mut session = spawn(settings(broker.port, MqttVersion::V5));
    let mut connection = connected(&mut session).await.connection;
    connection.publish(1, publish("t/last", "x")).unwrap();
    connection.disconnect();
    let mut acks = 0;
    patiently("the session ends", async {
        while let Some(event) = session.next().await {
            if let SessionEvent::Acked(some) = event {
                acks += some.len();
            }
        }
    })
    .await;
    assert_eq!(acks, 1, "what was under way was awaited");
    watching.publish(2, publish("t/end", "x")).unwrap();
    assert_eq!(message(&mut watcher).await.topic, "t/last");
    assert_eq!(message(&mut watcher).await.topic, "t/end", "no will in between");

    let mut dropped = spawn(settings(broker.port, MqttVersion::V5));
    let connection = connected(&mut dropped).await.connection;
    drop(dropped);
    assert_eq!(message(&mut watcher).await.topic, "t/bridge/state", "the will, when dropped");
    drop(connection);
}
