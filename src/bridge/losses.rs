//! Events that nobody will see, told at most once a minute, and remembered until then.
//!
//! May not drop anything: it only counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::outbox::Outbox;
use crate::outbox::store::{Key, Untold};
use crate::payload::{BridgeEventKind, Subject};

/// The least time between two tellings (contract, section 1).
const TELL_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Whose events are lost, of which nobody was told.
    untold: BTreeMap<Subject, Untold>,
    /// Of whom the store has it otherwise.
    unwritten: BTreeSet<Subject>,
    told_at: Option<Instant>,
}

impl Losses {
    pub(super) fn add(&mut self, subject: Subject) {
        self.more(subject, Untold { count: 1, refused: false });
    }

    /// One that the broker will never accept.
    pub(super) fn add_refused(&mut self, subject: Subject) {
        self.more(subject, Untold { count: 1, refused: true });
    }

    /// What an earlier process lost and did not tell.
    pub(super) fn restore(&mut self, untold: Vec<(Subject, Untold)>) {
        untold.into_iter().for_each(|(subject, more)| self.more(subject, more));
    }

    fn more(&mut self, subject: Subject, more: Untold) {
        let known = self.untold.entry(subject.clone()).or_default();
        known.count += more.count;
        known.refused |= more.refused;
        self.unwritten.insert(subject);
    }

    /// Hands on what has changed, to be written with this turn.
    pub(super) fn write_down(&mut self, outbox: &mut Outbox) {
        while let Some(subject) = self.unwritten.pop_first() {
            let untold = self.untold.get(&subject).map(Untold::bytes);
            outbox.note(Key::Untold(subject), untold.as_deref());
        }
    }

    /// All that is to outlive the process.
    pub(super) fn notes(&self) -> impl Iterator<Item = (Key, Vec<u8>)> {
        let note =
            |(subject, untold): (&Subject, &Untold)| (Key::Untold(subject.clone()), untold.bytes());
        self.untold.iter().map(note)
    }

    /// When the next telling is due.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let next = self.told_at.map_or(now, |told_at| told_at + TELL_INTERVAL);
        (!self.untold.is_empty()).then_some(next)
    }

    /// What is to be told now, if anything.
    pub(super) fn tell(&mut self, now: Instant) -> Option<BridgeEventKind> {
        self.due(now).filter(|&due| due <= now)?;
        self.told_at = Some(now);
        let told = std::mem::take(&mut self.untold);
        let reason = if told.values().any(|untold| untold.refused) {
            "the broker does not accept them; see the bridge's log, and raise the broker's maximum \
             packet size if they are too large"
        } else {
            "the outbox was full, so its oldest events were dropped"
        };
        let reason = reason.to_owned();
        let count = told.values().map(|untold| untold.count).sum();
        let devices = told.len() as u64;
        self.unwritten.extend(told.into_keys());
        Some(BridgeEventKind::EventsLost { count, devices, reason })
    }
}
