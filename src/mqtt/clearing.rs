//! Topics of what is no more: an empty retained message clears them.
//!
//! May not decide what is gone: the core and the configuration do.

use super::publisher::Publisher;
use crate::fleet::GatewayIndex;
use crate::ids::{DeviceId, GatewayName};
use crate::payload::GatewayEntry;

impl Publisher {
    /// This device is no more.
    pub fn device_forgotten(
        &mut self,
        gateway: GatewayIndex,
        device_id: DeviceId,
        entry: Option<&GatewayEntry>,
    ) {
        self.changed.remove((gateway, device_id));
        if let Some(entry) = entry {
            self.cleared.push_back(self.topics.device_state(&entry.name, device_id));
            self.undiscover(gateway, device_id, entry);
        }
        self.info_changed(gateway);
    }

    /// This gateway, with these devices, is not configured any more.
    pub fn gateway_gone(
        &mut self,
        gateway: &GatewayName,
        device_ids: impl IntoIterator<Item = DeviceId>,
    ) {
        for device_id in device_ids {
            self.cleared.push_back(self.topics.device_state(gateway, device_id));
        }
        self.cleared.push_back(self.topics.gateway_state(gateway));
        self.cleared.push_back(self.topics.gateway_info(gateway));
    }
}
