//! Which message goes to whom, without a network; and which connections are ended.

use std::time::Duration;

use bytes::BytesMut;
use rumqttc_v5::mqttbytes::QoS;
use rumqttc_v5::mqttbytes::v5::{
    Connect, ConnectAuth, ConnectProperties, DisconnectReasonCode, LastWill, Packet, Publish,
    RetainForwardRule, Subscribe, SubscribeFilter, SubscribeReasonCode, UnsubAckReason,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;

use super::DemoBroker;
use super::state::BrokerState;
use crate::config::MqttVersion;
use crate::mqtt::wire;

fn publish(topic: &str, payload: &str, retain: bool) -> Publish {
    let (topic, payload) = (topic.to_owned().into(), payload.to_owned().into());
    Publish { qos: QoS::AtLeastOnce, retain, topic, payload, ..Publish::default() }
}

fn filter(path: &str) -> SubscribeFilter {
    SubscribeFilter::new(path.to_owned(), QoS::AtLeastOnce)
}

/// The messages that wait, as topic, payload, and whether they are marked as retained.
fn received(messages: &mut Receiver<Publish>) -> Vec<(String, String, bool)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let messages = std::iter::from_fn(|| messages.try_recv().ok());
    messages.map(|it| (text(&it.topic), text(&it.payload), it.retain)).collect()
}

fn message(topic: &str, payload: &str, retain: bool) -> (String, String, bool) {
    (topic.to_owned(), payload.to_owned(), retain)
}

#[test]
fn overlapping_subscriptions_receive_a_message_once_and_other_topics_not() {
    let mut state = BrokerState::default();
    let (_, mut messages, _) = state.connect("reader", None);
    for path in ["a/+/c", "a/#"] {
        let granted = state.subscribe("reader", filter(path));
        assert_eq!(granted, SubscribeReasonCode::Success(QoS::AtLeastOnce));
    }
    state.publish("writer", publish("a/b/c", "1", false)).unwrap();
    state.publish("writer", publish("b", "2", false)).unwrap();
    assert_eq!(received(&mut messages), [message("a/b/c", "1", false)]);
    assert_eq!(state.unsubscribe("reader", "a/#"), UnsubAckReason::Success);
    assert_eq!(state.unsubscribe("reader", "a/#"), UnsubAckReason::NoSubscriptionExisted);
    state.publish("writer", publish("a/b", "3", false)).unwrap();
    assert_eq!(received(&mut messages), []);
}

#[test]
fn retained_messages_are_sent_as_a_subscription_asks() {
    let mut state = BrokerState::default();
    state.publish("writer", publish("kept", "1", true)).unwrap();
    state.publish("writer", publish("deleted", "1", true)).unwrap();
    state.publish("writer", publish("deleted", "", true)).unwrap();
    let (_, mut messages, _) = state.connect("reader", None);
    let mut subscription = filter("#");
    subscription.retain_forward_rule = RetainForwardRule::OnNewSubscribe;
    for expected in [vec![message("kept", "1", true)], vec![]] {
        state.subscribe("reader", subscription.clone());
        assert_eq!(received(&mut messages), expected);
    }
    subscription.retain_forward_rule = RetainForwardRule::Never;
    (subscription.preserve_retain, subscription.nolocal) = (true, true);
    state.subscribe("reader", subscription);
    state.publish("reader", publish("own", "1", true)).unwrap();
    state.publish("writer", publish("new", "1", true)).unwrap();
    assert_eq!(received(&mut messages), [message("new", "1", true)]);
}

#[test]
fn a_last_will_is_published_unless_the_client_sends_disconnect() {
    let mut state = BrokerState::default();
    let (_, mut messages, _) = state.connect("reader", None);
    state.subscribe("reader", filter("will/#"));
    let will = |topic: &str| Some(LastWill::new(topic, "offline", QoS::AtLeastOnce, false, None));
    let (clean, ..) = state.connect("clean", will("will/clean"));
    state.disconnect("clean", clean, true);
    let (first, ..) = state.connect("one", will("will/first"));
    let (second, ..) = state.connect("one", will("will/second"));
    assert_eq!(received(&mut messages), [message("will/first", "offline", false)]);
    // The connection that was taken over ends without effect.
    state.disconnect("one", first, false);
    assert_eq!(received(&mut messages), []);
    state.disconnect("one", second, false);
    assert_eq!(received(&mut messages), [message("will/second", "offline", false)]);
}

#[test]
fn wrong_topics_and_filters_are_refused() {
    let mut state = BrokerState::default();
    _ = state.connect("client", None);
    for topic in ["", "a/+", "a/#"] {
        assert!(state.publish("client", publish(topic, "1", false)).is_err(), "{topic}");
    }
    let refused = state.subscribe("client", filter("a/#/b"));
    assert_eq!(refused, SubscribeReasonCode::TopicFilterInvalid);
    let refused = state.subscribe("client", filter("$share/group/a"));
    assert_eq!(refused, SubscribeReasonCode::SharedSubscriptionsNotSupported);
}

/// A client over TCP.
struct RawClient {
    stream: TcpStream,
    bytes: BytesMut,
}

impl RawClient {
    /// One that accepts this many messages at a time.
    async fn connect(broker: &DemoBroker, keep_alive: u16, receive_maximum: u16) -> Self {
        let stream = TcpStream::connect(broker.address()).await.unwrap();
        let mut client = Self { stream, bytes: BytesMut::new() };
        let mut properties = ConnectProperties::new();
        properties.receive_maximum = Some(receive_maximum);
        let client_id = "reader".to_owned();
        let (clean_start, properties) = (true, Some(properties));
        let connect = Connect { keep_alive, client_id, clean_start, properties };
        client.send(Packet::Connect(connect, None, ConnectAuth::None)).await;
        assert!(matches!(client.next().await, Some(Packet::ConnAck(_))));
        client
    }

    async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        wire::write(MqttVersion::V5, packet, None, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next packet; `None` if the connection was closed.
    async fn next(&mut self) -> Option<Packet> {
        tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                if let Some(packet) =
                    wire::read(MqttVersion::V5, &mut self.bytes, u32::MAX).unwrap()
                {
                    return Some(packet);
                }
                if self.stream.read_buf(&mut self.bytes).await.unwrap() == 0 {
                    return None;
                }
            }
        })
        .await
        .expect("a packet, or the end")
    }
}

#[tokio::test]
async fn a_client_that_acknowledges_nothing_is_disconnected_when_another_takes_over_its_id() {
    let broker = DemoBroker::start(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut first = RawClient::connect(&broker, 0, 1).await;
    let subscribe = Subscribe { pkid: 1, ..Subscribe::new(filter("#"), None) };
    first.send(Packet::Subscribe(subscribe)).await;
    assert!(matches!(first.next().await, Some(Packet::SubAck(_))));
    let publish = Publish { pkid: 1, ..publish("a", "1", false) };
    first.send(Packet::Publish(publish)).await;
    for _ in 0..2 {
        let next = first.next().await;
        assert!(matches!(next, Some(Packet::Publish(_) | Packet::PubAck(_))), "{next:?}");
    }
    let _second = RawClient::connect(&broker, 0, 1).await;
    let Some(Packet::Disconnect(it)) = first.next().await else { panic!("a reason") };
    assert_eq!(it.reason_code, DisconnectReasonCode::SessionTakenOver);
    assert_eq!(first.next().await, None);
}

#[tokio::test]
async fn a_client_that_sends_nothing_after_connect_is_disconnected() {
    let broker = DemoBroker::start(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut client = RawClient::connect(&broker, 1, 1).await;
    assert_eq!(client.next().await, None);
}
