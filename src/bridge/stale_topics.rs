//! Retained topics of devices that no longer exist, where the store does not remember them.
//!
//! Only devices of configured gateways are looked for. What the broker keeps of other gateways may
//! be another bridge's: it is cleared as far as this store has published it, or by `forget`.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Bridge;
use super::persistence::Persistence;
use crate::fleet::GatewayIndex;
use crate::ids::GatewayName;
use crate::mqtt::{Message, Owner};
use crate::store::Key;

/// Devices remembered at most; more are not those of one bridge.
const FOUND_MAX: usize = 1_000_000;

/// What of a retained payload says which bridge published it.
#[derive(Debug, Deserialize)]
struct Publisher {
    bridge: String,
}

/// What was found, and which gateways are gone.
#[derive(Debug, Default)]
pub(super) struct StaleTopics {
    wanted: bool,
    found: BTreeSet<Owner>,
    /// Gateways that the store has published and the configuration does not name any more. The
    /// store remembers them until all of theirs is cleared.
    gone: BTreeSet<GatewayName>,
    /// Whether the store has it that something may still be found.
    stored: bool,
}

impl StaleTopics {
    /// Whether the scan is still to be made.
    pub(super) const fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether something may still be found and cleared.
    pub(super) fn are_open(&self) -> bool {
        self.wanted || !self.found.is_empty()
    }

    /// Stores whether something may still be found.
    pub(super) fn store(&mut self, persistence: &mut Persistence) {
        let open = self.are_open();
        if std::mem::replace(&mut self.stored, open) != open {
            persistence.set(Key::StaleScan, open.then_some(&[]));
        }
    }

    /// What has to be stored.
    pub(super) fn value(&self) -> Option<(Key, Vec<u8>)> {
        self.are_open().then(|| (Key::StaleScan, Vec::new()))
    }

    /// The store does not remember what was published: the next scan looks for it.
    pub(super) const fn look(&mut self) {
        self.wanted = true;
    }

    /// This gateway is gone.
    pub(super) fn gateway_gone(&mut self, gateway: GatewayName) {
        self.gone.insert(gateway);
    }

    /// The gateways that are gone and not known to be cleared.
    pub(super) const fn gone(&self) -> &BTreeSet<GatewayName> {
        &self.gone
    }
}

impl Bridge {
    /// Takes note of a retained message, if it is of a device of this bridge.
    pub(super) fn stale_topic(&mut self, message: &Message) {
        let stale = &mut self.stale_topics;
        if !stale.wanted || !message.retain || stale.found.len() >= FOUND_MAX {
            return;
        }
        let Some(owner) = self.publisher.topics().owner(&message.topic) else { return };
        let entries = &self.directory.gateways;
        let configured = entries.iter().any(|entry| entry.name == owner.gateway);
        if owner.device_id.is_none() || !configured {
            return;
        }
        let publisher = serde_json::from_slice::<Publisher>(&message.payload);
        if publisher.is_ok_and(|publisher| publisher.bridge == self.directory.bridge) {
            stale.found.insert(owner);
        }
    }

    /// All retained messages have been read.
    pub(super) fn stale_topics_read(&mut self) {
        if std::mem::take(&mut self.stale_topics.wanted) {
            for gateway in self.fleet.gateways() {
                self.clear_stale_devices(gateway);
            }
        }
    }

    /// The devices of a gateway are known: others found under its name are cleared.
    pub(super) fn clear_stale_devices(&mut self, gateway: GatewayIndex) {
        if self.stale_topics.wanted || !self.fleet.gateway_is_live(gateway) {
            return;
        }
        let Some(entry) = self.directory.gateway(gateway) else { return };
        let found = std::mem::take(&mut self.stale_topics.found);
        let (of_gateway, rest): (BTreeSet<Owner>, BTreeSet<Owner>) =
            found.into_iter().partition(|owner| owner.gateway == entry.name);
        self.stale_topics.found = rest;
        for device_id in of_gateway.into_iter().filter_map(|owner| owner.device_id) {
            if self.fleet.device(gateway, device_id).is_none() {
                tracing::info!(gateway = %entry.name, %device_id, "clearing a stale device");
                let outbox = self.persistence.outbox_mut();
                self.publisher.device_forgotten(gateway, device_id, Some(entry), outbox);
            }
        }
    }

    /// Once all is cleared, the store need not remember the gateways that are gone.
    pub(super) fn forget_gone_gateways(&mut self) {
        if !self.stale_topics.gone.is_empty() && self.publisher.is_cleared() {
            for gateway in std::mem::take(&mut self.stale_topics.gone) {
                self.persistence.set(Key::Gateway(gateway), None);
            }
        }
    }
}
