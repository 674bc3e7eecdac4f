//! The broker session: connects, hands each connection to the bridge, and reconnects.
//!
//! It remembers nothing of what was published. A lost connection ends its client with everything
//! queued in it, and the bridge sends what was not acknowledged over the next one. So nothing old
//! can overtake something new. Every connection starts clean.

mod ack_tracker;
mod connection;
mod dial;
mod driver;
mod event;
mod failures;
mod fault;
mod packet;
mod settings;
mod tap;
mod traffic;
mod v4;
mod v5;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

pub use ack_tracker::Ack;
pub use connection::{
    Connection, Generation, Publish, PublishError, RetainHandling, SubscribeError,
};
pub use event::{Connected, Event, Message};
pub use settings::{Limits, Password, Protocol, Settings, Will};

use crate::net::Backoff;
use crate::task::catch_panic;
use dial::dial;
use driver::drive;
use event::SessionHandle;
use failures::{ClosedSoon, FailureLog};
use fault::{Fault, FaultContext};
use tap::PacketTap;
use traffic::Traffic;

/// Events that may wait for the bridge. When full, nothing more is read from the broker. A message
/// may have 256 KiB, so this bounds the memory too.
const EVENTS_MAX: usize = 64;

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
    let context =
        FaultContext::new(settings, opened.target, opened.certificate_requested, traffic.clone());
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
