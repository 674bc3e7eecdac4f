//! The scans of what the broker retains of discovery: whether they are finished, and what they have
//! found that is to be removed.

use std::collections::HashSet;

use crate::ids::Moment;

/// The longest wait for a scan, in milliseconds; then everything is published.
const WAIT_MS: i64 = 10_000;

/// The scans of one connection.
#[derive(Debug, Default)]
pub(crate) struct DiscoveryScan {
    progress: ScanProgress,
    /// The topics found.
    stale: HashSet<String>,
    /// How many of them the present scan has found.
    found: usize,
    /// A broker sends only so many retained messages at once: once those that were found are
    /// removed, others may follow.
    is_wanted_again: bool,
    /// The last scan, perhaps of an earlier connection, has found none.
    is_clean: bool,
}

/// Whether it is known what the broker retains.
#[derive(Debug, Default)]
enum ScanProgress {
    #[default]
    Unread,
    WaitingUntil(Moment),
    Read,
}

impl DiscoveryScan {
    /// For a new connection.
    pub(crate) fn again(&self) -> Self {
        Self { is_clean: self.is_clean, ..Self::default() }
    }

    /// A topic was found that is to be removed; returns whether for the first time.
    pub(crate) fn found(&mut self, topic: &str) -> bool {
        let is_new = self.stale.insert(topic.to_owned());
        self.found += usize::from(is_new);
        is_new
    }

    /// Everything has been read.
    pub(crate) fn finish(&mut self) {
        let count = std::mem::take(&mut self.found);
        (self.is_wanted_again, self.is_clean) = (count > 0, count == 0);
        if count > 0 {
            tracing::info!(count, "clearing stale Home Assistant discovery");
        }
        self.progress = ScanProgress::Read;
    }

    /// Whether another one is to be made, once what was found is removed; true once.
    pub(crate) const fn take_wanted_again(&mut self) -> bool {
        std::mem::replace(&mut self.is_wanted_again, false)
    }

    pub(crate) const fn is_clean(&self) -> bool {
        self.is_clean
    }

    /// Whether the first one is finished, or was waited for long enough.
    pub(crate) const fn is_read(&self) -> bool {
        matches!(self.progress, ScanProgress::Read)
    }

    /// Waits for the first one, with a deadline; returns whether that has passed just now.
    pub(crate) fn wait(&mut self, now: Moment) -> bool {
        match self.progress {
            ScanProgress::Unread => self.progress = ScanProgress::WaitingUntil(now.plus(WAIT_MS)),
            ScanProgress::WaitingUntil(until) if until <= now => {
                self.progress = ScanProgress::Read;
                return true;
            }
            ScanProgress::WaitingUntil(_) | ScanProgress::Read => {}
        }
        false
    }

    /// The deadline, while it is waited for.
    pub(crate) const fn waits_until(&self) -> Option<Moment> {
        match self.progress {
            ScanProgress::WaitingUntil(until) => Some(until),
            ScanProgress::Unread | ScanProgress::Read => None,
        }
    }
}
