//! The devices whose states are to be published: a set, in the order in which they changed.

use std::collections::{HashSet, VecDeque};

use crate::fleet::GatewayIndex;
use crate::ids::DeviceId;

/// A set that keeps the order of insertion.
#[derive(Debug, Default)]
pub(crate) struct ChangedDevices {
    queue: VecDeque<(u64, (GatewayIndex, DeviceId))>,
    members: HashSet<(GatewayIndex, DeviceId)>,
    /// Counts insertions.
    inserted: u64,
}

impl ChangedDevices {
    /// Adds a device; one that waits already keeps its place.
    pub(crate) fn insert(&mut self, device: (GatewayIndex, DeviceId)) {
        if self.members.insert(device) {
            self.inserted += 1;
            self.queue.push_back((self.inserted, device));
        }
    }

    pub(crate) fn take(&mut self) -> Option<(GatewayIndex, DeviceId)> {
        while let Some((_, device)) = self.queue.pop_front() {
            if self.members.remove(&device) {
                return Some(device);
            }
        }
        None
    }

    pub(crate) fn remove(&mut self, device: (GatewayIndex, DeviceId)) {
        self.members.remove(&device);
    }

    pub(crate) fn are_taken_up_to(&self, position: u64) -> bool {
        self.queue.front().is_none_or(|(number, _)| *number > position)
    }

    /// A position in the order: the devices inserted so far are before it.
    pub(crate) const fn position(&self) -> u64 {
        self.inserted
    }
}
