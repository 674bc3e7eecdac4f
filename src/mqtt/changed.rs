//! Which devices' states are to be published: a set, served in the order in which they changed.
//!
//! May not hold states: they are read at the moment of sending, so the latest wins.

use std::collections::{HashSet, VecDeque};

use crate::fleet::GatewayIndex;
use crate::ids::DeviceId;

/// One device of one gateway.
pub(super) type Key = (GatewayIndex, DeviceId);

#[derive(Debug, Default)]
pub(super) struct Changed {
    queue: VecDeque<(u64, Key)>,
    members: HashSet<Key>,
    entered: u64,
}

impl Changed {
    /// Enters a device; one that is waiting keeps its place.
    pub(super) fn insert(&mut self, key: Key) {
        if self.members.insert(key) {
            self.entered += 1;
            self.queue.push_back((self.entered, key));
        }
    }

    /// The next to be sent, which leaves the set.
    pub(super) fn take(&mut self) -> Option<Key> {
        while let Some((_, key)) = self.queue.pop_front() {
            if self.members.remove(&key) {
                return Some(key);
            }
        }
        None
    }

    /// A device that is no more.
    pub(super) fn remove(&mut self, key: Key) {
        self.members.remove(&key);
    }

    /// Marks this point of the order: see [`Changed::has_passed`].
    pub(super) const fn mark(&self) -> u64 {
        self.entered
    }

    /// Whether all that had entered at this mark has been taken.
    pub(super) fn has_passed(&self, mark: u64) -> bool {
        self.queue.front().is_none_or(|(number, _)| *number > mark)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }
}
