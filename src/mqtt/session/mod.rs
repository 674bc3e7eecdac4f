//! The broker session: connects, hands the loop a connection, begins again when it is lost.
//!
//! May not remember what was published. A lost connection ends its client with everything queued
//! in it; what was not acknowledged, the loop sends again over the next one, so that nothing old
//! can overtake something new. Every connection starts clean.

mod connection;
mod dial;
mod drive;
mod failures;
mod fault;
mod packet_log;
mod packets;
mod silence;
mod tap;
mod v4;
mod v5;
mod words;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use connection::{Connection, Publish, PublishError, Retained, SubscribeError};
pub use dial::Password;
use dial::dial;
use drive::{End, SessionHandle, drive};
use failures::{ClosedSoon, Failures};
pub use fault::Fault;
use tap::PacketTap;

use crate::certificate::Certificate;
use crate::ids::HostPort;
use crate::mqtt::refusal::Refusal;
use crate::net::{Backoff, BackoffPolicy, TlsFiles};
use crate::task::catch_panic;

/// Events that may wait for the loop. When full, nothing more is read from the broker until the
/// loop has taken some; a message may be 256 KiB, so this bounds the memory too.
const EVENTS_MAX: usize = 64;

/// The version of MQTT spoken with the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 5.
    #[default]
    V5,
    /// MQTT 3.1.1: no reasons, response topics, expiry nor retain handling.
    V311,
}

/// The largest packet MQTT knows.
pub(super) const PACKET_SIZE_MAX: u32 = 268_435_460;

/// What the broker publishes for us when we vanish, with QoS 1.
#[derive(Clone, Debug)]
pub struct Will {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// Whether the broker keeps it.
    pub retain: bool,
}

/// The limits of a session, named so that they can be told and tested.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Publishes under way at once, whatever the broker would take.
    pub window_max: u16,
    /// The largest packet taken from the broker, in bytes (MQTT 5, whose brokers withhold larger
    /// ones): twice the largest request that can be permitted, so that too large is answered.
    pub incoming_max: u32,
    /// The same for MQTT 3.1.1, where a larger one costs the connection.
    pub incoming_max_v311: u32,
    /// For name, TCP and TLS together.
    pub connect_deadline: Duration,
    /// For the broker's answer to CONNECT.
    pub connack_deadline: Duration,
    /// For what is under way when asked to disconnect.
    pub disconnect_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window_max: 1000,
            incoming_max: 2 * 1024 * 1024,
            incoming_max_v311: 16 * 1024 * 1024,
            connect_deadline: Duration::from_secs(10),
            connack_deadline: Duration::from_secs(10),
            disconnect_deadline: Duration::from_secs(2),
        }
    }
}

/// Everything a session needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The broker's host name or address.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// TLS, where the URL is `mqtts://`.
    pub tls: Option<TlsFiles>,
    /// Our client ID.
    pub client_id: String,
    /// The user name, if any.
    pub username: Option<String>,
    /// The password, if any.
    pub password: Option<Password>,
    /// The version to speak.
    pub protocol: Protocol,
    /// The last will.
    pub will: Will,
    /// A ping is sent when nothing else was for this long; at one and a half of it without a word
    /// from the broker the connection counts as dead, as the broker's own rule has it.
    pub keep_alive: Duration,
    /// Sizes and deadlines.
    pub limits: Limits,
    /// The waits between attempts.
    pub retry: BackoffPolicy,
}

impl Settings {
    /// The broker as a URL, without user and password: what messages call it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        let address = HostPort { host: self.host.clone(), port: self.port };
        format!("{scheme}://{address}")
    }

    /// The keep-alive as the broker is told it, in seconds.
    pub(super) fn keep_alive_secs(&self) -> u16 {
        u16::try_from(self.keep_alive.as_secs()).unwrap_or(u16::MAX)
    }
}

/// Which connection of this session something belongs to; later ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub(super) u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What the broker said to one publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The token the publish was given.
    pub token: u64,
    /// Whether the broker took it. A refusal is not an acknowledgement: back off, send again.
    pub result: Result<(), Refusal>,
}

/// A message from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The topic it was published to.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// Whether it is a retained one, or was published as one.
    pub retain: bool,
    /// Where its sender wants the answer (MQTT 5).
    pub response_topic: Option<String>,
    /// What its sender wants back with the answer (MQTT 5).
    pub correlation_data: Option<Bytes>,
    /// How long it was still good for when it arrived (MQTT 5).
    pub expires_in: Option<Duration>,
    /// When it arrived.
    pub received: Instant,
}

/// A new connection, and what the broker grants on it.
#[derive(Debug)]
pub struct Connected {
    /// The way to publish and subscribe.
    pub connection: Connection,
    /// How many publishes may be unacknowledged at once.
    pub window: u16,
    /// The largest packet the broker takes, in bytes.
    pub packet_size_max: u32,
    /// Whether the broker keeps retained messages at all.
    pub retain_available: bool,
    /// Its certificate, with TLS.
    pub certificate: Option<Certificate>,
}

impl Connected {
    /// The largest packet that the broker has announced to take, in bytes; `None` where it has
    /// announced no limit below that of MQTT itself.
    #[must_use]
    pub fn announced_packet_size(&self) -> Option<u32> {
        Some(self.packet_size_max).filter(|size| *size < PACKET_SIZE_MAX)
    }
}

