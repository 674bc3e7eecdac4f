//! Messages for the broker: the subject of each one, and its result.

use std::time::Instant;

use bytes::Bytes;

use super::info::InfoOf;
use crate::fleet::{Fleet, GatewayIndex};
use crate::homeassistant;
use crate::ids::{DeviceId, GatewayName};
use crate::mqtt::refusal::Refusal;
use crate::mqtt::session::Publish;
use crate::payload::{Directory, LinkFacts, Subject};
use crate::store::Event;

/// Bytes of an answer in memory beside its packet.
const ANSWER_OVERHEAD: usize = 256;

/// What a message is about: its identity while it is in flight, and for sending it again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MessageId {
    Event(Subject),
    DeviceState(GatewayIndex, DeviceId),
    GatewayState(GatewayIndex),
    Info(InfoOf),
    BridgeState,
    /// `offline` of a gateway that is not configured any more.
    Offline(GatewayName),
    /// An empty message for the topic of something that no longer exists.
    Clear(String),
    /// An empty message on the topic of this one, which is refused: the retained value is outdated.
    Empty(Box<Self>),
    Answer(Box<Answer>),
    Discovery(homeassistant::Described),
    /// An empty message that removes discovery.
    RemoveDiscovery(String),
}

impl MessageId {
    pub(crate) const fn kind(&self) -> MessageKind {
        match self {
            Self::Event(_) => MessageKind::Event,
            Self::Info(_) => MessageKind::Info,
            Self::DeviceState(..)
            | Self::GatewayState(_)
            | Self::BridgeState
            | Self::Offline(_)
            | Self::Clear(_)
            | Self::Empty(_) => MessageKind::State,
            Self::Answer(_) => MessageKind::Answer,
            Self::Discovery(_) | Self::RemoveDiscovery(_) => MessageKind::Discovery,
        }
    }

    const fn is_retained(&self) -> bool {
        !matches!(self, Self::Event(_) | Self::Answer(_))
    }
}

/// A message that is ready to be sent, or is in flight.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) id: MessageId,
    /// Distinguishes an event from the others of its subject.
    pub(crate) number: u64,
    pub(crate) publish: Publish,
}

impl Outgoing {
    pub(crate) fn json(id: MessageId, topic: String, payload: Bytes) -> Self {
        let publish = Publish {
            topic,
            payload,
            retain: id.is_retained(),
            content_type: Some("application/json"),
            ..Publish::default()
        };
        Self { id, number: 0, publish }
    }

    /// A stored event, and how many of its subject were dropped before it.
    pub(crate) fn event(event: &Event, lost: u64, topic: String) -> Self {
        let payload = with_lost(&event.payload, lost);
        let message = Self::json(MessageId::Event(event.subject.clone()), topic, payload);
        Self { number: event.id, ..message }
    }

    /// A retained plain text; an empty one clears the topic.
    pub(crate) fn text(id: MessageId, topic: String, text: &'static str) -> Self {
        let payload = Bytes::from_static(text.as_bytes());
        let publish = Publish { topic, payload, retain: true, ..Publish::default() };
        Self { id, number: 0, publish }
    }
}

/// The payload with the number of events of its subject that were dropped before it.
fn with_lost(payload: &Bytes, lost: u64) -> Bytes {
    match payload.strip_suffix(b"}") {
        Some(open) if lost > 0 => {
            let mut payload = open.to_vec();
            payload.extend_from_slice(format!(",\"lost\":{lost}}}").as_bytes());
            payload.into()
        }
        _ => payload.clone(),
    }
}

/// An answer to a request, with its alternatives where the broker refuses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Answer {
    pub(crate) topic: String,
    /// The topic for the case that the broker refuses the first one.
    pub(crate) fallback_topic: Option<String>,
    pub(crate) payload: Bytes,
    /// Sent instead if the broker refuses the payload as too large.
    pub(crate) short: Option<Bytes>,
    pub(crate) correlation_data: Option<Bytes>,
    /// The request exceeded a limit of rate.
    pub(crate) is_rate_limited: bool,
}

impl Answer {
    /// An upper bound of its packet's size on either topic, a few bytes too large at most.
    pub(crate) fn packet_size(&self) -> usize {
        let fallback_topic = self.fallback_topic.as_ref().map_or(0, String::len);
        let publish = Publish {
            payload: self.payload.clone(),
            content_type: Some("application/json"),
            correlation_data: self.correlation_data.clone(),
            ..Publish::default()
        };
        publish.size() + self.topic.len().max(fallback_topic)
    }

    /// Adds a short answer, which is sent if the broker refuses this one as too large.
    pub(crate) fn or_short(self, short: Bytes) -> Self {
        Self { short: Some(short), ..self }
    }

    /// Bytes that it takes while it waits.
    pub(crate) fn memory(&self) -> usize {
        let short = self.short.as_ref().map_or(0, Bytes::len);
        self.packet_size() + short + ANSWER_OVERHEAD
    }

    /// The answer to send after a refusal: the short one, then the one on the bridge's own response
    /// topic, and there without the correlation data of its request, each once.
    pub(crate) fn fallback(mut self, refusal: Refusal) -> Option<Self> {
        let is_too_large = refusal == Refusal::PACKET_TOO_LARGE;
        if is_too_large && self.short.is_some() {
            self.payload = self.short.take()?;
        } else if self.fallback_topic.is_some() || !is_too_large {
            self.topic = self.fallback_topic.take()?;
        } else {
            self.correlation_data.take()?;
        }
        Some(self)
    }
}

/// The kinds of message, as the metrics count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum MessageKind {
    Event,
    State,
    Info,
    Answer,
    Discovery,
}

impl MessageKind {
    /// The metric label.
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A message that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) kind: MessageKind,
    /// For an event: when it was read from the gateway's stream.
    pub(crate) read_at: Option<Instant>,
}

/// A message that was not accepted.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) kind: MessageKind,
    pub(crate) topic: String,
    pub(crate) refusal: Refusal,
    /// It is rejected for the first time, which is worth a warning.
    pub(crate) is_new: bool,
    /// The event that is lost, as the broker will never accept it.
    pub(crate) lost: Option<Box<Event>>,
}

/// The current values, read when a message is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) fleet: &'a Fleet,
    pub(crate) directory: &'a Directory,
    /// By gateway.
    pub(crate) links: &'a [LinkFacts],
}
