//! What goes to the broker: a message, its kind, what became of it, and where values are read.
//!
//! May not decide what goes next: `publisher` does.

use std::time::Instant;

use bytes::Bytes;

use crate::fleet::Fleet;
use crate::payload::{BridgeInfo, Directory, LinkFacts};

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

/// What was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// What kind of message.
    pub kind: Kind,
    /// For an event that was taken: when it had been read from the stream.
    pub read_at: Option<Instant>,
    /// For what was not taken: its topic, or a filter of topics like it.
    pub refused_at: Option<String>,
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
