//! Retained topics of devices that no longer exist, where the store does not remember them.
//!
//! Only devices of configured gateways are looked for. What the broker keeps of other gateways may
//! be another bridge's: it is cleared as far as this store has published it, or by `forget`.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::fleet::{Fleet, GatewayIndex};
use crate::ids::{DeviceId, GatewayName};
use crate::mqtt::Message;
use crate::payload::Directory;
use crate::topics::{Owner, Topics};

/// Devices remembered at most; more are not those of one bridge.
const FOUND_MAX: usize = 1_000_000;

/// The part of a retained payload that names the bridge that published it.
#[derive(Debug, Deserialize)]
struct Publisher {
    bridge: String,
}

/// What was found, and the gateways that are gone.
#[derive(Debug, Default)]
pub(crate) struct StaleTopics {
    is_wanted: bool,
    found: BTreeSet<Owner>,
    /// Gateways that the store has published and the configuration does not name any more. The
    /// store remembers them until all their topics are cleared.
    gone: BTreeSet<GatewayName>,
    /// Whether the store says that something may still be found.
    is_stored: bool,
}

impl StaleTopics {
    /// The store does not remember what was published: the next scan looks for it.
    pub(crate) const fn look(&mut self) {
        self.is_wanted = true;
    }

    /// Whether the scan is still to be made.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Whether something may still be found and cleared.
    pub(crate) fn is_open(&self) -> bool {
        self.is_wanted || !self.found.is_empty()
    }

    /// Whether something may still be found, if the store does not say so yet.
    pub(crate) fn change_to_store(&mut self) -> Option<bool> {
        let is_open = self.is_open();
        (std::mem::replace(&mut self.is_stored, is_open) != is_open).then_some(is_open)
    }

    /// This gateway is not configured any more.
    pub(crate) fn gateway_gone(&mut self, gateway: GatewayName) {
        self.gone.insert(gateway);
    }

    /// The gateways that are gone and not known to be cleared.
    pub(crate) const fn gone(&self) -> &BTreeSet<GatewayName> {
        &self.gone
    }

    /// Everything is cleared: the gateways that are gone need not be remembered.
    pub(crate) fn take_gone(&mut self) -> BTreeSet<GatewayName> {
        std::mem::take(&mut self.gone)
    }

    /// Takes note of a retained message, if it is of a device of this bridge.
    pub(crate) fn received(&mut self, message: &Message, topics: &Topics, directory: &Directory) {
        if !self.is_wanted || !message.retain || self.found.len() >= FOUND_MAX {
            return;
        }
        let Some(owner) = topics.owner(&message.topic) else { return };
        let is_configured = directory.gateways.iter().any(|entry| entry.name == owner.gateway);
        if owner.device_id.is_none() || !is_configured {
            return;
        }
        let publisher = serde_json::from_slice::<Publisher>(&message.payload);
        if publisher.is_ok_and(|publisher| publisher.bridge == directory.bridge) {
            self.found.insert(owner);
        }
    }

    /// All retained messages have been read.
    pub(crate) const fn read(&mut self) {
        self.is_wanted = false;
    }

    /// Devices found under a gateway's name that it does not have, once its devices are known.
    pub(crate) fn take_stale(
        &mut self,
        gateway: GatewayIndex,
        fleet: &Fleet,
        directory: &Directory,
    ) -> Vec<DeviceId> {
        let Some(entry) = directory.gateway(gateway) else { return Vec::new() };
        if self.is_wanted || !fleet.gateway_is_live(gateway) {
            return Vec::new();
        }
        let found = std::mem::take(&mut self.found).into_iter();
        let (of_gateway, others): (BTreeSet<Owner>, BTreeSet<Owner>) =
            found.partition(|owner| owner.gateway == entry.name);
        self.found = others;
        let ids = of_gateway.into_iter().filter_map(|owner| owner.device_id);
        ids.filter(|&id| fleet.device(gateway, id).is_none()).collect()
    }
}
