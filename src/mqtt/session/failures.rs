//! Failures of several connections in a row: what they mean together, how often they are logged.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::Settings;
use super::drive::SessionHandle;
use super::fault::Fault;

/// A failure that repeats is logged again after this long, with its count.
const REMIND_AFTER: Duration = Duration::from_secs(600);
/// Failures that are told apart: a broker may close the same connection in more than one way.
const REASONS_MAX: usize = 8;

/// Connections closed soon, one after another, that are no chance.
const CLOSED_SOON_MAX: u32 = 3;

/// Connections that the broker closed soon, one after another, without giving a reason.
#[derive(Debug, Default)]
pub(super) struct ClosedSoon {
    times: u32,
    /// In how many of them something was not acknowledged yet.
    unacknowledged: u32,
}

impl ClosedSoon {
    /// Names what is likely once the broker has closed several connections. One that closes on a
    /// message (its access list, a size limit, a quota) leaves that message unacknowledged each
    /// time; many brokers, mosquitto 2.0.11 among them, close so when another client takes over.
    pub(super) fn explain(
        &mut self,
        fault: Fault,
        handle: &SessionHandle,
        settings: &Settings,
    ) -> Fault {
        let soon = handle.connected_at().is_some_and(|at| at.elapsed() < settings.retry.stable);
        let on_message = handle.unacknowledged > 0;
        let closed = match fault {
            Fault::Closed { .. } => true,
            Fault::Reset { .. } => on_message,
            _ => false,
        };
        if !(soon && closed) {
            *self = Self::default();
            return fault;
        }
        self.times += 1;
        self.unacknowledged += u32::from(on_message);
        if self.times < CLOSED_SOON_MAX {
            return fault;
        }
        let Self { times, unacknowledged } = std::mem::take(self);
        let (broker, client_id) = (settings.url(), settings.client_id.clone());
        if unacknowledged == times {
            Fault::ClosedOnMessage { broker, client_id, times }
        } else {
            Fault::ClosedAgain { broker, client_id, times }
        }
    }
}

/// What went wrong lately, so that a thousand equal failures are a few lines.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Failed attempts since the last connection.
    attempts: u32,
    attempt: Reminder,
    disconnect: Reminder,
}

impl Failures {
    /// A connection has ended. One that lasted is news again.
    pub(super) fn lost(&mut self, reason: &str, retry_in: Duration, lasted: bool) {
        self.attempts = 0;
        self.attempt = Reminder::default();
        if lasted {
            self.disconnect = Reminder::default();
        }
        let (times, is_due) = self.disconnect.count(reason);
        if is_due {
            warn!(reason, times, ?retry_in, "disconnected from the broker; retrying");
        } else {
            debug!(reason, times, ?retry_in, "disconnected from the broker; retrying");
        }
    }

    /// An attempt has failed; gives how many have since the last connection.
    pub(super) fn failed(&mut self, reason: &str, retry_in: Duration) -> u32 {
        self.attempts = self.attempts.saturating_add(1);
        let attempts = self.attempts;
        let (_, is_due) = self.attempt.count(reason);
        if is_due {
            warn!(reason, attempts, ?retry_in, "cannot connect to the broker; retrying");
        } else {
            debug!(reason, attempts, ?retry_in, "cannot connect to the broker; retrying");
        }
        attempts
    }
}

/// Failures, each of which is logged when it is new, and again after [`REMIND_AFTER`].
#[derive(Debug, Default)]
struct Reminder {
    /// At most [`REASONS_MAX`], the oldest first.
    failures: Vec<Repeated>,
}

#[derive(Debug)]
struct Repeated {
    reason: String,
    times: u32,
    logged_at: Instant,
}

impl Reminder {
    /// Counts this failure; gives how often it has come, and whether it is to be logged now.
    fn count(&mut self, reason: &str) -> (u32, bool) {
        let now = Instant::now();
        if let Some(known) = self.failures.iter_mut().find(|known| known.reason == reason) {
            known.times = known.times.saturating_add(1);
            let is_due = now.duration_since(known.logged_at) >= REMIND_AFTER;
            if is_due {
                known.logged_at = now;
            }
            return (known.times, is_due);
        }
        if self.failures.len() >= REASONS_MAX {
            self.failures.remove(0);
        }
        self.failures.push(Repeated { reason: reason.to_owned(), times: 1, logged_at: now });
        (1, true)
    }
}
