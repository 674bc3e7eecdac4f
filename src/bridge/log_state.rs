//! The log that is written to, or why there is none.

use std::time::Duration;

use tokio::time::Instant;

use crate::ids::Moment;
use crate::store::{Key, Log, StoreError};

/// Between two attempts to begin a log after the last one failed.
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// How long the disk may work on one thing before it counts as hanging.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// The log, or why there is none.
#[derive(Debug)]
pub(crate) enum LogState {
    NotBegun,
    Open(Box<Log>),
    Failed { reason: String, since: Moment, retry_at: Instant },
}

impl LogState {
    /// Gives the log up after an error.
    pub(crate) fn fail(&mut self, now: Moment, error: &StoreError) {
        let since = match self {
            Self::Failed { since, .. } => *since,
            Self::NotBegun | Self::Open(_) => now,
        };
        let (reason, retry_at) = (error.to_string(), Instant::now() + RETRY_EVERY);
        let failed = Self::Failed { reason, since, retry_at };
        if let Self::Open(log) = std::mem::replace(self, failed) {
            log.give_up();
        }
    }

    /// Whether a new log has to be tried now.
    pub(crate) fn retry_is_due(&self) -> bool {
        matches!(self, Self::Failed { retry_at, .. } if *retry_at <= Instant::now())
    }

    /// When the log has something to do although nothing is written, or is tried again.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self {
            Self::Failed { retry_at, .. } => Some(*retry_at),
            Self::Open(log) => log.due(),
            Self::NotBegun => None,
        }
    }

    /// Whether the log stores this value of the key already.
    pub(crate) fn has(&self, key: &Key, value: &[u8]) -> bool {
        matches!(self, Self::Open(log) if log.has(key, value))
    }

    /// Whether the disk does not answer.
    pub(crate) fn hangs(&self) -> bool {
        matches!(self, Self::Open(log) if log.hangs(HANGS_AFTER))
    }

    /// Ends the log, with everything on the disk; `hangs`: without waiting for the disk.
    ///
    /// # Errors
    /// When not everything is on the disk, or the log has failed before.
    pub(crate) fn stop(&mut self, hangs: bool) -> Result<(), StoreError> {
        match std::mem::replace(self, Self::NotBegun) {
            Self::NotBegun => Ok(()),
            Self::Open(log) if hangs => {
                log.detach();
                tracing::warn!("stopping without waiting for the disk");
                Ok(())
            }
            Self::Open(log) => log.stop(),
            Self::Failed { reason, .. } => Err(StoreError::Failed(reason)),
        }
    }
}
