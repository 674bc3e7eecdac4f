//! Events that were lost, reported by `events_lost` at most once a minute and stored until then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::persistence::Persistence;
use crate::payload::{BridgeEventKind, Subject};
use crate::store::{Key, encode};

/// The least time between two reports (contract, section 1).
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Lost events of one subject.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct UnreportedLoss {
    count: u64,
    /// Some of them because the broker does not accept them.
    refused: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Losses {
    unreported: BTreeMap<Subject, UnreportedLoss>,
    /// Subjects whose loss has changed since it was stored.
    changed: BTreeSet<Subject>,
    reported_at: Option<Instant>,
}

impl Losses {
    pub(crate) fn add(&mut self, subject: Subject) {
        self.more(subject, UnreportedLoss { count: 1, refused: false });
    }

    /// One that the broker will never accept.
    pub(crate) fn add_refused(&mut self, subject: Subject) {
        self.more(subject, UnreportedLoss { count: 1, refused: true });
    }

    /// What an earlier process lost and did not report.
    pub(crate) fn restore(&mut self, subject: Subject, loss: UnreportedLoss) {
        self.more(subject, loss);
    }

    fn more(&mut self, subject: Subject, more: UnreportedLoss) {
        let known = self.unreported.entry(subject.clone()).or_default();
        known.count += more.count;
        known.refused |= more.refused;
        self.changed.insert(subject);
    }

    /// Stores what has changed with this iteration.
    pub(crate) fn store(&mut self, persistence: &mut Persistence) {
        while let Some(subject) = self.changed.pop_first() {
            let loss = self.unreported.get(&subject).map(encode);
            persistence.set(Key::UnreportedLoss(subject), loss.as_deref());
        }
    }

    /// All that has to be stored.
    pub(crate) fn values(&self) -> impl Iterator<Item = (Key, Vec<u8>)> {
        let losses = self.unreported.iter();
        losses.map(|(subject, loss)| (Key::UnreportedLoss(subject.clone()), encode(loss)))
    }

    /// When the next report is due.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let next = self.reported_at.map_or(now, |reported_at| reported_at + REPORT_INTERVAL);
        (!self.unreported.is_empty()).then_some(next)
    }

    /// The report that is due now, if one is.
    pub(crate) fn report(&mut self, now: Instant) -> Option<BridgeEventKind> {
        self.due(now).filter(|&due| due <= now)?;
        self.reported_at = Some(now);
        let losses = std::mem::take(&mut self.unreported);
        let reason = if losses.values().any(|loss| loss.refused) {
            "the broker does not accept them; see the bridge's log, and raise the broker's maximum \
             packet size if they are too large"
        } else {
            "the outbox was full, so its oldest events were dropped"
        };
        let reason = reason.to_owned();
        let count = losses.values().map(|loss| loss.count).sum();
        let devices = losses.len() as u64;
        self.changed.extend(losses.into_keys());
        Some(BridgeEventKind::EventsLost { count, devices, reason })
    }
}
