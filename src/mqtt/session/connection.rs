//! The bridge's end of one connection: publish, subscribe, disconnect. None of them waits, and what
//! was given to a connection is lost with it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::ack_tracker::{AckTracker, topic_hash};
use super::traffic::Granted;
use crate::mqtt::refusal::Refusal;

/// The number of a connection within its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub(crate) u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An upper bound of a packet's bytes beside topic, payload and properties: header and lengths.
const PACKET_OVERHEAD: usize = 16;
/// A property's bytes beside its value.
const PROPERTY_OVERHEAD: usize = 5;

/// One message to publish, with QoS 1.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    pub topic: String,
    pub payload: Bytes,
    pub retain: bool,
    /// MQTT 5, as the following.
    pub content_type: Option<&'static str>,
    /// In whole seconds.
    pub expires_in: Option<Duration>,
    /// From the request, for its response.
    pub correlation_data: Option<Bytes>,
    pub response_topic: Option<String>,
}

impl Publish {
    /// An upper bound of the packet's size, a few bytes too large at most.
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

/// Why a message was not given to the broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Its end is among the session's events.
    #[error("the connection to the broker has ended")]
    Closed,
    /// More publishes are in flight than the broker allows.
    #[error("more publishes are in flight than the broker's receive maximum of {window}")]
    Full { window: u16 },
    /// The broker would end the connection over it.
    #[error("the message has {size} bytes, and the broker takes at most {size_max}")]
    TooLarge { size: usize, size_max: u32 },
    #[error("the broker keeps no retained messages; allow them in its configuration")]
    RetainUnavailable,
    /// It is empty, or has a wildcard.
    #[error("the topic cannot be published to")]
    InvalidTopic,
}

impl PublishError {
    /// The reason code with which the broker would have refused it; `None` if the connection has
    /// ended.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Closed => None,
            Self::Full { .. } => Some(Refusal::RECEIVE_MAXIMUM_EXCEEDED),
            Self::TooLarge { .. } => Some(Refusal::PACKET_TOO_LARGE),
            Self::RetainUnavailable => Some(Refusal::RETAIN_NOT_SUPPORTED),
            Self::InvalidTopic => Some(Refusal::TOPIC_INVALID),
        }
    }
}

/// How a subscription treats retained messages. MQTT 3.1.1 knows `SendAtSubscribe` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainHandling {
    /// Sends those that exist, marked as retained; those published later are not marked.
    SendAtSubscribe,
    /// The same with QoS 0, for filters that match many: of messages with QoS 1, a broker queues a
    /// limited number (mosquitto 1,000) and drops the rest.
    SendManyAtSubscribe,
    /// Does not send those that exist; those published later are not marked.
    DoNotSend,
    /// Does not send those that exist; those published later are marked.
    DoNotSendAsPublished,
}

/// Why a subscription was not given to the broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// Its end is among the session's events.
    #[error("the connection to the broker has ended")]
    Closed,
    #[error("one of {filters:?} is not a topic filter")]
    Filter { filters: Vec<String> },
}

/// Why the library does not take a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClientError {
    Full,
    Closed,
    /// The topic or a filter is not valid.
    Invalid,
}

/// The publishing end of the MQTT library, of either version.
pub(crate) trait Client: fmt::Debug + Send + Sync {
    fn publish(&self, publish: Publish) -> Result<(), ClientError>;
    fn subscribe(&self, filters: &[(String, RetainHandling)]) -> Result<(), ClientError>;
    fn unsubscribe(&self, filters: Vec<String>);
    fn disconnect(&self, deadline: Duration);
}

/// One connection to the broker.
#[derive(Debug)]
pub struct Connection {
    generation: Generation,
    client: Arc<dyn Client>,
    granted: Granted,
    acks: AckTracker,
    stopping: Arc<AtomicBool>,
    disconnect_deadline: Duration,
}

impl Connection {
    pub(crate) fn new(
        generation: Generation,
        client: Arc<dyn Client>,
        granted: Granted,
        acks: AckTracker,
        stopping: Arc<AtomicBool>,
        disconnect_deadline: Duration,
    ) -> Self {
        Self { generation, client, granted, acks, stopping, disconnect_deadline }
    }

    /// Which connection of the session this is.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How many publishes may be in flight.
    #[must_use]
    pub fn window(&self) -> u16 {
        self.granted.window
    }

    /// Gives a message to the broker; the answer is [`super::Event::Acked`] with this token.
    ///
    /// # Errors
    /// The message was not given to the broker, and no answer will come.
    pub fn publish(&mut self, token: u64, publish: Publish) -> Result<(), PublishError> {
        let (size, size_max) = (publish.size(), self.granted.packet_size_max);
        if u32::try_from(size).map_or(true, |size| size > size_max) {
            return Err(PublishError::TooLarge { size, size_max });
        }
        // The library drops it without an error.
        if publish.retain && !self.granted.retain_available {
            return Err(PublishError::RetainUnavailable);
        }
        let window = self.granted.window;
        let topic = topic_hash(publish.topic.as_bytes());
        let given = self.acks.publish(token, topic, window, || self.client.publish(publish));
        match given {
            Some(Ok(())) => Ok(()),
            None | Some(Err(ClientError::Full)) => Err(PublishError::Full { window }),
            Some(Err(ClientError::Closed)) => Err(PublishError::Closed),
            Some(Err(ClientError::Invalid)) => Err(PublishError::InvalidTopic),
        }
    }

    /// Subscribes to all of these in one packet; our own messages come too. The answer is
    /// [`super::Event::Subscribed`]. A publish that is given later may be sent before it, as the
    /// library has a queue for each.
    ///
    /// # Errors
    /// The subscription was not given to the broker, and no answer will come.
    pub fn subscribe(
        &mut self,
        filters: Vec<(String, RetainHandling)>,
    ) -> Result<(), SubscribeError> {
        let names: Vec<String> = filters.iter().map(|(filter, _)| filter.clone()).collect();
        let given = self.acks.subscribe(names, || self.client.subscribe(&filters));
        given.map_err(|error| match error {
            ClientError::Full | ClientError::Closed => SubscribeError::Closed,
            ClientError::Invalid => SubscribeError::Filter {
                filters: filters.into_iter().map(|(filter, _)| filter).collect(),
            },
        })
    }

    /// Ends subscriptions; those of a connection that has ended are gone.
    pub fn unsubscribe(&mut self, filters: Vec<String>) {
        self.client.unsubscribe(filters);
    }

    /// Ends the session in order: acknowledgements are awaited within their deadline, then
    /// DISCONNECT is sent, so that the broker does not publish the last will. The session's events
    /// end with it.
    pub fn disconnect(self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.client.disconnect(self.disconnect_deadline);
    }
}
