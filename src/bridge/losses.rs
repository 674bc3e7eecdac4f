//! Events that nobody will see, told at most once a minute.
//!
//! May not drop anything: it only counts.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::payload::{BridgeEventKind, Subject};

/// The least time between two tellings (contract, section 1).
const TELL_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Losses {
    count: u64,
    /// Some of them for their size.
    too_large: bool,
    subjects: HashSet<Subject>,
    told_at: Option<Instant>,
}

impl Losses {
    pub(super) fn add(&mut self, subject: Subject) {
        self.count += 1;
        self.subjects.insert(subject);
    }

    /// One that the broker does not take for its size.
    pub(super) fn add_too_large(&mut self, subject: Subject) {
        self.too_large = true;
        self.add(subject);
    }

    /// When the next telling is due.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let next = self.told_at.map_or(now, |told_at| told_at + TELL_INTERVAL);
        (self.count > 0).then_some(next)
    }

    /// What is to be told now, if anything.
    pub(super) fn tell(&mut self, now: Instant) -> Option<BridgeEventKind> {
        self.due(now).filter(|&due| due <= now)?;
        self.told_at = Some(now);
        let devices = self.subjects.drain().count() as u64;
        let reason = if std::mem::take(&mut self.too_large) {
            "the broker does not take packets so large; raise its maximum packet size"
        } else {
            "the outbox was full, so its oldest events were dropped"
        };
        let reason = reason.to_owned();
        Some(BridgeEventKind::EventsLost {
            count: std::mem::take(&mut self.count),
            devices,
            reason,
        })
    }
}
