//! What an earlier run left at the broker and this one does not remember: found, and cleared.
//!
//! May not clear what another bridge published. Needed only where the store could not tell (it was
//! lost, or damaged, or never kept): then the broker is the only one who remembers.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Bridge;
use crate::fleet::GatewayIndex;
use crate::ids::{DeviceId, GatewayName};
use crate::mqtt::{Message, Owner};

/// Devices and gateways looked after at most; more are no leftovers of one bridge.
const FOUND_MAX: usize = 1_000_000;

/// What of a retained payload says whose it is.
#[derive(Debug, Deserialize)]
struct Whose {
    bridge: String,
}

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    wanted: bool,
    found: BTreeSet<Owner>,
}

impl Leftovers {
    /// Whether the broker's memory has not been read to its end yet.
    pub(super) const fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether something may still be found and cleared.
    pub(super) fn are_open(&self) -> bool {
        self.wanted || !self.found.is_empty()
    }

    /// The store does not remember what was published: the broker is to be asked.
    pub(super) const fn look(&mut self) {
        self.wanted = true;
    }
}

impl Bridge {
    /// Takes note of a retained message, if it is of this bridge.
    pub(super) fn leftover(&mut self, message: &Message) {
        if !self.leftovers.wanted || !message.retain || self.leftovers.found.len() >= FOUND_MAX {
            return;
        }
        let Some(owner) = self.publisher.topics().owner(&message.topic) else { return };
        let whose = serde_json::from_slice::<Whose>(&message.payload);
        if whose.is_ok_and(|whose| whose.bridge == self.directory.bridge) {
            self.leftovers.found.insert(owner);
        }
    }

    /// All that the broker keeps has come.
    pub(super) fn leftovers_are_all(&mut self) {
        if !std::mem::take(&mut self.leftovers.wanted) {
            return;
        }
        let configured: BTreeSet<&GatewayName> =
            self.directory.gateways.iter().map(|entry| &entry.name).collect();
        let found = std::mem::take(&mut self.leftovers.found);
        let (stays, gone): (BTreeSet<Owner>, BTreeSet<Owner>) =
            found.into_iter().partition(|owner| configured.contains(&owner.gateway));
        self.leftovers.found = stays;
        for name in gone.iter().map(|owner| &owner.gateway).collect::<BTreeSet<_>>() {
            let devices = gone.iter().filter(|owner| owner.gateway == *name);
            let devices: Vec<DeviceId> = devices.filter_map(|owner| owner.device_id).collect();
            let count = devices.len();
            tracing::info!(gateway = %name, devices = count, "left by an earlier run: cleared");
            self.publisher.gateway_gone(name, devices, &mut self.outbox);
        }
        for gateway in self.fleet.gateways() {
            self.clear_leftovers(gateway);
        }
    }

    /// The devices that a gateway has are known: what else was left under its name is cleared.
    pub(super) fn clear_leftovers(&mut self, gateway: GatewayIndex) {
        if self.leftovers.wanted || !self.fleet.gateway_is_live(gateway) {
            return;
        }
        let Some(entry) = self.directory.gateway(gateway) else { return };
        let found = std::mem::take(&mut self.leftovers.found);
        let (of_gateway, rest): (BTreeSet<Owner>, BTreeSet<Owner>) =
            found.into_iter().partition(|owner| owner.gateway == entry.name);
        self.leftovers.found = rest;
        for device_id in of_gateway.into_iter().filter_map(|owner| owner.device_id) {
            if self.fleet.device(gateway, device_id).is_none() {
                let name = &entry.name;
                tracing::info!(gateway = %name, %device_id, "left by an earlier run: cleared");
                let outbox = &mut self.outbox;
                self.publisher.device_forgotten(gateway, device_id, Some(entry), outbox);
            }
        }
    }
}
