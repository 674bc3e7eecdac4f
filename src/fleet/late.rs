//! What an earlier process remembered of a device, and could be read only while this one was at
//! work.
//!
//! May not contradict what has been heard meanwhile, nor make an event: it tells since when
//! something is, and what has left the list.

use super::Output;
use super::device::{Device, Remembered};
use super::gateway::Gateway;
use crate::ids::{DeviceId, Moment};

impl Gateway {
    pub(super) fn recall(
        &mut self,
        now: Moment,
        device_id: DeviceId,
        remembered: Remembered,
        out: &mut Vec<Output>,
    ) {
        // What a list that has come does not hold has left: nobody knows how it is.
        let may_be_listed = !self.live;
        let shown = self.shown(now);
        let changed = match self.devices.get_mut(&device_id) {
            Some(device) if device.status.is_some() => device.recall(&remembered),
            Some(device) if may_be_listed => {
                device.restore(Remembered { seq: device.seq, ..remembered });
                true
            }
            None if may_be_listed => {
                let kept = self.kept.contains(&device_id);
                let mut device = Device::undeclared(now, kept);
                device.restore(Remembered { seq: 0, ..remembered });
                self.devices.insert(device_id, device);
                true
            }
            Some(_) | None => false,
        };
        if let Some(device) = self.devices.get_mut(&device_id).filter(|_| changed) {
            device.updated_at = shown;
            self.state_changed(device_id, out);
        }
    }
}

impl Device {
    /// As at a start: what the first list agreed with has been so all along. Whether that is other
    /// than what was known.
    fn recall(&mut self, remembered: &Remembered) -> bool {
        match (&mut self.known, remembered.known) {
            (Some(known), Some(before))
                if self.seq == 0 && !known.exact && known.connected == before.connected =>
            {
                (known.since, known.exact) = (before.since, before.exact);
                true
            }
            _ => false,
        }
    }
}
