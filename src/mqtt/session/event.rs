//! What a session tells the bridge.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ack_tracker::Ack;
use super::connection::{Connection, Generation};
use super::traffic::PACKET_SIZE_MAX;
use crate::certificate::Certificate;
use crate::mqtt::refusal::Refusal;

/// A message from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Bytes,
    /// Whether it was retained before, or published as retained.
    pub retain: bool,
    /// MQTT 5, as the following.
    pub response_topic: Option<String>,
    /// Goes back with the response.
    pub correlation_data: Option<Bytes>,
    /// From when it was received.
    pub expires_in: Option<Duration>,
    pub received: Instant,
}

/// A new connection, and what the broker grants on it.
#[derive(Debug)]
pub struct Connected {
    pub connection: Connection,
    /// How many publishes may be in flight.
    pub window: u16,
    /// The largest packet that the broker accepts, in bytes.
    pub packet_size_max: u32,
    /// Whether the broker keeps retained messages.
    pub retain_available: bool,
    /// The broker's certificate, with TLS.
    pub certificate: Option<Certificate>,
}

impl Connected {
    /// The broker's limit to packets, in bytes; `None` if it has announced none below MQTT's own.
    #[must_use]
    pub fn announced_packet_size(&self) -> Option<u32> {
        Some(self.packet_size_max).filter(|size| *size < PACKET_SIZE_MAX)
    }
}

/// What the session tells the bridge.
#[derive(Debug)]
pub enum Event {
    Connected(Connected),
    /// The broker's answers to publishes, in the order in which it gave them.
    Acked {
        generation: Generation,
        acks: Vec<Ack>,
    },
    /// The broker's answer to a subscription.
    Subscribed {
        generation: Generation,
        filters: Vec<String>,
        refused: Vec<(String, Refusal)>,
    },
    Message(Message),
    /// The connection has ended, and with it everything that was not acknowledged.
    Disconnected {
        generation: Generation,
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
        /// Failed attempts since the last connection.
        attempts: u32,
        retry_in: Duration,
    },
}

/// The driver's way to the bridge, for one connection.
#[derive(Debug)]
pub(crate) struct SessionHandle {
    pub(crate) generation: Generation,
    pub(crate) events: mpsc::Sender<Event>,
    /// Set when a DISCONNECT is requested.
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) connected_at: Option<Instant>,
}

impl SessionHandle {
    pub(crate) async fn send(&self, event: Event) -> Result<(), Stopped> {
        self.events.send(event).await.map_err(|_| Stopped)
    }
}

/// The session has ended: its events are not read any more, or DISCONNECT is sent.
pub(crate) struct Stopped;
