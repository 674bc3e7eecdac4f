//! The loop's hand on one connection: publish, subscribe, disconnect, none of which ever waits.
//!
//! May not keep anything: what was given to a connection that is lost is lost with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Generation;
use super::packet_log::topic_hash;
use super::{v4, v5};
use crate::mqtt::refusal::Refusal;

/// What a packet has beside topic, payload and properties, rounded up: header and lengths.
const PACKET_OVERHEAD: usize = 16;
/// What each property has beside its value.
const PROPERTY_OVERHEAD: usize = 5;

/// One message to publish, with QoS 1.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// Whether the broker keeps it.
    pub retain: bool,
    /// The payload's kind (MQTT 5).
    pub content_type: Option<&'static str>,
    /// How long it is good for (MQTT 5), whole seconds.
    pub expires_in: Option<Duration>,
    /// What a requester wanted back with the answer (MQTT 5).
    pub correlation_data: Option<Bytes>,
    /// Where an answer is wanted (MQTT 5).
    pub response_topic: Option<String>,
}

impl Publish {
    /// A bound on the packet's size; at most a few bytes too large.
    pub(crate) fn size(&self) -> usize {
        let property = |value: Option<usize>| value.map_or(0, |len| len + PROPERTY_OVERHEAD);
        self.topic.len()
            + self.payload.len()
            + property(self.content_type.map(str::len))
            + property(self.expires_in.map(|_| 4))
            + property(self.correlation_data.as_ref().map(Bytes::len))
            + property(self.response_topic.as_ref().map(String::len))
            + PACKET_OVERHEAD
    }
}

/// Why a publish was not even tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The connection is gone; its end is among the events.
    #[error("the connection to the broker is gone")]
    Closed,
    /// More publishes are under way than the window allows.
    #[error("more publishes are under way than the broker's window of {window}")]
    Full {
        /// The window.
        window: u16,
    },
    /// The broker does not take so large a packet, and would end the connection over it.
    #[error("the message has {size} bytes, and the broker takes at most {size_max}")]
    TooLarge {
        /// The size of the packet.
        size: usize,
        /// What the broker takes.
        size_max: u32,
    },
    /// The broker keeps no retained messages.
    #[error("the broker keeps no retained messages; allow them in its configuration")]
    RetainUnavailable,
    /// The topic is no topic to publish to.
    #[error("{topic:?} is not a topic that can be published to")]
    Topic {
        /// The topic.
        topic: String,
    },
}

impl PublishError {
    /// The reason code with which the broker would have refused it; `None` where the connection is
    /// gone.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Closed => None,
            Self::Full { .. } => Some(Refusal::RECEIVE_MAXIMUM_EXCEEDED),
            Self::TooLarge { .. } => Some(Refusal::PACKET_TOO_LARGE),
            Self::RetainUnavailable => Some(Refusal::RETAIN_NOT_SUPPORTED),
            Self::Topic { .. } => Some(Refusal::TOPIC_INVALID),
        }
    }
}

/// What a subscription does with retained messages. MQTT 3.1.1 always does as `Sent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retained {
    /// Those that are there are not sent. One that is published later is marked as retained.
    Marked,
    /// Those that are there are not sent, and none that is published later is marked.
    Skipped,
    /// Those that are there are sent, marked as retained; those published later are not marked.
    Sent,
    /// As `Sent`, for filters that match much.
    Many,
}

impl Retained {
    /// Whether what comes is acknowledged. Where much is kept it is not: of what it has to hear an
    /// acknowledgement for, a broker queues only so much (mosquitto 1,000) and drops the rest.
    pub(super) fn is_acknowledged(self) -> bool {
        self != Self::Many
    }
}

/// Why a subscription was not even tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The connection is gone; its end is among the events.
    #[error("the connection to the broker is gone")]
    Closed,
    /// A filter is not one.
    #[error("one of {filters:?} is not a topic filter")]
    Filter {
        /// The filters.
        filters: Vec<String>,
    },
}

/// The MQTT library's end, of either version.
#[derive(Debug)]
pub(super) enum Client {
    V5(v5::Client),
    V4(v4::Client),
}

/// What the library did with a request.
pub(super) enum Tried {
    Queued,
    Full,
    Closed,
    /// With the topic, where it was a publish.
    Invalid(String),
}

