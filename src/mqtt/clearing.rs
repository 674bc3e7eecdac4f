//! Topics of what is no more, or cannot be said: an empty retained message clears them.
//!
//! May not decide what is gone: the core and the configuration do. Until the broker has taken it,
//! the store remembers a topic that is to be cleared: the process may end before.

use bytes::Bytes;

use super::outgoing::{Outgoing, View};
use super::publisher::{Publisher, Sent};
use crate::fleet::GatewayIndex;
use crate::ids::{DeviceId, GatewayName};
use crate::outbox::Outbox;
use crate::outbox::store::Key;
use crate::payload::{Directory, GatewayEntry, Subject};

impl Publisher {
    /// This device is no more.
    pub fn device_forgotten(
        &mut self,
        gateway: GatewayIndex,
        device_id: DeviceId,
        entry: Option<&GatewayEntry>,
        outbox: &mut Outbox,
    ) {
        self.changed.remove((gateway, device_id));
        self.unfit.remove(&(gateway, device_id));
        if let Some(entry) = entry {
            self.clear(self.topics.device_state(&entry.name, device_id), outbox);
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
        outbox: &mut Outbox,
    ) {
        for device_id in device_ids {
            self.clear(self.topics.device_state(gateway, device_id), outbox);
        }
        self.clear(self.topics.gateway_state(gateway), outbox);
        self.clear(self.topics.gateway_info(gateway), outbox);
    }

    /// These topics were to be cleared when an earlier process ended.
    pub fn clear_still(&mut self, topics: Vec<String>) {
        self.cleared.extend(topics);
    }

    /// What is to be cleared, and not known to be.
    pub fn clearing(&self) -> impl Iterator<Item = &String> {
        let sent = self.in_flight.values().chain(self.again.values().flatten());
        let sent = sent.filter_map(|sent| match sent {
            Sent::Cleared(topic) => Some(topic),
            _ => None,
        });
        self.cleared.iter().chain(sent)
    }

    fn clear(&mut self, topic: String, outbox: &mut Outbox) {
        outbox.note(Key::Clearing(topic.clone()), Some(&[]));
        self.cleared.push_back(topic);
    }

    pub(super) fn next_cleared(&mut self, outbox: &mut Outbox, view: &View) -> Option<Outgoing> {
        loop {
            let topic = self.cleared.pop_front()?;
            if !self.is_in_use(&topic, view) {
                return Some(self.send(Sent::Cleared(topic.clone()), topic, Bytes::new(), false));
            }
            outbox.note(Key::Clearing(topic), None);
        }
    }

    /// Whether what the topic is of has come back meanwhile: then it tells what is true.
    fn is_in_use(&self, topic: &str, view: &View) -> bool {
        let Some(owner) = self.topics.owner(topic) else { return false };
        let mut entries = view.directory.gateways.iter();
        let Some(at) = entries.position(|entry| entry.name == owner.gateway) else { return false };
        let gateway = GatewayIndex(at);
        let there = |device_id| {
            let device = view.fleet.device(gateway, device_id);
            device.is_some() && !self.unfit.contains(&(gateway, device_id))
        };
        owner.device_id.is_none_or(there)
    }
}
