//! The devices of one gateway: known ones, those that commands keep, and forgotten ones.
//!
//! A forgotten device keeps its last `seq`, so that the chain continues if it is listed again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use super::device::Device;
use super::presence::Presence;
use super::remembered::Remembered;
use crate::ids::{DeviceId, Moment};

/// How often the absence of a device is stored, in milliseconds: a restart loses no more of it.
const STORE_ABSENCE_EVERY_MS: i64 = 3_600_000;
/// It is stored at least this often before the device is forgotten.
const STORES_MIN: i64 = 24;

#[derive(Debug)]
pub(crate) struct DeviceTable {
    /// Boxed: nodes of a map are about half full, which wastes less memory with pointers.
    devices: BTreeMap<DeviceId, Box<Device>>,
    /// Forgotten devices' places in the event chain.
    tombstones: BTreeMap<DeviceId, Remembered>,
    /// Provisioned again because of a command, whether in `devices` or not.
    kept: BTreeSet<DeviceId>,
    /// Up to when absence has been counted on this link; `None` before its first list.
    absence_counted_to: Option<Moment>,
    /// After how long an absent device is forgotten.
    forget_after_ms: Option<i64>,
}

impl DeviceTable {
    pub(crate) fn new(
        wall_time: Moment,
        declared: &[DeviceId],
        forget_after_ms: Option<i64>,
    ) -> Self {
        let device = |id| Box::new(Device::new(id, wall_time, Presence::declared()));
        Self {
            devices: declared.iter().map(|&id| (id, device(id))).collect(),
            tombstones: BTreeMap::new(),
            kept: BTreeSet::new(),
            absence_counted_to: None,
            forget_after_ms,
        }
    }

    pub(crate) fn get(&self, device_id: DeviceId) -> Option<&Device> {
        self.devices.get(&device_id).map(Box::as_ref)
    }

    pub(crate) fn get_mut(&mut self, device_id: DeviceId) -> Option<&mut Device> {
        self.devices.get_mut(&device_id).map(Box::as_mut)
    }

