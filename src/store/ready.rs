//! Which event is sent next: gateways take turns, so that a burst of one delays no other; of one
//! gateway the oldest.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use crate::ids::GatewayName;
use crate::payload::Subject;

/// The subjects whose first event may be sent.
#[derive(Debug, Default)]
pub(crate) struct ReadySubjects {
    /// By gateway (`None`: the bridge) and event ID.
    subjects: BTreeMap<Option<GatewayName>, BTreeMap<u64, Subject>>,
    /// Whose turn was the last one.
    last: Option<GatewayName>,
}

impl ReadySubjects {
    pub(crate) fn insert(&mut self, subject: Subject, first_id: u64) {
        let gateway = subject.gateway().cloned();
        self.subjects.entry(gateway).or_default().insert(first_id, subject);
    }

    pub(crate) fn remove(&mut self, subject: &Subject, first_id: u64) {
        let gateway = subject.gateway().cloned();
        if let Some(subjects) = self.subjects.get_mut(&gateway) {
            subjects.remove(&first_id);
            if subjects.is_empty() {
                self.subjects.remove(&gateway);
            }
        }
    }

    /// Takes the next one.
    pub(crate) fn pop(&mut self) -> Option<Subject> {
        let mut later = self.subjects.range((Excluded(&self.last), Unbounded));
        let gateway = later.next().or_else(|| self.subjects.first_key_value())?.0.clone();
        let subjects = self.subjects.get_mut(&gateway)?;
        let next = subjects.pop_first();
        if subjects.is_empty() {
            self.subjects.remove(&gateway);
        }
        self.last = gateway;
        next.map(|(_, subject)| subject)
    }

    /// The one with the oldest event, and its ID.
    pub(crate) fn oldest(&self) -> Option<(u64, &Subject)> {
        let firsts = self.subjects.values().filter_map(BTreeMap::first_key_value);
        firsts.map(|(&first_id, subject)| (first_id, subject)).min()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }
}
