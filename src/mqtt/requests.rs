//! Requests from the broker, and where each one's answer goes.
//!
//! May not know any command. An answer goes nowhere but below the response prefix and on the
//! bridge's own response topics: a request must not make the bridge publish elsewhere.

use bytes::Bytes;
use tokio::time::Instant;

use super::session::Message;
use super::topics::Topics;

/// The longest response topic that is answered on, in bytes (contract, section 4).
const RESPONSE_TOPIC_LEN_MAX: usize = 256;
/// The longest name of a command that is said back, in bytes; none of ours is half as long.
const COMMAND_LEN_MAX: usize = 64;

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of whom it is asked: the level of the topic that is a gateway's or the bridge's name.
    pub owner: String,
    /// What is asked for.
    pub command: String,
    /// With which payload.
    pub payload: Bytes,
    /// Whether the broker keeps it, so that it would come again and again.
    pub retain: bool,
    /// When it is good for nothing any more.
    pub expires_at: Option<Instant>,
    /// When it came.
    pub received: Instant,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
    /// Whether the answer was wanted where it may not go.
    pub astray: bool,
}

/// Where an answer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    wanted: Option<String>,
    own: String,
    correlation_data: Option<Bytes>,
}

/// An answer on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub(super) topic: String,
    /// Where it goes if the broker does not take it there.
    pub(super) otherwise: Option<String>,
    pub(super) payload: Bytes,
    pub(super) correlation_data: Option<Bytes>,
}

impl Request {
    /// The request that a message is; `None` for a message on another topic.
    #[must_use]
    pub fn of(topics: &Topics, response_prefix: &str, message: &Message) -> Option<Self> {
        let (owner, command) = topics.request(&message.topic)?;
        let wanted = message.response_topic.clone();
        let astray = wanted.as_ref().is_some_and(|topic| !may_answer_on(response_prefix, topic));
        let said_back = if is_plain(command) { command } else { "unknown" };
        Some(Self {
            owner: owner.to_owned(),
            command: command.to_owned(),
            payload: message.payload.clone(),
            retain: message.retain,
            expires_at: message.expires_in.and_then(|span| message.received.checked_add(span)),
            received: message.received,
            reply_to: ReplyTo {
                wanted: wanted.filter(|_| !astray),
                own: topics.response(owner, said_back),
                correlation_data: message.correlation_data.clone(),
            },
            astray,
        })
    }
}

impl ReplyTo {
    /// The answer with this payload.
    #[must_use]
    pub fn answer(self, payload: Bytes) -> Answer {
        let Self { wanted, own, correlation_data } = self;
        match wanted {
            Some(topic) => Answer { topic, otherwise: Some(own), payload, correlation_data },
            None => Answer { topic: own, otherwise: None, payload, correlation_data },
        }
    }
}

fn may_answer_on(prefix: &str, topic: &str) -> bool {
    topic.len() <= RESPONSE_TOPIC_LEN_MAX
        && topic.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty())
        && !topic.chars().any(|c| matches!(c, '+' | '#') || c.is_control())
}

fn is_plain(command: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/' | b'-');
    (1..=COMMAND_LEN_MAX).contains(&command.len()) && command.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(topic: &str, response_topic: Option<&str>) -> Option<Request> {
        let message = Message {
            topic: topic.to_owned(),
            payload: Bytes::new(),
            retain: false,
            response_topic: response_topic.map(str::to_owned),
            correlation_data: Some(Bytes::from_static(b"7")),
            expires_in: None,
            received: Instant::now(),
        };
        Request::of(&Topics::new("gsdk", "bridge"), "gsdk-reply/", &message)
    }

    #[test]
    fn answers_go_only_below_the_prefix() {
        let topic = "gsdk/lobby/request/ssl/enable";
        let answer = |wanted| request(topic, wanted).unwrap().reply_to.answer(Bytes::new());
        let there = answer(Some("gsdk-reply/me"));
        assert_eq!(there.topic, "gsdk-reply/me");
        assert_eq!(there.otherwise.as_deref(), Some("gsdk/lobby/response/ssl/enable"));
        assert_eq!(there.correlation_data.as_deref(), Some(&b"7"[..]));
        assert_eq!(answer(None).topic, "gsdk/lobby/response/ssl/enable");
        let long = format!("gsdk-reply/{}", "a".repeat(250));
        for bad in ["gsdk/lobby/state", "gsdk-reply/", "gsdk-reply/+", "gsdk-reply/#", "", &long] {
            assert!(request(topic, Some(bad)).unwrap().astray, "{bad}");
            assert_eq!(answer(Some(bad)).topic, "gsdk/lobby/response/ssl/enable");
        }
    }

    #[test]
    fn names_that_are_no_commands_are_not_said_back_in_a_topic() {
        for odd in ["a b", "\u{7f}", &"a".repeat(65)] {
            let request = request(&format!("gsdk/lobby/request/{odd}"), None).unwrap();
            assert_eq!(request.reply_to.answer(Bytes::new()).topic, "gsdk/lobby/response/unknown");
        }
        assert!(request("gsdk/lobby/state", None).is_none());
    }
}