    /// In the order of their IDs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().map(Box::as_ref)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Device> {
        self.devices.values_mut().map(Box::as_mut)
    }

    pub(crate) fn range_mut(
        &mut self,
        ids: impl RangeBounds<DeviceId>,
    ) -> impl Iterator<Item = &mut Device> {
        self.devices.range_mut(ids).map(|(_, device)| device.as_mut())
    }

    /// How many are connected, and how many are expected and not connected, or unknown.
    pub(crate) fn count(&self, is_live: bool) -> (usize, usize, usize) {
        let (mut connected, mut disconnected, mut unknown) = (0, 0, 0);
        for device in self.iter() {
            match device.connected().filter(|_| is_live) {
                Some(true) => connected += 1,
                Some(false) => disconnected += usize::from(device.is_expected()),
                None => unknown += usize::from(device.is_expected()),
            }
        }
        (connected, disconnected, unknown)
    }

    /// The device with this ID, and whether it was added now.
    pub(crate) fn get_or_add(
        &mut self,
        device_id: DeviceId,
        wall_time: Moment,
    ) -> (&mut Device, bool) {
        let mut is_new = false;
        let device = self.devices.entry(device_id).or_insert_with(|| {
            is_new = true;
            let presence = Presence::undeclared(self.kept.contains(&device_id));
            let mut device = Box::new(Device::new(device_id, wall_time, presence));
            if let Some(tombstone) = self.tombstones.remove(&device_id) {
                device.restore(tombstone);
            }
            device
        });
        (device, is_new)
    }

    pub(crate) fn restore(
        &mut self,
        wall_time: Moment,
        device_id: DeviceId,
        remembered: Remembered,
    ) {
        if remembered.forgotten && !self.devices.contains_key(&device_id) {
            self.tombstones.insert(device_id, remembered);
            return;
        }
        self.get_or_add(device_id, wall_time).0.restore(remembered);
    }

    /// What is persisted of a device; `None` if it never had topics.
    pub(crate) fn remembered(&self, device_id: DeviceId) -> Option<Remembered> {
        let device = self.get(device_id).map(Device::remember);
        device.or_else(|| self.tombstones.get(&device_id).cloned())
    }

    pub(crate) fn all_remembered(&self) -> impl Iterator<Item = (DeviceId, Remembered)> {
        let devices = self.iter().map(|device| (device.id(), device.remember()));
        devices.chain(self.tombstones.iter().map(|(id, tombstone)| (*id, tombstone.clone())))
    }

    /// Starts a new event chain, in which forgotten devices have no place.
    pub(crate) fn reset_chain(&mut self) {
        self.tombstones.clear();
        self.iter_mut().for_each(Device::reset_seq);
    }

    /// Sets the devices that commands keep; returns those for which that changed.
    pub(crate) fn set_kept(&mut self, kept: BTreeSet<DeviceId>) -> Vec<(DeviceId, bool)> {
        let before = std::mem::replace(&mut self.kept, kept);
        let changed = before.symmetric_difference(&self.kept);
        changed.map(|id| (*id, self.kept.contains(id))).collect()
    }

    /// Adds the time since the last list of this link to the absence of devices that are not
    /// expected. Returns those for which it has to be stored.
    pub(crate) fn count_absence(&mut self, until: Moment) -> Vec<DeviceId> {
        let Some(forget_after_ms) = self.forget_after_ms else { return Vec::new() };
        let Some(from) = self.absence_counted_to.replace(until) else { return Vec::new() };
        let passed_ms = until.since(from);
        let store_every_ms = (forget_after_ms / STORES_MIN).clamp(1, STORE_ABSENCE_EVERY_MS);
        let to_store = |device: &mut Device| {
            let after = device.add_absence(passed_ms)?;
            let before = after - passed_ms;
            (after / store_every_ms > before / store_every_ms).then_some(())
        };
        self.iter_mut().filter_map(|device| to_store(device).map(|()| device.id())).collect()
    }

    /// The link is gone: time without one is no observed absence.
    pub(crate) const fn pause_absence(&mut self) {
        self.absence_counted_to = None;
    }

    /// The devices that are not expected and have been absent for so long that they are forgotten.
    pub(crate) fn absent_too_long(&self) -> Vec<DeviceId> {
        let Some(after_ms) = self.forget_after_ms else { return Vec::new() };
        let is_gone = |device: &&Device| !device.is_expected() && device.absent_ms() >= after_ms;
        self.iter().filter(is_gone).map(Device::id).collect()
    }

    /// Forgets a device that is not expected; returns whether it did, `None` if there is none.
    pub(crate) fn forget(&mut self, device_id: DeviceId) -> Option<bool> {
        let is_forgotten = !self.get(device_id)?.is_expected();
        if is_forgotten {
            self.remove(device_id);
        }
        Some(is_forgotten)
    }

    /// Forgets all devices, also those that are expected; returns them.
    pub(crate) fn forget_all(&mut self) -> BTreeSet<DeviceId> {
        let ids: BTreeSet<DeviceId> = self.devices.keys().copied().collect();
        ids.iter().for_each(|&id| self.remove(id));
        self.kept.clear();
        ids
    }

    /// The invariant that does not hold, if any; `device_id`: the only device to check.
    pub(crate) fn broken_invariant(
        &self,
        device_id: Option<DeviceId>,
        is_live: bool,
    ) -> Option<&'static str> {
        let broken =
            |device: &Device| device.broken_invariant(is_live, self.kept.contains(&device.id()));
        match device_id {
            Some(device_id) => self.get(device_id).and_then(broken),
            None => self.iter().find_map(broken),
        }
    }

    fn remove(&mut self, device_id: DeviceId) {
        let remembered = self.devices.remove(&device_id).map(|device| device.remember());
        if let Some(remembered) = remembered.filter(|it| it.seq > 0) {
            self.tombstones.insert(device_id, remembered.forget());
        }
    }
}
