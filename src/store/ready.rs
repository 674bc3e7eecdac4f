//! Which event is sent next: gateways take turns, so that a burst of one delays no other; of one
//! gateway the oldest.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use crate::ids::GatewayName;
use crate::payload::Subject;

/// IDs of events that may be sent.
#[derive(Debug, Default)]
pub(super) struct ReadyEvents {
    /// By gateway; the bridge's own have none.
    ids: BTreeMap<Option<GatewayName>, BTreeSet<u64>>,
    /// Whose turn was the last one.
    last: Option<GatewayName>,
}

impl ReadyEvents {
    pub(super) fn insert(&mut self, subject: &Subject, id: u64) {
        self.ids.entry(subject.gateway().cloned()).or_default().insert(id);
    }

    pub(super) fn remove(&mut self, subject: &Subject, id: u64) {
        let gateway = subject.gateway().cloned();
        if let Some(ids) = self.ids.get_mut(&gateway) {
            ids.remove(&id);
            if ids.is_empty() {
                self.ids.remove(&gateway);
            }
        }
    }

    /// Takes the next one.
    pub(super) fn pop(&mut self) -> Option<u64> {
        let mut later = self.ids.range((Excluded(&self.last), Unbounded));
        let gateway = later.next().or_else(|| self.ids.first_key_value())?.0.clone();
        let ids = self.ids.get_mut(&gateway)?;
        let id = ids.pop_first();
        if ids.is_empty() {
            self.ids.remove(&gateway);
        }
        self.last = gateway;
        id
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}
