//! Which devices are kept by a command, and which are forgotten: those that are not expected.
//!
//! May not lose a device's place in the chain: one that comes back goes on where it was.

use std::collections::BTreeSet;

use super::Output;
use super::device::Device;
use super::gateway::Gateway;
use crate::ids::{DeviceId, Moment};

/// How often the absence of a device is stored, in milliseconds: a restart loses no more of it.
const STORE_ABSENCE_EVERY_MS: i64 = 3_600_000;
/// It is stored at least this often before the device is forgotten.
const STORES_MIN: i64 = 24;

impl Gateway {
    pub(super) fn keep(&mut self, now: Moment, kept: BTreeSet<DeviceId>, out: &mut Vec<Output>) {
        let before = std::mem::replace(&mut self.kept, kept);
        let changed: Vec<DeviceId> = before.symmetric_difference(&self.kept).copied().collect();
        let (shown, live) = (self.shown(now), self.live);
        for device_id in changed {
            let Some(device) = self.devices.get_mut(&device_id) else { continue };
            device.kept = self.kept.contains(&device_id);
            if !device.expected() {
                device.seconds.stop(self.frozen_at.unwrap_or(now), device.connected());
            } else if live {
                device.start_observing(now);
            }
            device.updated_at = shown;
            self.state_changed(device_id, out);
        }
    }

    /// Adds the time since the last list of this link to the absence of devices that are not
    /// expected. Time without a link is not observed, and a clock that is set does not matter.
    pub(super) fn count_absence(&mut self, until: Moment, out: &mut Vec<Output>) {
        let from = self.absence_counted_to.replace(until);
        let (Some(from), Some(after_ms)) = (from, self.settings.forget_after_ms) else { return };
        let passed_ms = until.since(from);
        let store_every_ms = (after_ms / STORES_MIN).clamp(1, STORE_ABSENCE_EVERY_MS);
        for (&device_id, device) in self.devices.iter_mut().filter(|(_, it)| !it.expected()) {
            let stores_before = device.absent_ms / store_every_ms;
            device.absent_ms += passed_ms;
            if device.absent_ms / store_every_ms > stores_before {
                out.push(Output::Store { gateway: self.index, device_id });
            }
        }
    }

    /// Forgets devices that have been absent for long.
    pub(super) fn forget_absent(&mut self, out: &mut Vec<Output>) {
        let Some(after_ms) = self.settings.forget_after_ms else { return };
        let long_gone = |device: &Device| !device.expected() && device.absent_ms >= after_ms;
        let ids: Vec<DeviceId> = self
            .devices
            .iter()
            .filter(|(_, device)| long_gone(device))
            .map(|(&device_id, _)| device_id)
            .collect();
        self.forget(&ids, out);
    }

    /// Forgets devices that are not expected; returns those that are, and so stay.
    pub(super) fn forget(&mut self, ids: &[DeviceId], out: &mut Vec<Output>) -> Vec<DeviceId> {
        let mut kept = Vec::new();
        for &device_id in ids {
            match self.devices.get(&device_id) {
                Some(device) if device.expected() => kept.push(device_id),
                Some(device) => {
                    if device.seq > 0 {
                        self.past.insert(device_id, device.remember().forget());
                    }
                    self.devices.remove(&device_id);
                    out.push(Output::Forgotten { gateway: self.index, device_id });
                }
                None => {}
            }
        }
        kept
    }
}
