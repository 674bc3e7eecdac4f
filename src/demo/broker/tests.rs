//! Which message goes to whom, without a network.

use rumqttc_v5::mqttbytes::QoS;
use rumqttc_v5::mqttbytes::v5::{
    LastWill, Publish, PublishProperties, RetainForwardRule, SubscribeFilter, SubscribeReasonCode,
    UnsubAckReason,
};
use tokio::sync::mpsc::Receiver;

use super::state::{BrokerMessage, BrokerState};

fn publish(topic: &str, payload: &str, retain: bool) -> Publish {
    let (topic, payload) = (topic.to_owned().into(), payload.to_owned().into());
    Publish { qos: QoS::AtLeastOnce, retain, topic, payload, ..Publish::default() }
}

fn filter(path: &str) -> SubscribeFilter {
    SubscribeFilter::new(path.to_owned(), QoS::AtLeastOnce)
}

/// The messages that wait, as topic, payload, and whether they are marked as retained.
fn received(messages: &mut Receiver<BrokerMessage>) -> Vec<(String, String, bool)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let messages = std::iter::from_fn(|| messages.try_recv().ok());
    let messages = messages.filter_map(BrokerMessage::into_publish);
    messages.map(|it| (text(&it.topic), text(&it.payload), it.retain)).collect()
}

fn message(topic: &str, payload: &str, retain: bool) -> (String, String, bool) {
    (topic.to_owned(), payload.to_owned(), retain)
}

#[test]
fn overlapping_subscriptions_receive_a_message_once_and_other_topics_not() {
    let mut state = BrokerState::default();
    let (_, mut messages) = state.connect("reader", None);
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
    let (_, mut messages) = state.connect("reader", None);
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
fn a_last_will_is_published_unless_the_client_says_goodbye() {
    let mut state = BrokerState::default();
    let (_, mut messages) = state.connect("reader", None);
    state.subscribe("reader", filter("will/#"));
    let will = |topic: &str| Some(LastWill::new(topic, "offline", QoS::AtLeastOnce, false, None));
    let (clean, _) = state.connect("clean", will("will/clean"));
    state.disconnect("clean", clean, true);
    let (first, _) = state.connect("one", will("will/first"));
    let (second, _) = state.connect("one", will("will/second"));
    assert_eq!(received(&mut messages), [message("will/first", "offline", false)]);
    // The connection that was taken over ends without effect.
    state.disconnect("one", first, false);
    assert_eq!(received(&mut messages), []);
    state.disconnect("one", second, false);
    assert_eq!(received(&mut messages), [message("will/second", "offline", false)]);
}

#[tokio::test(start_paused = true)]
async fn a_message_has_the_rest_of_its_lifetime_and_expires() {
    let mut publish = publish("a", "1", false);
    let properties =
        PublishProperties { message_expiry_interval: Some(10), ..PublishProperties::default() };
    publish.properties = Some(properties);
    let message = BrokerMessage::new(publish);
    tokio::time::advance(std::time::Duration::from_secs(4)).await;
    let sent = message.clone().into_publish().unwrap();
    assert_eq!(sent.properties.unwrap().message_expiry_interval, Some(6));
    tokio::time::advance(std::time::Duration::from_secs(7)).await;
    assert!(message.into_publish().is_none());
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
