//! When the link to a master compares its gateways, and renews its token.

use std::time::Duration;

use tokio::time::Instant;

use super::disconnect::Disconnect;
use super::error::{Error, LinkError};
use super::reports::{MasterReport, MasterSink};
use super::token::Token;
use crate::ids::Moment;
use crate::net::FailureLog;

/// Between two comparisons of the gateways' statuses with the master's list.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// The least time between them, whatever makes one necessary.
const CHECK_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// The waits double from [`CHECK_INTERVAL_MIN`] so many times, until [`CHECK_INTERVAL`].
const DOUBLINGS_MAX: u32 = 6;
/// Before a failed renewal of the token is tried again.
const RENEWAL_RETRY: Duration = Duration::from_secs(10);

/// The comparison of the gateways with the master's list.
pub(crate) struct Check {
    is_running: bool,
    is_wanted: bool,
    last: Instant,
    /// How many have failed since one succeeded.
    failures: u32,
    /// How many were made since one showed that a gateway is lost.
    since_loss: u32,
}

impl Check {
    /// As after a comparison.
    pub(crate) fn new() -> Self {
        let (last, since_loss) = (Instant::now(), DOUBLINGS_MAX);
        Self { is_running: false, is_wanted: false, last, failures: 0, since_loss }
    }

    /// Has the next one done soon, if `is_wanted`.
    pub(crate) const fn want(&mut self, is_wanted: bool) {
        self.is_wanted |= is_wanted;
    }

    /// A gateway is lost. A list may be wrong for a while: a later one brings the gateway back
    /// before it is reported as lost, or soon after.
    pub(crate) const fn lost(&mut self) {
        self.since_loss = 0;
    }

    pub(crate) fn start(&mut self) {
        let since_loss = self.since_loss.saturating_add(1);
        *self = Self { is_running: true, failures: self.failures, since_loss, ..Self::new() };
    }

    pub(crate) const fn end(&mut self, is_read: bool) {
        self.is_running = false;
        self.failures = if is_read { 0 } else { self.failures.saturating_add(1) };
    }

    /// When the next one is due: after failures or a loss soon, but less and less often.
    pub(crate) fn due(&self) -> Option<Instant> {
        let doublings = match self.failures {
            0 if self.is_wanted => 0,
            0 => self.since_loss,
            failures => failures,
        };
        let wait = CHECK_INTERVAL_MIN.saturating_mul(1 << doublings.min(DOUBLINGS_MAX));
        let wait = wait.min(CHECK_INTERVAL);
        (!self.is_running).then(|| self.last + wait)
    }
}

/// The renewal of the token.
#[derive(Default)]
pub(crate) struct Renewal {
    /// The end of the token that was reported last.
    reported: Option<Moment>,
    /// `None` while one is running, and for a token without a lifetime.
    due: Option<Instant>,
    failures: FailureLog,
}

impl Renewal {
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) const fn start(&mut self) {
        self.due = None;
    }

    /// A renewal has ended; `renewed`: whether there is another token; `token`: the present one.
    /// Returns the error with which the link ends, if it does.
    pub(crate) fn end(
        &mut self,
        renewed: Result<bool, Error>,
        token: &Token,
        reports: &MasterSink,
    ) -> Result<Option<Error>, Disconnect> {
        if matches!(renewed, Ok(true)) {
            self.due = token.renew_at();
            self.failures.reset();
        } else {
            self.due = Some(Instant::now() + RENEWAL_RETRY);
        }
        match renewed {
            // The present token is valid for the other half of its life.
            Err(error @ Error::LoginRefused { .. }) if !token.is_expired() => {
                let error = LinkError::from(&error);
                if self.failures.count(&error.message).is_due {
                    let master = reports.peer().name();
                    tracing::warn!(master, %error, "cannot renew the token; retrying");
                }
                reports.try_send(MasterReport::RenewalRefused(error))?;
                Ok(None)
            }
            renewed => Ok(renewed.err()),
        }
    }

    /// The end of the present token, if that is not the one that was reported last: a call may have
    /// logged in again.
    pub(crate) fn changed(&mut self, token: &Token) -> Option<Option<Moment>> {
        let expires_at = token.expires_at();
        if std::mem::replace(&mut self.reported, expires_at) == expires_at {
            return None;
        }
        self.due = token.renew_at();
        Some(expires_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_loss_the_comparisons_are_soon_and_then_less_and_less_often() {
        let mut check = Check::new();
        let wait = |check: &mut Check| {
            let wait = check.due().unwrap() - Instant::now();
            check.start();
            check.end(true);
            wait.as_secs()
        };
        assert_eq!(wait(&mut check), 60);
        check.lost();
        assert_eq!([(); 8].map(|()| wait(&mut check)), [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
