//! Which devices are kept by a command, and which are forgotten: those that are not expected.
//!
//! May not lose a device's place in the chain: one that comes back goes on where it was.

use std::collections::BTreeSet;

use super::Output;
use super::device::Device;
use super::gateway::Gateway;
use crate::ids::{DeviceId, Moment};

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

    /// Forgets devices that left the list long ago.
    pub(super) fn forget_absent(&mut self, now: Moment, out: &mut Vec<Output>) {
        let Some(after_ms) = self.settings.forget_after_ms else { return };
        let shown = self.shown(now);
        let long_gone =
            |device: &Device| device.left_at.is_some_and(|at| at.plus(after_ms) <= shown);
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
