//! Statuses of a master's stream that are held until it is known which gateway has the device.

use std::collections::{BTreeMap, VecDeque};

use crate::fleet::StreamedStatus;
use crate::ids::DeviceId;

/// Statuses that are held at most.
pub(crate) const HELD_MAX: usize = 8_192;
/// Statuses held for one device. Beyond that its oldest one is dropped, not those of other devices.
const HELD_OF_DEVICE_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct HeldStatuses {
    devices: BTreeMap<DeviceId, HeldOfDevice>,
    /// The number of statuses.
    len: usize,
}

/// The statuses of one device.
#[derive(Debug, Default)]
pub(crate) struct HeldOfDevice {
    /// Whether a gateway had the device, and another one may have it as well.
    pub(crate) is_in_doubt: bool,
    /// Whether the master's list was requested after the first status and after the last one that
    /// shows the device as connected.
    pub(crate) is_requested: bool,
    pub(crate) statuses: VecDeque<StreamedStatus>,
}

impl HeldStatuses {
    pub(crate) const fn is_full(&self) -> bool {
        self.len >= HELD_MAX
    }

    /// Whether there are statuses of this device.
    pub(crate) fn contains(&self, device_id: DeviceId) -> bool {
        self.devices.contains_key(&device_id)
    }

    /// Holds a status; drops it when [`HELD_MAX`] are held. Returns whether the master's list is
    /// needed: it was not requested since the device's first held status or last connect.
    pub(crate) fn add(&mut self, status: StreamedStatus, is_in_doubt: bool) -> bool {
        if self.is_full() {
            return false;
        }
        self.len += 1;
        let held = self.devices.entry(status.device_id).or_default();
        held.is_in_doubt |= is_in_doubt;
        held.statuses.push_back(status);
        if held.statuses.len() > HELD_OF_DEVICE_MAX {
            held.statuses.pop_front();
            self.len -= 1;
        }
        held.is_requested &= status.status.connected() != Some(true);
        !held.is_requested
    }

    /// The master's list was requested.
    pub(crate) fn requested(&mut self) {
        self.devices.values_mut().for_each(|held| held.is_requested = true);
    }

    /// Whether the next list of the master is to explain any.
    pub(crate) fn is_waiting(&self) -> bool {
        self.devices.values().any(|held| !held.is_requested)
    }

    /// Removes the statuses of each device for which this returns false.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(DeviceId, &HeldOfDevice) -> bool) {
        self.devices.retain(|device_id, held| keep(*device_id, held));
        self.len = self.devices.values().map(|held| held.statuses.len()).sum();
    }

    /// Removes the statuses of a device, unless they are in doubt.
    pub(crate) fn take_undoubted(&mut self, device_id: DeviceId) -> VecDeque<StreamedStatus> {
        if self.devices.get(&device_id).is_none_or(|held| held.is_in_doubt) {
            return VecDeque::new();
        }
        let statuses = self.devices.remove(&device_id).unwrap_or_default().statuses;
        self.len -= statuses.len();
        statuses
    }

    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}
