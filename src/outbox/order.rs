//! In which order the events of all subjects came: needed only to find the oldest.
//!
//! May not hold events. Acknowledged ones stay until the next tidying, at most as many again.

use std::collections::VecDeque;

use crate::payload::Subject;

#[derive(Debug, Default)]
pub(super) struct Order {
    entries: VecDeque<(u64, Subject)>,
    pub(super) numbered: u64,
}

/// Below this many entries tidying is not worth its while.
const TIDY_FROM: usize = 1_024;

impl Order {
    /// Enters an event and returns its number.
    pub(super) fn push(&mut self, subject: Subject) -> u64 {
        self.numbered += 1;
        self.entries.push_back((self.numbered, subject));
        self.numbered
    }

    /// Enters an event that has its number; those before have smaller ones.
    pub(super) fn enter(&mut self, number: u64, subject: Subject) {
        self.numbered = self.numbered.max(number);
        self.entries.push_back((number, subject));
    }

    /// Takes the first entry that may be taken out. Dead ones at the front are dropped on the way.
    pub(super) fn take_first(
        &mut self,
        lives: impl Fn(u64, &Subject) -> bool,
        may_be_taken: impl Fn(u64, &Subject) -> bool,
    ) -> Option<Subject> {
        while self.entries.front().is_some_and(|(number, subject)| !lives(*number, subject)) {
            self.entries.pop_front();
        }
        let at =
            self.entries.iter().position(|(number, subject)| may_be_taken(*number, subject))?;
        self.entries.remove(at).map(|(_, subject)| subject)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Drops entries of events that are no more, once they outnumber the living.
    pub(super) fn tidy(&mut self, living: usize, lives: impl Fn(u64, &Subject) -> bool) {
        if self.entries.len() > 2 * living + TIDY_FROM {
            self.entries.retain(|(number, subject)| lives(*number, subject));
        }
    }
}
