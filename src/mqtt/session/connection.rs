//! The interface between the bridge and a session: messages to publish, subscriptions, and the
//! session's events. Nothing here waits, and queued messages are lost with their connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::packet::{Granted, PACKET_SIZE_MAX};
use crate::certificate::Certificate;
use crate::mqtt::refusal::Refusal;

/// Filters in one SUBSCRIBE packet. AWS IoT accepts no more, and no packet gets large.
pub const FILTERS_PER_PACKET: usize = 8;
/// Subscriptions that may wait beside the publishes of a window; there are about a dozen at once.
const SUBSCRIPTIONS_MAX: usize = 32;
/// The same of ends of subscriptions.
const UNSUBSCRIPTIONS_MAX: usize = 32;

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

    /// Why it is not sent, if the broker would refuse it or end the connection over it.
    pub(crate) fn refusal(&self, granted: &Granted) -> Option<Refusal> {
        if u32::try_from(self.size()).map_or(true, |size| size > granted.packet_size_max) {
            return Some(Refusal::PACKET_TOO_LARGE);
        }
        if self.retain && !granted.retain_available {
            return Some(Refusal::RETAIN_NOT_SUPPORTED);
        }
        let is_invalid = self.topic.is_empty() || self.topic.contains(['+', '#', '\0']);
        is_invalid.then_some(Refusal::TOPIC_INVALID)
    }
}

/// Nothing more can be sent. The end of the connection is among the session's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection to the broker has ended")]
pub struct ConnectionEnded;

/// How a subscription treats retained messages. MQTT 3.1.1 has `SendAtSubscribe` only.
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

/// A command of the bridge to a connection.
#[derive(Debug)]
pub(crate) enum ConnectionCommand {
    Publish { token: u64, publish: Publish },
    Subscribe(Vec<(String, RetainHandling)>),
    Unsubscribe(Vec<String>),
}

/// One connection to the broker.
#[derive(Debug)]
pub struct BrokerConnection {
    commands: mpsc::Sender<ConnectionCommand>,
    granted: Granted,
    stopping: Arc<AtomicBool>,
}

impl BrokerConnection {
    /// A connection, and the commands that it gets.
    pub(crate) fn new(
        granted: Granted,
        stopping: Arc<AtomicBool>,
    ) -> (Self, mpsc::Receiver<ConnectionCommand>) {
        let others = SUBSCRIPTIONS_MAX + UNSUBSCRIPTIONS_MAX;
        let (commands, receiver) = mpsc::channel(usize::from(granted.window) + others);
        (Self { commands, granted, stopping }, receiver)
    }

    /// How many publishes may be in flight: the caller does not exceed it.
    pub fn window(&self) -> u16 {
        self.granted.window
    }

    pub fn retain_available(&self) -> bool {
        self.granted.retain_available
    }

    /// The broker's limit to packets, in bytes; `None` if it has announced none below MQTT's own.
    pub fn announced_packet_size(&self) -> Option<u32> {
        Some(self.granted.packet_size_max).filter(|size| *size < PACKET_SIZE_MAX)
    }

    /// Sends a message; [`SessionEvent::Acked`] follows with this token, also where the message is
    /// not sent because the broker would refuse it.
    ///
    /// # Errors
    /// The message is not sent, nor acknowledged.
    pub fn publish(&mut self, token: u64, publish: Publish) -> Result<(), ConnectionEnded> {
        self.give(ConnectionCommand::Publish { token, publish })
    }

    fn give(&self, command: ConnectionCommand) -> Result<(), ConnectionEnded> {
        // The queue is never full: its capacity is the window, which limits publishes, and a
        // reserve for all other commands.
        self.commands.try_send(command).map_err(|_| ConnectionEnded)
    }

    /// Subscribes to all of these in one packet; our own messages come too. The answer is
    /// [`SessionEvent::Subscribed`].
    ///
    /// # Errors
    /// The subscription is not sent, and no answer will come.
    pub fn subscribe(
        &mut self,
        filters: Vec<(String, RetainHandling)>,
    ) -> Result<(), ConnectionEnded> {
        self.give(ConnectionCommand::Subscribe(filters))
    }

    /// Ends subscriptions; those of a connection that has ended are gone.
    pub fn unsubscribe(&mut self, filters: Vec<String>) {
        // A subscription that stays costs only time; the other places are for what is needed.
        if self.commands.capacity() > usize::from(self.granted.window) + SUBSCRIPTIONS_MAX {
            _ = self.commands.try_send(ConnectionCommand::Unsubscribe(filters));
        }
    }

    /// Ends the session in order: acknowledgements are awaited within their deadline, then
    /// DISCONNECT is sent, so that the broker does not publish the last will. The session's events
    /// end with it.
    pub fn disconnect(self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

/// A message from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Bytes,
    /// Whether it was retained before, or published as retained.
    pub retain: bool,
    /// MQTT 5, as the following.
    pub response_topic: Option<String>,
    /// Returned with the response.
    pub correlation_data: Option<Bytes>,
    /// From when it was received.
    pub expires_in: Option<Duration>,
    pub received: Instant,
}

/// A new connection.
#[derive(Debug)]
pub struct Connected {
    pub connection: BrokerConnection,
    /// The broker's certificate, with TLS.
    pub certificate: Option<Certificate>,
}

/// The broker's PUBACK of a publish, or why it was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The token that the publish was given.
    pub token: u64,
    /// A message that is refused has to be sent again.
    pub result: Result<(), Refusal>,
}

/// What a session reports. Everything of a connection comes after its `Connected` and before its
/// `Disconnected`.
#[derive(Debug)]
pub enum SessionEvent {
    Connected(Connected),
    /// The broker's PUBACKs, in the order in which they came, after what was not sent.
    Acked(Vec<Ack>),
    /// The broker's answer to a subscription.
    Subscribed {
        filters: Vec<String>,
        refused: Vec<(String, Refusal)>,
    },
    Message(Message),
    /// The connection has ended, and with it everything that was not acknowledged.
    Disconnected {
        reason: String,
        /// Whether another client uses the same client ID.
        taken_over: bool,
        /// Whether the broker closed the connection, with a DISCONNECT or without one.
        closed_by_broker: bool,
        retry_in: Duration,
    },
    /// An attempt to connect failed.
    Unreachable {
        reason: String,
        /// Whether a file that the configuration names is missing or cannot be read.
        file_missing: bool,
    },
}
