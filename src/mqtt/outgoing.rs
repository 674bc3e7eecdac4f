//! What goes to the broker: a message, its kind, what became of it, and where values are read.
//!
//! May not decide what goes next: `publisher` does.

use std::time::Instant;

use bytes::Bytes;

use super::refusals::Rejection;
use super::sent::Sent;
use crate::fleet::Fleet;
use crate::payload::{BridgeInfo, Directory, LinkFacts, Subject};

/// A message for the broker, QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Comes back with the acknowledgement.
    pub token: u64,
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// Whether the broker keeps it.
    pub retain: bool,
    /// Whether it is JSON; otherwise plain text.
    pub json: bool,
    /// What a requester wanted back with the answer (MQTT 5).
    pub correlation_data: Option<Bytes>,
}

/// A message that is to be sent, made of the values of now.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) sent: Sent,
    pub(super) topic: String,
    pub(super) payload: Bytes,
    /// Whether it is JSON; otherwise plain text, or empty.
    pub(super) json: bool,
}

impl Draft {
    pub(super) fn size(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

/// What kinds of message there are, as the metrics count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Of a device, a gateway or the bridge.
    Event,
    /// A retained state.
    State,
    /// A retained info.
    Info,
    /// An answer to a request.
    Answer,
    /// Discovery for Home Assistant.
    Discovery,
}

impl Kind {
    /// Its name as a label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::State => "state",
            Self::Info => "info",
            Self::Answer => "answer",
            Self::Discovery => "discovery",
        }
    }
}

/// A message that was acknowledged or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// What kind of message.
    pub kind: Kind,
    /// For an event that was accepted: when it had been read from the stream.
    pub read_at: Option<Instant>,
    /// For a message that was refused: what follows.
    pub rejected: Option<Rejected>,
}

/// A message that is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// What kind of message.
    pub kind: Kind,
    /// Its topic.
    pub topic: String,
    /// Why.
    pub rejection: Rejection,
    /// Whether it deserves a warning: it is refused for the first time.
    pub is_new: bool,
    /// Whose event is lost, as the broker will never accept it.
    pub lost: Option<Subject>,
}

/// Where the values are read at the moment of sending.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What is true.
    pub fleet: &'a Fleet,
    /// How things are called.
    pub directory: &'a Directory,
    /// What the links know, by gateway.
    pub links: &'a [LinkFacts],
    /// The bridge itself.
    pub bridge: &'a BridgeInfo,
}
