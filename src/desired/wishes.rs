//! A set of wishes: what one gateway is to have, by the configuration or by commands.
//!
//! May not know what the gateway has.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Wish;
use crate::commands::Made;
use crate::gsdk::{Slaves, Target};
use crate::ids::DeviceId;

/// What one gateway is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wishes {
    /// Devices that it dials, for ever.
    pub registered: BTreeMap<DeviceId, Target>,
    /// Devices that it lets in.
    pub accepted: BTreeSet<DeviceId>,
    /// It lets all in.
    pub allow_all: bool,
    /// The slaves behind its devices.
    pub slaves: BTreeMap<DeviceId, Slaves>,
}

impl Wishes {
    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = Wish> {
        let registered = self.registered.keys().copied().map(Wish::Registered);
        let accepted = self.accepted.iter().copied().map(Wish::Accepted);
        let slaves = self.slaves.keys().copied().map(Wish::Slaves);
        registered.chain(accepted).chain(self.allow_all.then_some(Wish::AllowAll)).chain(slaves)
    }

    pub(super) fn has(&self, wish: Wish) -> bool {
        match wish {
            Wish::Registered(id) => self.registered.contains_key(&id),
            Wish::Accepted(id) => self.accepted.contains(&id),
            Wish::AllowAll => self.allow_all,
            Wish::Slaves(id) => self.slaves.contains_key(&id),
        }
    }

    pub(super) fn drop(&mut self, wish: Wish) {
        match wish {
            Wish::Registered(id) => _ = self.registered.remove(&id),
            Wish::Accepted(id) => _ = self.accepted.remove(&id),
            Wish::AllowAll => self.allow_all = false,
            Wish::Slaves(id) => _ = self.slaves.remove(&id),
        }
    }

    /// A command made this.
    pub(super) fn take(&mut self, made: Made) {
        match made {
            Made::Registered(devices) => self.registered.extend(devices),
            Made::Unregistered(ids) => self.registered.retain(|id, _| !ids.contains(id)),
            Made::LetIn(ids) => self.accepted.extend(ids),
            Made::ShutOut(ids) => self.accepted.retain(|id| !ids.contains(id)),
            Made::AllowAll(enabled) => self.allow_all = enabled,
            Made::Filter(filter) => {
                self.accepted = filter.device_ids;
                self.allow_all = filter.allow_all;
            }
            Made::Slaves(all) => {
                for slaves in all {
                    if slaves.rs485.is_empty() && slaves.wiegand.is_empty() {
                        self.slaves.remove(&slaves.device_id);
                    } else {
                        self.slaves.insert(slaves.device_id, slaves);
                    }
                }
            }
        }
    }
}

/// Whether this takes away from the gateway what a wish is for.
pub(super) fn takes(made: &Made, wish: Wish) -> bool {
    match (made, wish) {
        (Made::Unregistered(ids), Wish::Registered(id))
        | (Made::ShutOut(ids), Wish::Accepted(id)) => ids.contains(&id),
        (Made::Filter(filter), Wish::Accepted(id)) => !filter.device_ids.contains(&id),
        (Made::Filter(filter), Wish::AllowAll) => !filter.allow_all,
        (Made::AllowAll(enabled), Wish::AllowAll) => !enabled,
        // The slaves of a device are replaced, and what is wished for with them.
        _ => false,
    }
}