/// What the broker grants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    pub(super) window: u16,
    pub(super) packet_size_max: u32,
    pub(super) retain_available: bool,
}

/// A publish that was given to the library.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentToken {
    pub(super) token: u64,
    /// The topic's hash, compared with what was written under the packet identifier.
    pub(super) topic: u32,
}

/// One connection to the broker. Not to be cloned: the order of its publishes is the order of the
/// calls, and tokens are matched with packets by it.
#[derive(Debug)]
pub struct Connection {
    pub(super) generation: Generation,
    pub(super) client: Client,
    pub(super) granted: Granted,
    pub(super) tokens: mpsc::Sender<SentToken>,
    pub(super) filters: mpsc::Sender<Vec<String>>,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) disconnect_deadline: Duration,
}

impl Connection {
    /// Which connection this is; acknowledgements of another one are not for it.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How many publishes may be unacknowledged at once.
    #[must_use]
    pub fn window(&self) -> u16 {
        self.granted.window
    }

    /// Gives a message to the broker; the answer comes as [`super::Event::Acked`] with `token`.
    ///
    /// # Errors
    ///
    /// The message was not given to the broker, and no answer will come.
    pub fn publish(&mut self, token: u64, publish: Publish) -> Result<(), PublishError> {
        let size = publish.size();
        let size_max = self.granted.packet_size_max;
        if u32::try_from(size).is_ok_and(|size| size > size_max) || u32::try_from(size).is_err() {
            return Err(PublishError::TooLarge { size, size_max });
        }
        // The library drops it without an error.
        if publish.retain && !self.granted.retain_available {
            return Err(PublishError::RetainUnavailable);
        }
        let full = PublishError::Full { window: self.granted.window };
        let slot = match self.tokens.try_reserve() {
            Ok(slot) => slot,
            Err(mpsc::error::TrySendError::Full(())) => return Err(full),
            Err(mpsc::error::TrySendError::Closed(())) => return Err(PublishError::Closed),
        };
        let topic = topic_hash(publish.topic.as_bytes());
        let tried = match &self.client {
            Client::V5(client) => client.publish(publish),
            Client::V4(client) => client.publish(publish),
        };
        match tried {
            Tried::Queued => {
                slot.send(SentToken { token, topic });
                Ok(())
            }
            Tried::Full => Err(full),
            Tried::Closed => Err(PublishError::Closed),
            Tried::Invalid(topic) => Err(PublishError::Topic { topic }),
        }
    }

    /// Subscribes to all of these in one packet, with QoS 1 but for [`Retained::Many`]; our own
    /// messages come too. The answer is [`super::Event::Subscribed`]. A publish that is given later
    /// may still go out before it: the library has a queue for each.
    ///
    /// # Errors
    ///
    /// The subscription was not given to the broker, and no answer will come.
    pub fn subscribe(&mut self, filters: Vec<(String, Retained)>) -> Result<(), SubscribeError> {
        let slot = self.filters.try_reserve().map_err(|_| SubscribeError::Closed)?;
        let tried = match &self.client {
            Client::V5(client) => client.subscribe(&filters),
            Client::V4(client) => client.subscribe(&filters),
        };
        let filters = filters.into_iter().map(|(filter, _)| filter).collect();
        match tried {
            Tried::Queued => {
                slot.send(filters);
                Ok(())
            }
            Tried::Full | Tried::Closed => Err(SubscribeError::Closed),
            Tried::Invalid(_) => Err(SubscribeError::Filter { filters }),
        }
    }

    /// Takes subscriptions back; where the connection is gone they are gone with it.
    pub fn unsubscribe(&mut self, filters: Vec<String>) {
        match &self.client {
            Client::V5(client) => client.unsubscribe(filters),
            Client::V4(client) => client.unsubscribe(filters),
        }
    }

    /// Ends the session in order: what is under way is awaited (within the deadline of the limits),
    /// then DISCONNECT is sent, so that the broker does not publish the will. The session's events
    /// go on until then, and end.
    pub fn disconnect(self) {
        self.stopping.store(true, Ordering::Relaxed);
        match &self.client {
            Client::V5(client) => client.disconnect(self.disconnect_deadline),
            Client::V4(client) => client.disconnect(self.disconnect_deadline),
        }
    }
}
