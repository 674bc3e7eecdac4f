//! Topics of what is no more, or cannot be said: an empty retained message clears them.
//!
//! May not decide what is gone: the core and the configuration do.

use super::publisher::{Publisher, Sent};
use crate::fleet::GatewayIndex;
use crate::ids::{DeviceId, GatewayName};
use crate::outbox::Outbox;
use crate::payload::{Directory, GatewayEntry, Subject};

impl Publisher {
    /// This device is no more.
    pub fn device_forgotten(
        &mut self,
        gateway: GatewayIndex,
        device_id: DeviceId,
        entry: Option<&GatewayEntry>,
    ) {
        self.changed.remove((gateway, device_id));
        self.unfit.remove(&(gateway, device_id));
        if let Some(entry) = entry {
            self.cleared.push_back(self.topics.device_state(&entry.name, device_id));
            self.undiscover(gateway, device_id, entry);
        }
        self.info_changed(gateway);
    }

    /// The broker takes no message so large as this one. A state's topic is cleared: what stands
    /// there is not true any more. An event is lost; then its subject is returned.
    pub fn unfit(
        &mut self,
        token: u64,
        directory: &Directory,
        outbox: &mut Outbox,
    ) -> Option<Subject> {
        match self.in_flight.get(&token)? {
            Sent::Event(subject) => {
                let subject = subject.clone();
                self.in_flight.remove(&token);
                outbox.give_up(&subject).then_some(subject)
            }
            &Sent::Device(gateway, device_id) => {
                self.unfit.insert((gateway, device_id));
                let entry = directory.gateway(gateway)?;
                self.cleared.push_back(self.topics.device_state(&entry.name, device_id));
                None
            }
            _ => None,
        }
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
