//! Failures of consecutive connections: their diagnosis, and how often they are logged.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::fault::{BrokerProblem, SessionFault};
use super::settings::SessionSettings;

/// The time after which a repeated failure is logged again, with its count.
const REMIND_AFTER: Duration = Duration::from_secs(600);
/// Reasons that are distinguished: a broker may close the same connection in more than one way.
const REASONS_MAX: usize = 8;
/// Connections closed soon, one after another, that are no coincidence.
const CLOSED_SOON_MAX: u32 = 3;

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
        let (url, client_id) = (settings.url(), settings.client_id.clone());
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
    attempts: u32,
    connect: Reminder,
    disconnect: Reminder,
}

impl BrokerFailureLog {
    /// A connection has ended. One that was `stable` makes its reason new again.
    pub(crate) fn disconnected(&mut self, reason: &str, retry_in: Duration, stable: bool) {
        self.attempts = 0;
        self.connect = Reminder::default();
        if stable {
            self.disconnect = Reminder::default();
        }
        let (times, is_due) = self.disconnect.count(reason);
        if is_due {
            warn!(reason, times, ?retry_in, "disconnected from the broker; retrying");
        } else {
            debug!(reason, times, ?retry_in, "disconnected from the broker; retrying");
        }
    }

    /// An attempt has failed.
    pub(crate) fn failed(&mut self, reason: &str, retry_in: Duration) {
        self.attempts = self.attempts.saturating_add(1);
        let attempts = self.attempts;
        let (_, is_due) = self.connect.count(reason);
        if is_due {
            warn!(reason, attempts, ?retry_in, "cannot connect to the broker; retrying");
        } else {
            debug!(reason, attempts, ?retry_in, "cannot connect to the broker; retrying");
        }
    }
}

/// The latest reasons, at most [`REASONS_MAX`], the oldest first.
#[derive(Debug, Default)]
struct Reminder(Vec<Repeated>);

#[derive(Debug)]
struct Repeated {
    reason: String,
    times: u32,
    logged_at: Instant,
}

impl Reminder {
    /// Counts a failure; returns how often it has occurred, and whether it is to be logged now.
    fn count(&mut self, reason: &str) -> (u32, bool) {
        let now = Instant::now();
        if let Some(known) = self.0.iter_mut().find(|known| known.reason == reason) {
            known.times = known.times.saturating_add(1);
            let is_due = now.duration_since(known.logged_at) >= REMIND_AFTER;
            if is_due {
                known.logged_at = now;
            }
            return (known.times, is_due);
        }
        if self.0.len() >= REASONS_MAX {
            self.0.remove(0);
        }
        self.0.push(Repeated { reason: reason.to_owned(), times: 1, logged_at: now });
        (1, true)
    }
}
