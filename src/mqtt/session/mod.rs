//! The broker session: connects, passes each connection to the bridge, and reconnects.
//!
//! It stores no published message. A lost connection ends its client with its whole queue, and the
//! bridge sends what was not acknowledged over the next one. So no old message can overtake a newer
//! one. Every connection starts clean.

mod client;
mod codec;
mod connection;
mod fault;
mod in_flight;
mod packet;
mod settings;
mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{debug, warn};

pub use connection::{
    Ack, BrokerConnection, Connected, ConnectionEnded, FILTERS_PER_PACKET, Message, Publish,
    RetainHandling, SessionEvent,
};
pub use settings::{SessionLimits, SessionSettings, Will};

use crate::config::Mqtt;
use crate::net::{self, Backoff, CountedFailure, DialTarget, FailureLog, Peer, Tls, TlsFiles};
use crate::task::catch_panic;
use client::{Ended, SessionClient};
use fault::{BrokerProblem, FaultContext, SessionFault};

/// Events that may wait for the bridge. When full, nothing more is read from the broker. An event
/// may be a message of [`SessionLimits::incoming_max`], so this bounds the memory too.
const EVENTS_MAX: usize = 16;

/// Connections closed soon, one after another, that are no coincidence.
const CLOSED_SOON_MAX: u32 = 3;

/// The bridge's end of the session. Dropping it ends the session at once, and the broker publishes
/// the last will; [`BrokerConnection::disconnect`] ends it in order.
#[derive(Debug)]
pub struct Session {
    events: mpsc::Receiver<SessionEvent>,
}

impl Session {
    /// The next event; `None` once the session has ended. Safe to cancel.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        self.events.recv().await
    }

    /// Moves up to `most` events into `events`, once there is one; none once the session has ended.
    /// Safe to cancel.
    pub async fn next_many(&mut self, events: &mut Vec<SessionEvent>, most: usize) {
        self.events.recv_many(events, most).await;
    }
}

/// Starts a session in the current tokio runtime: it connects, and reconnects, until it is dropped
/// or disconnected.
#[must_use]
pub fn spawn(settings: SessionSettings) -> Session {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = run(&settings, &sender) => {}
        }
    });
    Session { events }
}

async fn run(settings: &SessionSettings, events: &mpsc::Sender<SessionEvent>) {
    let stopping = Arc::new(AtomicBool::new(false));
    let mut backoff = Backoff::new(settings.retry);
    let mut failures = BrokerFailureLog::default();
    let mut closed_soon = ClosedSoon::default();
    loop {
        let attempt = catch_panic(attempt(settings, events, &stopping));
        let ended = attempt.await.unwrap_or_else(|panic| {
            let message = "internal error: the broker session panicked; please report this";
            tracing::error!(panic, message);
            Ok(Ended::panicked(panic))
        });
        let Ended { fault, lasted, is_unacknowledged } = ended.unwrap_or_else(Ended::failed);
        let Some(fault) = fault.filter(|_| !stopping.load(Ordering::Relaxed)) else { return };
        let fault = closed_soon.explain(fault, lasted, is_unacknowledged, settings);
        let retry_in = backoff.next(fault.is_absence(), lasted);
        let reason = fault.to_string();
        let event = if let Some(lasted) = lasted {
            failures.disconnected(&reason, retry_in, lasted >= settings.retry.stable);
            let taken_over = fault.is_takeover();
            let closed_by_broker = fault.is_closed_by_broker();
            SessionEvent::Disconnected { reason, taken_over, closed_by_broker, retry_in }
        } else {
            failures.failed(&reason, retry_in);
            SessionEvent::Unreachable { reason, file_missing: fault.is_file_missing() }
        };
        if events.send(event).await.is_err() {
            return;
        }
        tokio::time::sleep(retry_in).await;
    }
}