/// What the session tells the loop.
#[derive(Debug)]
pub enum Event {
    /// A connection stands: subscribe, publish all that is not acknowledged.
    Connected(Connected),
    /// The broker's word on some publishes.
    Acked {
        /// The connection they went over.
        generation: Generation,
        /// In the order in which the broker answered.
        acks: Vec<Ack>,
    },
    /// The broker's word on a subscription.
    Subscribed {
        /// The connection it went over.
        generation: Generation,
        /// What was asked for.
        filters: Vec<String>,
        /// What was refused, with the broker's reasons.
        refused: Vec<(String, Refusal)>,
    },
    /// A message came in.
    Message(Message),
    /// The connection is gone, and with it all that was not acknowledged.
    Disconnected {
        /// The connection that ended.
        generation: Generation,
        /// Why, in plain words.
        reason: String,
        /// Whether another client uses our client ID.
        taken_over: bool,
        /// Whether the broker closed the connection, with a DISCONNECT or without one.
        closed_by_broker: bool,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// An attempt to connect failed.
    Unreachable {
        /// Why, in plain words.
        reason: String,
        /// Whether a file that the configuration names is missing or cannot be read.
        file_missing: bool,
        /// Failed attempts since the last connection.
        attempts: u32,
        /// When it is tried again.
        retry_in: Duration,
    },
}

/// The loop's end of the session. Dropping it ends the session at once, and the broker publishes
/// the will; [`Connection::disconnect`] ends it in order.
#[derive(Debug)]
pub struct Session {
    events: mpsc::Receiver<Event>,
}

impl Session {
    /// The next event; `None` once the session has ended, after [`Connection::disconnect`]. May be
    /// given up while waiting without losing anything.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Takes up to `most` events that are ready, once there is one; none when the session has
    /// ended. May be given up while waiting without losing any.
    pub async fn next_many(&mut self, events: &mut Vec<Event>, most: usize) {
        self.events.recv_many(events, most).await;
    }
}

/// Starts a session: it connects, and connects again, until it is dropped or disconnected.
///
/// Must be called within a tokio runtime.
#[must_use]
pub fn spawn(settings: Settings) -> Session {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(async move {
        let ended = sender.clone();
        tokio::select! {
            () = ended.closed() => {}
            () = run_on(settings, sender) => {}
        }
    });
    Session { events }
}

/// Runs until it is to stop; a panic costs the connection, not the session.
async fn run_on(settings: Settings, events: mpsc::Sender<Event>) {
    loop {
        let Err(panic) = catch_panic(run(settings.clone(), events.clone())).await else { return };
        tracing::error!(panic, "the broker's session died of a mistake in this program");
        let reason = format!("the session died of a mistake in this program: {panic}");
        let retry_in = settings.retry.first;
        let gone = Event::Disconnected {
            generation: Generation::default(),
            reason,
            taken_over: false,
            closed_by_broker: false,
            retry_in,
        };
        if events.send(gone).await.is_err() {
            return;
        }
        tokio::time::sleep(retry_in).await;
    }
}

async fn run(settings: Settings, events: mpsc::Sender<Event>) {
    let stopping = Arc::new(AtomicBool::new(false));
    let mut backoff = Backoff::new(settings.retry);
    let mut failures = Failures::default();
    let mut closed_soon = ClosedSoon::default();
    for number in 1.. {
        let generation = Generation(number);
        let mut line = SessionHandle::new(generation, events.clone(), Arc::clone(&stopping));
        let end = attempt(&settings, &mut line).await;
        let fault = match end {
            _ if stopping.load(Ordering::Relaxed) => return,
            End::Stopped => return,
            End::Fault(fault) => fault,
        };
        let since = line.connected_at();
        let lasted = since.map(|since| since.elapsed());
        let fault = closed_soon.explain(fault, &line, &settings);
        let retry_in = backoff.next(fault.is_absence(), lasted);
        let reason = fault.to_string();
        let event = if since.is_some() {
            let stable = lasted.is_some_and(|lasted| lasted >= settings.retry.stable);
            failures.lost(&reason, retry_in, stable);
            let taken_over = fault.taken_over();
            let closed_by_broker = fault.closed_by_broker();
            Event::Disconnected { generation, reason, taken_over, closed_by_broker, retry_in }
        } else {
            let attempts = failures.failed(&reason, retry_in);
            let file_missing = fault.file_missing();
            Event::Unreachable { reason, file_missing, attempts, retry_in }
        };
        if events.send(event).await.is_err() {
            return;
        }
        tokio::time::sleep(retry_in).await;
    }
}

async fn attempt(settings: &Settings, line: &mut SessionHandle) -> End {
    let (stream, opened) = match dial(settings).await {
        Ok(dialed) => dialed,
        Err(fault) => return End::Fault(fault),
    };
    line.certificate = opened.certificate.clone();
    let keep_alive = settings.keep_alive_secs();
    let tap = PacketTap::new(stream, settings.protocol, keep_alive, line.stopping());
    match settings.protocol {
        Protocol::V5 => drive(v5::open(settings, &opened, tap), settings, line).await,
        Protocol::V311 => drive(v4::open(settings, &opened, tap), settings, line).await,
    }
}
