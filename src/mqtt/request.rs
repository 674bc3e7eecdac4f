//! Requests from the broker, and the topics of their responses.
//!
//! A response is published only below the response prefix or on the bridge's own response topics,
//! so that a request cannot make the bridge publish elsewhere.

use bytes::Bytes;
use tokio::time::Instant;

use super::publish::Answer;
use super::session::Message;
use crate::topics::Topics;

/// The longest response topic that is used, in bytes.
const RESPONSE_TOPIC_LEN_MAX: usize = 256;
/// The longest command or gateway name that is repeated in an answer; ours are below half of it.
const NAME_LEN_MAX: usize = 64;
/// Replaces a name that cannot be repeated in a topic.
const UNKNOWN: &str = "unknown";

/// A request as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReceivedRequest {
    pub(crate) command: String,
    pub(crate) payload: Bytes,
    /// Whether the broker retains it, and would send it again at each subscription.
    pub(crate) retain: bool,
    /// Whether its response topic is not permitted.
    pub(crate) response_topic_rejected: bool,
    pub(crate) requester: Requester,
}

/// The topic of a request's response, and its correlation data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requester {
    /// The level of the topic that names a gateway or the bridge.
    pub(crate) owner: String,
    pub(crate) received: Instant,
    pub(crate) expires_at: Option<Instant>,
    /// The request's own response topic.
    response_topic: Option<String>,
    /// The bridge's response topic.
    own_response_topic: String,
    correlation_data: Option<Bytes>,
}

impl ReceivedRequest {
    /// The request in a message; `None` for a message on another topic.
    pub(crate) fn of(topics: &Topics, response_prefix: &str, message: &Message) -> Option<Self> {
        let (owner, command) = topics.request(&message.topic)?;
        let response_topic = message.response_topic.clone();
        let permitted = |topic: &String| may_answer_on(response_prefix, topic);
        let repeated = |name| if is_plain(name) { name } else { UNKNOWN };
        Some(Self {
            command: cut(command),
            payload: message.payload.clone(),
            retain: message.retain,
            response_topic_rejected: response_topic.as_ref().is_some_and(|it| !permitted(it)),
            requester: Requester {
                owner: cut(owner),
                received: message.received,
                expires_at: message.expires_in.and_then(|span| message.received.checked_add(span)),
                response_topic: response_topic.filter(permitted),
                own_response_topic: topics.response(repeated(owner), repeated(command)),
                correlation_data: message.correlation_data.clone(),
            },
        })
    }
}

impl Requester {
    /// The answer with this payload.
    pub(crate) fn answer(&self, payload: Bytes) -> Answer {
        let own = self.own_response_topic.clone();
        let (topic, fallback_topic) = match self.response_topic.clone() {
            Some(topic) => (topic, Some(own)),
            None => (own, None),
        };
        let correlation_data = self.correlation_data.clone();
        let (short, is_rate_limited) = (None, false);
        Answer { topic, fallback_topic, payload, short, correlation_data, is_rate_limited }
    }
}

fn may_answer_on(prefix: &str, topic: &str) -> bool {
    topic.len() <= RESPONSE_TOPIC_LEN_MAX
        && topic.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty())
        && !topic.chars().any(|c| matches!(c, '+' | '#') || c.is_control())
}

/// Whether a name can be repeated in a topic as it is.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/' | b'-');
    (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// A name that is short enough to be repeated in an answer; one that is cut is unknown.
fn cut(name: &str) -> String {
    name.chars().take(NAME_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(topic: &str, response_topic: Option<&str>) -> Option<ReceivedRequest> {
        let message = Message {
            topic: topic.to_owned(),
            payload: Bytes::new(),
            retain: false,
            response_topic: response_topic.map(str::to_owned),
            correlation_data: Some(Bytes::from_static(b"7")),
            expires_in: None,
            received: Instant::now(),
        };
        ReceivedRequest::of(&Topics::new("gsdk", "bridge"), "gsdk-reply/", &message)
    }

    fn request_of(topic: &str) -> ReceivedRequest {
        request(topic, None).unwrap()
    }

    #[test]
    fn answers_go_only_below_the_prefix() {
        let topic = "gsdk/lobby/request/ssl/enable";
        let answer = |wanted| request(topic, wanted).unwrap().requester.answer(Bytes::new());
        let there = answer(Some("gsdk-reply/me"));
        assert_eq!(there.topic, "gsdk-reply/me");
        assert_eq!(there.fallback_topic.as_deref(), Some("gsdk/lobby/response/ssl/enable"));
        assert_eq!(there.correlation_data.as_deref(), Some(&b"7"[..]));
        assert_eq!(answer(None).topic, "gsdk/lobby/response/ssl/enable");
        let long = format!("gsdk-reply/{}", "a".repeat(250));
        for bad in ["gsdk/lobby/state", "gsdk-reply/", "gsdk-reply/+", "gsdk-reply/#", "", &long] {
            assert!(request(topic, Some(bad)).unwrap().response_topic_rejected, "{bad}");
            assert_eq!(answer(Some(bad)).topic, "gsdk/lobby/response/ssl/enable");
        }
    }

    #[test]
    fn names_that_are_no_commands_are_not_repeated_in_a_topic() {
        for odd in ["a b", "\u{7f}", &"a".repeat(65)] {
            let request = request_of(&format!("gsdk/lobby/request/{odd}"));
            assert_eq!(request.requester.answer(Bytes::new()).topic, "gsdk/lobby/response/unknown");
            let request = request_of(&format!("gsdk/{odd}/request/devices"));
            assert_eq!(
                request.requester.answer(Bytes::new()).topic,
                "gsdk/unknown/response/devices"
            );
        }
        let long = request_of(&format!("gsdk/{0}/request/{0}", "é".repeat(30_000)));
        assert_eq!((long.requester.owner.chars().count(), long.command.chars().count()), (64, 64));
        assert!(request("gsdk/lobby/state", None).is_none());
    }

    /// Levels as people write them, and others.
    fn levels() -> impl Strategy<Value = String> {
        const WORDS: &[&str] =
            &["gsdk", "gsdk-reply", "lobby", "request", "response", "state", "+", "#", ""];
        let level = prop_oneof![
            3 => proptest::sample::select(WORDS).prop_map(str::to_owned),
            1 => any::<String>(),
        ];
        proptest::collection::vec(level, 0..6).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        /// For every request the bridge publishes below the prefix or on a response topic only.
        #[test]
        fn no_request_makes_the_bridge_publish_elsewhere(
            below in levels(),
            wanted in proptest::option::of(levels()),
        ) {
            for topic in [format!("gsdk/{below}"), format!("gsdk/lobby/request/{below}")] {
                let Some(request) = request(&topic, wanted.as_deref()) else { continue };
                let answer = request.requester.answer(Bytes::new());
                for topic in [Some(answer.topic), answer.fallback_topic].into_iter().flatten() {
                    let own = topic.starts_with("gsdk/") && topic.contains("/response/");
                    prop_assert!(own || topic.starts_with("gsdk-reply/"), "{topic:?}");
                    let odd = |c: char| matches!(c, '+' | '#') || c.is_control();
                    prop_assert!(!topic.contains(odd), "{topic:?}");
                }
            }
        }
    }
}
