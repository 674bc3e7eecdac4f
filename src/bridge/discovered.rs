//! Gateways that their master lists and the configuration does not name: the names they keep, and
//! which of them are forgotten.
//!
//! A forgotten gateway has no topics, series or entities. It keeps its index, its name and its
//! devices' places in the event chain, in case its master lists it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::settings;
use super::state::State;
use crate::config::{Config, GatewayConfig, Reach};
use crate::fleet::GatewayIndex;
use crate::ids::{DeviceId, GatewayName, discovered_name};
use crate::mqtt::InfoOf;
use crate::payload::{GatewayEntry, LinkFacts, MasterRef};
use crate::store::{Key, LogContent, decode, encode};

/// Gateways that are discovered.
const DISCOVERED_MAX: usize = 1_000;
/// The same with those that were forgotten, whose names are kept.
const STORED_MAX: usize = 10_000;

/// What is stored of a discovered gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredGateway {
    name: GatewayName,
    /// For how long its master has not listed it, as far as that was observed.
    absent_ms: i64,
    is_forgotten: bool,
}

/// The gateways of the configuration, then those that earlier processes discovered: each keeps its
/// name.
pub(crate) fn known_gateways(
    config: &Config,
    content: &LogContent,
) -> Vec<(GatewayName, GatewayConfig)> {
    let configured = config.gateways.iter().map(|(name, gateway)| (name.clone(), gateway.clone()));
    let mut known: Vec<(GatewayName, GatewayConfig)> = configured.collect();
    for (key, value) in &content.values {
        let Key::Discovered(master, gateway_id) = key else { continue };
        let discovers = config.masters.get(master).is_some_and(|master| master.discover);
        let (Some(StoredGateway { name, .. }), true) = (decode(value), discovers) else { continue };
        let gateway = GatewayConfig::with_defaults(Reach::Master {
            master: master.clone(),
            gateway_id: gateway_id.clone(),
        });
        if known.iter().any(|(_, other)| is_same(other, &gateway)) {
            continue;
        }
        let is_taken = |name: &GatewayName| {
            config.masters.contains_key(name) || known.iter().any(|(other, _)| other == name)
        };
        // The configuration may have the name for another gateway now.
        let name =
            if is_taken(&name) { discovered_name(master, gateway_id, is_taken) } else { name };
        known.push((name, gateway));
    }
    known
}

fn is_same(one: &GatewayConfig, other: &GatewayConfig) -> bool {
    matches!(one.reach, Reach::Master { .. }) && one.reach == other.reach
}

/// All discovered gateways.
#[derive(Debug)]
pub(crate) struct DiscoveredGateways {
    /// Gateways with a lower index are configured.
    first: GatewayIndex,
    /// After how long one is forgotten that its master does not list.
    forget_after: Option<Duration>,
    stored: BTreeMap<GatewayIndex, StoredGateway>,
    /// Those that are forgotten.
    forgotten: BTreeMap<GatewayIndex, GatewayEntry>,
    /// Whether there are too many to add another, which is logged once.
    is_full: bool,
}

impl DiscoveredGateways {
    /// With none yet; so many gateways are configured.
    pub(crate) const fn new(configured: usize, forget_after: Option<Duration>) -> Self {
        Self {
            first: GatewayIndex(configured),
            forget_after,
            stored: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            is_full: false,
        }
    }

    /// Adds a gateway that its master lists, if it is not known; returns its name.
    pub(crate) fn add(
        &mut self,
        state: &mut State,
        master: &GatewayName,
        gateway_id: &str,
    ) -> Option<GatewayName> {
        let directory = &state.directory;
        let all = || directory.gateways.values().chain(self.forgotten.values());
        let reference = MasterRef { name: master.clone(), gateway_id: gateway_id.to_owned() };
        if all().any(|entry| entry.master.as_ref() == Some(&reference)) {
            return None;
        }
        let known = self.stored.values().filter(|stored| !stored.is_forgotten).count();
        let is_full = known >= DISCOVERED_MAX || self.stored.len() >= STORED_MAX;
        let was_full = std::mem::replace(&mut self.is_full, is_full);
        if self.is_full {
            if !was_full {
                tracing::warn!(%master, gateway_id, "too many gateways; not discovered");
            }
            return None;
        }
        let is_taken = |name: &GatewayName| {
            directory.masters.contains_key(name) || all().any(|entry| entry.name == *name)
        };
        let name = discovered_name(master, gateway_id, is_taken);
        let address = directory.masters.get(master).map(|facts| facts.address.clone());
        let entry = GatewayEntry {
            name: name.clone(),
            address: address.unwrap_or_default(),
            master: Some(reference),
            area: None,
            devices: Arc::default(),
        };
        tracing::info!(%master, gateway = %name, gateway_id, "gateway discovered");
        let config = GatewayConfig::with_defaults(Reach::Master {
            master: master.clone(),
            gateway_id: gateway_id.to_owned(),
        });
        let settings = settings(&config, self.forget_after);
        let gateway = state.fleet.add_gateway(state.clock.steady(), settings, &[]);
        state.facts.push(LinkFacts::default());
        self.publish(state, gateway, entry);
        Some(name)
    }

