//! Topics of what is no more: an empty retained message clears them.
//!
//! May not decide what is gone: the core and the configuration do. Until the broker has taken it,
//! the store remembers a topic that is to be cleared: the process may end before.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::outgoing::{Draft, View};
use super::publisher::Publisher;
use super::sent::Sent;
use crate::fleet::GatewayIndex;
use crate::ids::{DeviceId, GatewayName};
use crate::payload::GatewayEntry;
use crate::store::{Key, Outbox};

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
        self.refusals.remove(&Sent::Device(gateway, device_id));
        if let Some(entry) = entry {
            self.clear(self.topics.device_state(&entry.name, device_id), outbox);
            self.undiscover(gateway, device_id, entry);
        }
        self.info_changed(gateway);
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
        self.gone.insert(gateway.clone());
    }

    /// Lets the topics of these devices, which `forget` named, wait no longer.
    pub fn forgotten_on_request(&mut self, entry: &GatewayEntry, device_ids: &[DeviceId]) {
        let states: BTreeSet<String> =
            device_ids.iter().map(|&id| self.topics.device_state(&entry.name, id)).collect();
        self.cleared.hasten(|topic| states.contains(topic));
        self.discovery.hasten(entry, device_ids);
    }

    /// Clears these topics of a gateway that is not configured, which `forget` named.
    pub fn clear_on_request(&mut self, topics: BTreeSet<String>, outbox: &mut Outbox) {
        for topic in topics {
            outbox.changes().put(Key::Clearing(topic.clone()), &[]);
            self.cleared.push_at_once(topic);
        }
    }

    /// Whether nothing is left to be cleared.
    #[must_use]
    pub fn is_cleared(&self) -> bool {
        self.clearing().next().is_none() && self.discovery.is_cleared()
    }

    /// These topics were to be cleared when an earlier process ended.
    pub fn clear_still(&mut self, topic: String) {
        self.cleared.extend(vec![topic]);
    }

    /// What is to be cleared, and not known to be.
    pub fn clearing(&self) -> impl Iterator<Item = &String> {
        let waiting = self.refusals.waiting().chain(self.isolation.held());
        let sent = self.in_flight.values().chain(waiting);
        let sent = sent.filter_map(|sent| match sent {
            Sent::Cleared(topic) => Some(topic),
            _ => None,
        });
        self.cleared.iter().chain(sent)
    }

    fn clear(&mut self, topic: String, outbox: &mut Outbox) {
        outbox.changes().put(Key::Clearing(topic.clone()), &[]);
        self.cleared.push_back(topic);
    }

    pub(super) fn next_cleared(&mut self, outbox: &mut Outbox, view: &View) -> Option<Draft> {
        loop {
            let topic = self.cleared.pop_front()?;
            if !self.is_in_use(&topic, view) {
                let (sent, payload) = (Sent::Cleared(topic.clone()), Bytes::new());
                return Some(Draft { sent, topic, payload, json: false });
            }
            outbox.changes().remove(Key::Clearing(topic));
        }
    }

    /// Whether what the topic is of has come back meanwhile: then it tells what is true.
    fn is_in_use(&self, topic: &str, view: &View) -> bool {
        let Some(owner) = self.topics.owner(topic) else { return false };
        let mut entries = view.directory.gateways.iter();
        let Some(at) = entries.position(|entry| entry.name == owner.gateway) else { return false };
        let gateway = GatewayIndex(at);
        let there = |device_id| view.fleet.device(gateway, device_id).is_some();
        owner.device_id.is_none_or(there)
    }
}
