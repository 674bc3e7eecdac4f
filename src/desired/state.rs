//! A desired state: the items that a gateway should have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fleet::{AcceptFilter, Effect, Slaves, Target};
use crate::ids::DeviceId;

/// One item that a gateway should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DesiredItem {
    /// The async registration of this device.
    Registered(DeviceId),
    /// This device in the accept filter.
    Accepted(DeviceId),
    /// An accept filter that accepts all devices.
    AllowAll,
    /// The slaves of this device.
    Slaves(DeviceId),
}

/// Items of one kind are added by the same call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKind {
    AcceptFilter,
    Registration,
    Slaves,
}

impl ItemKind {
    /// In the order in which they are added.
    pub(crate) const ALL: [Self; 3] = [Self::AcceptFilter, Self::Registration, Self::Slaves];

    /// Whether one call adds all items of this kind.
    pub(crate) const fn is_one_call(self) -> bool {
        matches!(self, Self::AcceptFilter)
    }

    /// `what` in the events `restored` and `withdrawn`.
    pub const fn what(self) -> &'static str {
        match self {
            Self::AcceptFilter => "accept_filter",
            Self::Registration => "async_connections",
            Self::Slaves => "slaves",
        }
    }
}

impl DesiredItem {
    pub const fn kind(self) -> ItemKind {
        match self {
            Self::Registered(_) => ItemKind::Registration,
            Self::Accepted(_) | Self::AllowAll => ItemKind::AcceptFilter,
            Self::Slaves(_) => ItemKind::Slaves,
        }
    }

    pub const fn device_id(self) -> Option<DeviceId> {
        match self {
            Self::Registered(id) | Self::Accepted(id) | Self::Slaves(id) => Some(id),
            Self::AllowAll => None,
        }
    }

    /// Whether a command with this effect removed the item from the gateway.
    pub(crate) fn is_removed_by(self, effect: &Effect) -> bool {
        match (effect, self) {
            (Effect::Unregistered(ids), Self::Registered(id))
            | (Effect::Unaccepted(ids), Self::Accepted(id)) => ids.contains(&id),
            (Effect::Filter(filter), Self::Accepted(id)) => !filter.device_ids.contains(&id),
            (Effect::Filter(filter), Self::AllowAll) => !filter.allow_all,
            (Effect::AllowAll(enabled), Self::AllowAll) => !enabled,
            (Effect::Attempted(effect), item) => item.is_removed_by(effect),
            // Setting slaves replaces the item.
            _ => false,
        }
    }
}

impl fmt::Display for DesiredItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered(id) => write!(f, "the registration of device {id}"),
            Self::Accepted(id) => write!(f, "device {id} in its accept filter"),
            Self::AllowAll => f.write_str("an accept filter that accepts all devices"),
            Self::Slaves(id) => write!(f, "the slaves of device {id}"),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DesiredState {
    pub registered: BTreeMap<DeviceId, Target>,
    pub accepted: BTreeSet<DeviceId>,
    pub allow_all: bool,
    pub slaves: BTreeMap<DeviceId, Slaves>,
}

impl DesiredState {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = DesiredItem> {
        let registered = self.registered.keys().copied().map(DesiredItem::Registered);
        let accepted = self.accepted.iter().copied().map(DesiredItem::Accepted);
        let all = self.allow_all.then_some(DesiredItem::AllowAll);
        let slaves = self.slaves.keys().copied().map(DesiredItem::Slaves);
        registered.chain(accepted).chain(all).chain(slaves)
    }

    /// The devices that are connected again because of it.
    pub(crate) fn kept(&self) -> impl Iterator<Item = DeviceId> {
        self.registered.keys().chain(&self.accepted).copied()
    }

    pub(crate) fn contains(&self, item: DesiredItem) -> bool {
        match item {
            DesiredItem::Registered(id) => self.registered.contains_key(&id),
            DesiredItem::Accepted(id) => self.accepted.contains(&id),
            DesiredItem::AllowAll => self.allow_all,
            DesiredItem::Slaves(id) => self.slaves.contains_key(&id),
        }
    }

    pub(crate) fn remove(&mut self, item: DesiredItem) {
        match item {
            DesiredItem::Registered(id) => _ = self.registered.remove(&id),
            DesiredItem::Accepted(id) => _ = self.accepted.remove(&id),
            DesiredItem::AllowAll => self.allow_all = false,
            DesiredItem::Slaves(id) => _ = self.slaves.remove(&id),
        }
    }

    /// Those of these items that it has.
    pub(crate) fn only<'a>(&self, items: impl IntoIterator<Item = &'a DesiredItem>) -> Self {
        let mut selected = Self::default();
        selected.copy(self, items);
        selected
    }

    /// Copies those of these items that another state has; they replace its own.
    pub(crate) fn copy<'a>(
        &mut self,
        other: &Self,
        items: impl IntoIterator<Item = &'a DesiredItem>,
    ) {
        for item in items {
            match item {
                DesiredItem::Registered(id) => {
                    self.registered.extend(other.registered.get_key_value(id));
                }
                DesiredItem::Accepted(id) => self.accepted.extend(other.accepted.get(id)),
                DesiredItem::AllowAll => self.allow_all |= other.allow_all,
                DesiredItem::Slaves(id) => {
                    self.slaves.extend(other.slaves.get(id).map(|slaves| (*id, slaves.clone())));
                }
            }
        }
    }

    /// Removes what another state does not have.
    fn keep_only(&mut self, other: &Self) {
        self.registered.retain(|id, _| other.registered.contains_key(id));
        self.accepted.retain(|id| other.accepted.contains(id));
        self.allow_all &= other.allow_all;
        self.slaves.retain(|id, slaves| {
            let Some(other) = other.slaves.get(id) else { return false };
            slaves.rs485.retain(|id| other.rs485.contains(id));
            slaves.wiegand.retain(|id| other.wiegand.contains(id));
            !slaves.is_empty()
        });
    }

    /// Records the effect of a command.
    pub(crate) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Registered(devices) => self.registered.extend(devices),
            Effect::Unregistered(ids) => self.registered.retain(|id, _| !ids.contains(id)),
            Effect::Accepted(ids) => self.accepted.extend(ids),
            Effect::Unaccepted(ids) => self.accepted.retain(|id| !ids.contains(id)),
            Effect::AllowAll(enabled) => self.allow_all = enabled,
            Effect::Filter(AcceptFilter { device_ids, allow_all, .. }) => {
                self.accepted = device_ids;
                self.allow_all = allow_all;
            }
            Effect::Slaves(all) => {
                for slaves in all {
                    if slaves.is_empty() {
                        self.slaves.remove(&slaves.device_id);
                    } else {
                        self.slaves.insert(slaves.device_id, slaves);
                    }
                }
            }
            Effect::Attempted(effect) => {
                let mut made = self.clone();
                made.apply(*effect);
                self.keep_only(&made);
            }
        }
    }
}