/// Opens a connection, but not without the password that is configured, and runs it to its end.
async fn attempt(
    settings: &SessionSettings,
    events: &mpsc::Sender<SessionEvent>,
    stopping: &Arc<AtomicBool>,
) -> Result<Ended, SessionFault> {
    let Mqtt { broker, ca_file, cert_file, key_file, alpn, password, password_file, .. } =
        &settings.mqtt;
    let tls = || Tls {
        files: TlsFiles {
            ca_file: ca_file.clone(),
            cert_file: cert_file.clone(),
            key_file: key_file.clone(),
        },
        server_name: None,
        alpn: alpn.clone(),
    };
    let target = DialTarget {
        peer: Peer::Broker { url: broker.to_string() },
        address: broker.at.clone(),
        tls: broker.tls.then(tls),
        websocket_path: broker.path.clone(),
        deadline: settings.limits.connect_deadline,
    };
    let password = match (password, password_file) {
        (Some(password), _) => Some(password.clone()),
        (None, Some(path)) => {
            let read = net::read_secret(path).await;
            Some(read.map_err(|error| net::no_password(&target, path, &error))?)
        }
        (None, None) => None,
    };
    let dialed = net::dial(&target).await?;
    let context = FaultContext::new(settings, target, dialed.certificate_requested);
    let client = SessionClient::new(dialed, &context, events.clone(), Arc::clone(stopping));
    Ok(client.run(password.as_ref()).await)
}

/// Connections that the broker closed soon, one after another, without giving a reason.
#[derive(Debug, Default)]
pub(crate) struct ClosedSoon {
    times: u32,
    /// In how many of them something was not acknowledged yet.
    unacknowledged: u32,
}

impl ClosedSoon {
    /// Names the likely cause once the broker has closed several connections. One that closes over
    /// a message (access list, size limit, quota) leaves that message unacknowledged each time.
    /// Many brokers, mosquitto 2.0.11 among them, close so when another client takes over.
    pub(crate) fn explain(
        &mut self,
        fault: SessionFault,
        lasted: Option<Duration>,
        is_unacknowledged: bool,
        settings: &SessionSettings,
    ) -> SessionFault {
        let is_soon = lasted.is_some_and(|lasted| lasted < settings.retry.stable);
        let is_closed = match &fault {
            SessionFault::Broker { problem: BrokerProblem::Closed, .. } => true,
            SessionFault::Broker { problem: BrokerProblem::Reset { .. }, .. } => is_unacknowledged,
            _ => false,
        };
        if !(is_soon && is_closed) {
            *self = Self::default();
            return fault;
        }
        self.times += 1;
        self.unacknowledged += u32::from(is_unacknowledged);
        if self.times < CLOSED_SOON_MAX {
            return fault;
        }
        let Self { times, unacknowledged } = std::mem::take(self);
        let (url, client_id) = (settings.mqtt.broker.to_string(), settings.mqtt.client_id.clone());
        let problem = if unacknowledged == times {
            BrokerProblem::ClosedOnMessage { client_id, times }
        } else {
            BrokerProblem::ClosedAgain { client_id, times }
        };
        SessionFault::Broker { url, problem }
    }
}

/// Logs failures, each reason when it is new and then rarely.
#[derive(Debug, Default)]
pub(crate) struct BrokerFailureLog {
    /// Failed attempts since the last connection.
    connect: FailureLog,
    disconnect: FailureLog,
}

impl BrokerFailureLog {
    /// A connection has ended. One that was `stable` makes its reason new again.
    pub(crate) fn disconnected(&mut self, reason: &str, retry_in: Duration, stable: bool) {
        self.connect.reset();
        if stable {
            self.disconnect.reset();
        }
        let CountedFailure { times, is_due } = self.disconnect.count(reason);
        if is_due {
            warn!(reason, times, ?retry_in, "disconnected from the broker; retrying");
        } else {
            debug!(reason, times, ?retry_in, "disconnected from the broker; retrying");
        }
    }

    /// An attempt has failed.
    pub(crate) fn failed(&mut self, reason: &str, retry_in: Duration) {
        let is_due = self.connect.count(reason).is_due;
        let attempts = self.connect.failures();
        if is_due {
            warn!(reason, attempts, ?retry_in, "cannot connect to the broker; retrying");
        } else {
            debug!(reason, attempts, ?retry_in, "cannot connect to the broker; retrying");
        }
    }
}