    /// Restores what is stored of a gateway, which may have another name by now.
    pub(crate) fn restore(
        &mut self,
        state: &mut State,
        gateway: GatewayIndex,
        stored: StoredGateway,
    ) {
        let Some(entry) = state.directory.gateway(gateway) else { return };
        let stored = match gateway < self.first {
            true => StoredGateway { absent_ms: 0, is_forgotten: false, name: entry.name.clone() },
            false => StoredGateway { name: entry.name.clone(), ..stored },
        };
        self.set(state, gateway, stored);
    }

    /// Gateways that earlier processes have forgotten.
    pub(crate) fn restored_forgotten(&self) -> Vec<GatewayIndex> {
        let forgotten = self.stored.iter().filter(|(_, stored)| stored.is_forgotten);
        forgotten.map(|(gateway, _)| *gateway).collect()
    }

    fn set(&mut self, state: &mut State, gateway: GatewayIndex, stored: StoredGateway) {
        let entry = state.directory.gateway(gateway).or_else(|| self.forgotten.get(&gateway));
        if let Some(master) = entry.and_then(|entry| entry.master.clone()) {
            let key = Key::Discovered(master.name, master.gateway_id);
            state.persistence.set(key, Some(&encode(&stored)));
        }
        if gateway >= self.first {
            self.stored.insert(gateway, stored);
        }
    }

    /// A master lists these gateways, `passed_ms` after it was last asked on the same link. Returns
    /// those that have been absent for `forget_after`.
    pub(crate) fn listed(
        &mut self,
        state: &mut State,
        master: &GatewayName,
        ids: &[String],
        passed_ms: i64,
    ) -> Vec<GatewayIndex> {
        let behind = state.directory.behind(master).filter_map(|(gateway, entry)| {
            let id = &entry.master.as_ref()?.gateway_id;
            Some((gateway, ids.contains(id), self.stored.get(&gateway)?.clone()))
        });
        let behind: Vec<(GatewayIndex, bool, StoredGateway)> = behind.collect();
        let mut due = Vec::new();
        for (gateway, is_listed, stored) in behind {
            let absent_ms = if is_listed { 0 } else { stored.absent_ms.saturating_add(passed_ms) };
            self.set(state, gateway, StoredGateway { absent_ms, ..stored });
            let absent = Duration::from_millis(absent_ms.unsigned_abs());
            let is_over = |after| absent >= after;
            if self.forget_after.is_some_and(is_over) && !state.fleet.gateway_is_live(gateway) {
                due.push(gateway);
            }
        }
        due
    }

    /// Whether a gateway may be forgotten: it is discovered, and its master does not list it.
    pub(crate) fn may_be_forgotten(&self, state: &State, gateway: GatewayIndex) -> bool {
        let is_removed = state.facts.get(gateway.0).is_some_and(|facts| facts.is_removed);
        gateway >= self.first && is_removed && !state.fleet.gateway_is_live(gateway)
    }

    /// Forgets a gateway with all its devices; returns both.
    pub(crate) fn forget(
        &mut self,
        state: &mut State,
        gateway: GatewayIndex,
    ) -> Option<(GatewayEntry, BTreeSet<DeviceId>)> {
        let ids = state.forget_devices(gateway);
        let entry = state.directory.remove(gateway)?;
        let name = entry.name.clone();
        // One that an earlier process has forgotten is reported only if it still had devices.
        let is_new = !self.stored.get(&gateway).is_some_and(|stored| stored.is_forgotten);
        if is_new || !ids.is_empty() {
            tracing::info!(gateway = %name, devices = ids.len(), "gateway forgotten");
        }
        state.persistence.observations.gateways(&state.directory, state.clock.now());
        state.metrics.forget_gateway(name.as_str());
        let content = &mut state.publisher.content;
        content.gateway_forgotten(gateway, &entry);
        if let Some(master) = &entry.master {
            content.infos().changed(InfoOf::Master(master.name.clone()));
        }
        self.forgotten.insert(gateway, entry.clone());
        self.set(state, gateway, StoredGateway { name, absent_ms: 0, is_forgotten: true });
        Some((entry, ids))
    }

    /// A gateway is listed; returns whether it was forgotten.
    pub(crate) fn recall(&mut self, state: &mut State, gateway: GatewayIndex) -> bool {
        let Some(entry) = self.forgotten.remove(&gateway) else { return false };
        tracing::info!(gateway = %entry.name, "a forgotten gateway is listed again");
        state.change(gateway, |gateway, now, _| gateway.recall(now));
        self.publish(state, gateway, entry);
        state.publisher.content.gateway_changed(gateway);
        true
    }

    /// Has a gateway published that is new to the directory.
    fn publish(&mut self, state: &mut State, gateway: GatewayIndex, entry: GatewayEntry) {
        let name = entry.name.clone();
        state.directory.add(gateway, entry);
        self.set(
            state,
            gateway,
            StoredGateway { name: name.clone(), absent_ms: 0, is_forgotten: false },
        );
        state.persistence.set(Key::Gateway(name), Some(&[]));
        state.persistence.observations.gateways(&state.directory, state.clock.now());
        state.publisher.content.gateway_added(gateway);
    }
}
