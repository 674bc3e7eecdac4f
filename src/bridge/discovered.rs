//! Gateways that their master lists and the configuration does not name.

use super::state::State;
use crate::config::{Config, Gateway, Reach};
use crate::fleet::GatewaySettings;
use crate::ids::{GatewayName, discovered_name};
use crate::payload::{GatewayEntry, LinkFacts, MasterRef};
use crate::store::{Content, Key, decode, encode};

/// The gateways of the configuration, then those that earlier processes discovered: each keeps its
/// name.
pub(crate) fn known_gateways(config: &Config, content: &Content) -> Vec<(GatewayName, Gateway)> {
    let configured = config.gateways.iter().map(|(name, gateway)| (name.clone(), gateway.clone()));
    let mut known: Vec<(GatewayName, Gateway)> = configured.collect();
    for (key, value) in &content.values {
        let Key::Discovered(master, gateway_id) = key else { continue };
        let discovers = config.masters.get(master).is_some_and(|master| master.discover);
        let (Some(name), true) = (decode::<GatewayName>(value), discovers) else { continue };
        let gateway = Gateway::discovered(master.clone(), gateway_id.clone());
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

/// Adds a gateway that its master lists.
pub(crate) fn add_gateway(state: &mut State, entry: GatewayEntry, settings: GatewaySettings) {
    let gateway = state.fleet.add_gateway(state.clock.steady(), settings, &[]);
    state.fleet.set_wall_offset(state.clock.wall_offset_ms());
    state.facts.push(LinkFacts::default());
    state.persistence.set(Key::Gateway(entry.name.clone()), Some(&[]));
    if let Some(MasterRef { name, gateway_id }) = entry.master.clone() {
        let key = Key::Discovered(name, gateway_id);
        state.persistence.set(key, Some(&encode(&entry.name)));
    }
    state.info.gateways.push(entry.name.clone());
    state.directory.gateways.push(entry);
    state.publisher.content().add_gateway(gateway);
}

fn is_same(one: &Gateway, other: &Gateway) -> bool {
    matches!(one.reach, Reach::Master { .. }) && one.reach == other.reach
}
