//! Failures of consecutive connections: their diagnosis, and how often they are logged.

use std::time::Duration;

use tracing::{debug, warn};

use super::fault::{BrokerProblem, SessionFault};
use super::settings::SessionSettings;
use crate::net::{CountedFailure, FailureLog};

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
