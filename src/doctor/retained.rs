//! Tries whether the broker keeps a retained message, for its exact topic and for a wildcard.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::Finding;
use super::broker::{PROBE, acknowledged, not_permitted};
use crate::mqtt::{Connection, Event, Publish, Retained, Session};

/// The time the broker has to send a retained message after a subscription.
const READ_BACK: Duration = Duration::from_secs(3);
/// The time after which the broker drops the message if the check ends before it is cleared.
const EXPIRY: Duration = Duration::from_secs(60);

/// Publishes a retained message to this topic, reads it back, and clears it.
pub(super) async fn examine(
    topic: &str,
    token: u64,
    session: &mut Session,
    connection: &mut Connection,
) -> Finding {
    let message = |payload| Publish {
        topic: topic.to_owned(),
        payload,
        retain: true,
        expires_in: Some(EXPIRY),
        ..Publish::default()
    };
    if let Err(error) = connection.publish(token, message(Bytes::from_static(PROBE))) {
        return not_permitted("publish a retained message to", topic, &error.to_string());
    }
    if let Err(failure) = acknowledged(session, token).await {
        if failure.is_of_access() {
            return not_permitted("publish a retained message to", topic, &failure.to_string());
        }
        return Finding::fail(format!(
            "broker: did not accept a retained message ({failure}); allow retained messages in the \
             broker's configuration (mosquitto: retain_available true)"
        ))
        .about("mqtt.url");
    }
    let level = topic.rsplit_once('/').map_or(topic, |(above, _)| above);
    let exact = read_back(topic, topic, session, connection).await;
    let wildcard = read_back(&format!("{level}/+"), topic, session, connection).await;
    // The message must not stay; an expiry is set in case this is not acknowledged.
    if connection.publish(token + 1, message(Bytes::new())).is_ok() {
        _ = acknowledged(session, token + 1).await;
    }
    finding(topic, exact, wildcard).about("mqtt.url")
}

fn finding(topic: &str, exact: bool, wildcard: bool) -> Finding {
    match (exact, wildcard) {
        (_, true) => Finding::ok("broker: keeps retained messages (one was read back by wildcard)"),
        (true, false) => Finding::warn(
            "broker: keeps retained messages for exact topics only, as RabbitMQ does: who \
             subscribes with a wildcard, as Home Assistant does, sees no state until it changes; \
             use a broker that keeps them for wildcards too",
        ),
        (false, false) => Finding::fail(format!(
            "broker: a retained message did not come back from {topic}: the broker keeps none \
             (mosquitto: retain_available true), or its access list does not let the bridge's user \
             read its own topics"
        )),
    }
}

/// Whether a subscription to this filter brings the retained message of this topic.
async fn read_back(
    filter: &str,
    topic: &str,
    session: &mut Session,
    connection: &mut Connection,
) -> bool {
    if connection.subscribe(vec![(filter.to_owned(), Retained::Sent)]).is_err() {
        return false;
    }
    let received = timeout(READ_BACK, async {
        loop {
            match session.next().await {
                Some(Event::Message(message)) if message.topic == topic => return message.retain,
                Some(Event::Disconnected { .. }) | None => return false,
                Some(_) => {}
            }
        }
    });
    received.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_broker_that_keeps_messages_for_exact_topics_only_is_a_warning() {
        let level = |exact, wildcard| finding("gsdk/bridge/response/check", exact, wildcard).level;
        assert_eq!(level(true, true), Level::Ok);
        assert_eq!(level(true, false), Level::Warn);
        assert_eq!(level(false, false), Level::Fail);
    }
}
