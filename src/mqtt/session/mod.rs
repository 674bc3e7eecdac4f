//! The broker session: connects, hands each connection to the bridge, and reconnects.
//!
//! It remembers nothing of what was published. A lost connection ends its client with everything
//! queued in it, and the bridge sends what was not acknowledged over the next one. So nothing old
//! can overtake something new. Every connection starts clean.

mod ack_tracker;
mod connection;
mod dial;
mod driver;
mod failures;
mod fault;
mod packet;
mod settings;
mod tap;
mod traffic;
mod v4;
mod v5;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use ack_tracker::Ack;
pub use connection::{Connection, Publish, PublishError, RetainHandling, SubscribeError};
pub use settings::{Limits, Password, Protocol, Settings, Will};

use crate::certificate::Certificate;
use crate::mqtt::refusal::Refusal;
use crate::net::Backoff;
use crate::task::catch_panic;
use dial::dial;
use driver::{Stopped, drive};
use failures::{ClosedSoon, FailureLog};
use fault::{Fault, FaultContext};
use tap::PacketTap;
use traffic::{PACKET_SIZE_MAX, Traffic};

/// Events that may wait for the bridge. When full, nothing more is read from the broker. A message
/// may have 256 KiB, so this bounds the memory too.
const EVENTS_MAX: usize = 64;

/// The number of a connection within its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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

/// The bridge's end of the session. Dropping it ends the session at once, and the broker publishes
/// the last will; [`Connection::disconnect`] ends it in order.
#[derive(Debug)]
pub struct Session {
    events: mpsc::Receiver<Event>,
}

impl Session {
    /// The next event; `None` once the session has ended. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Moves up to `most` events into `events`, once there is one; none once the session has ended.
    /// Safe to cancel.
    pub async fn next_many(&mut self, events: &mut Vec<Event>, most: usize) {
        self.events.recv_many(events, most).await;
    }
}

/// Starts a session in the current tokio runtime: it connects, and reconnects, until it is dropped
/// or disconnected.
#[must_use]
pub fn spawn(settings: Settings) -> Session {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(async move {
        let closed = sender.clone();
        tokio::select! {
            () = closed.closed() => {}
            () = run_caught(settings, sender) => {}
        }
    });
    Session { events }
}

/// Runs the session; a panic ends the connection, not the session.
async fn run_caught(settings: Settings, events: mpsc::Sender<Event>) {
    while let Err(panic) = catch_panic(run(settings.clone(), events.clone())).await {
        tracing::error!(panic, "internal error: the broker session panicked; please report this");
        let retry_in = settings.retry.first;
        let disconnected = Event::Disconnected {
            generation: Generation::default(),
            reason: format!("internal error: the broker session panicked: {panic}"),
            taken_over: false,
            closed_by_broker: false,
            retry_in,
        };
        if events.send(disconnected).await.is_err() {
            return;
        }
        tokio::time::sleep(retry_in).await;
    }
}

async fn run(settings: Settings, events: mpsc::Sender<Event>) {
    let stopping = Arc::new(AtomicBool::new(false));
    let mut backoff = Backoff::new(settings.retry);
    let mut failures = FailureLog::default();
    let mut closed_soon = ClosedSoon::default();
    for number in 1.. {
        let generation = Generation(number);
        let (keep_alive, window_max) = (settings.keep_alive_secs(), settings.limits.window_max);
        let traffic = Traffic::new(settings.protocol, keep_alive, window_max);
        let mut handle = SessionHandle {
            generation,
            events: events.clone(),
            stopping: Arc::clone(&stopping),
            certificate: None,
            connected_at: None,
        };
        let fault = attempt(&settings, &traffic, &mut handle).await;
        let Some(fault) = fault.filter(|_| !stopping.load(Ordering::Relaxed)) else { return };
        let lasted = handle.connected_at.map(|at| at.elapsed());
        let is_unacknowledged = traffic.acks().has_unacknowledged();
        let fault = closed_soon.explain(fault, lasted, is_unacknowledged, &settings);
        let retry_in = backoff.next(fault.is_absence(), lasted);
        let reason = fault.to_string();
        let event = if let Some(lasted) = lasted {
            failures.disconnected(&reason, retry_in, lasted >= settings.retry.stable);
            let taken_over = fault.is_takeover();
            let closed_by_broker = fault.is_closed_by_broker();
            Event::Disconnected { generation, reason, taken_over, closed_by_broker, retry_in }
        } else {
            let attempts = failures.failed(&reason, retry_in);
            let file_missing = fault.is_file_missing();
            Event::Unreachable { reason, file_missing, attempts, retry_in }
        };
        if events.send(event).await.is_err() {
            return;
        }
        tokio::time::sleep(retry_in).await;
    }
}

/// Opens a connection and runs it to its end; `None` if the session is to end as well.
async fn attempt(
    settings: &Settings,
    traffic: &Traffic,
    handle: &mut SessionHandle,
) -> Option<Fault> {
    let opened = match dial(settings).await {
        Ok(opened) => opened,
        Err(fault) => return Some(fault),
    };
    let context = FaultContext::new(settings, &opened, traffic.clone());
    handle.certificate = opened.certificate;
    let tap = PacketTap::new(opened.stream, traffic.clone(), Arc::clone(&handle.stopping));
    let password = opened.password.as_ref();
    match settings.protocol {
        Protocol::V5 => {
            let (client, poller) = v5::open(settings, password, tap);
            drive(client, poller, traffic, &context, handle).await
        }
        Protocol::V311 => {
            let (client, poller) = v4::open(settings, password, tap);
            drive(client, poller, traffic, &context, handle).await
        }
    }
}

/// The driver's way to the bridge, for one connection.
#[derive(Debug)]
struct SessionHandle {
    generation: Generation,
    events: mpsc::Sender<Event>,
    /// Set when a DISCONNECT is requested.
    stopping: Arc<AtomicBool>,
    certificate: Option<Certificate>,
    connected_at: Option<Instant>,
}

impl SessionHandle {
    async fn send(&self, event: Event) -> Result<(), Stopped> {
        self.events.send(event).await.map_err(|_| Stopped)
    }
}
