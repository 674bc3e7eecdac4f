//! The links to master gateways: applies their own reports, apart from those of their gateways.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::state::State;
use crate::config::UNKNOWN_AFTER_DEFAULT;
use crate::fleet::{GatewayIndex, LinkState, Listed, Skew};
use crate::gsdk::{ErrorCode, LinkError, MasterLink, MasterReport};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::mqtt::InfoOf;
use crate::payload::{BridgeEventKind, LastError, MasterFacts};

/// All masters, by name.
#[derive(Debug, Default)]
pub(crate) struct Masters {
    masters: BTreeMap<GatewayName, Master>,
}

#[derive(Debug)]
struct Master {
    link: MasterLink,
    /// Whether gateways that the configuration does not name are taken.
    discovers: bool,
    /// When it last listed its gateways on this link.
    listed_at: Option<Moment>,
    /// When it counts as lost, while there is no link.
    lost_at: Option<Instant>,
    skew: Skew,
}

impl Masters {
    pub(crate) fn add(&mut self, name: GatewayName, link: MasterLink, discovers: bool) {
        let (lost_at, skew) = (Some(Instant::now() + UNKNOWN_AFTER_DEFAULT), Skew::default());
        self.masters.insert(name, Master { link, discovers, listed_at: None, lost_at, skew });
    }

    pub(crate) fn link(&self, name: &GatewayName) -> Option<&MasterLink> {
        self.masters.get(name).map(|master| &master.link)
    }

    /// Applies a report. Returns the gateways that the master lists, if those that are not
    /// configured are taken, and the milliseconds since the last listing on the same link.
    pub(crate) fn apply(
        &mut self,
        state: &mut State,
        name: &GatewayName,
        report: MasterReport,
    ) -> Option<(Vec<String>, i64)> {
        let master = self.masters.get_mut(name)?;
        match report {
            MasterReport::Up { certificate_expires_at } => {
                (master.lost_at, master.listed_at) = (None, None);
                let is_new_state = set_facts(state, name, |facts| {
                    facts.state = LinkState::Online;
                    facts.certificate_expires_at = certificate_expires_at;
                    facts.last_error = None;
                });
                if is_new_state {
                    tracing::info!(master = %name, "master online");
                    state.bridge_event(&BridgeEventKind::MasterReachable { master: name.clone() });
                }
            }
            MasterReport::Token { expires_at } => {
                set_facts(state, name, |facts| {
                    facts.token_expires_at = expires_at;
                    facts.last_error = None;
                });
            }
            MasterReport::RenewalRefused(error) => set_error(state, name, &error),
            MasterReport::Gateways(ids) => {
                let now = state.clock.steady();
                master.skew.expire(now);
                set_skew(state, name, &master.skew);
                let before = master.listed_at.replace(now);
                let passed_ms = before.map_or(0, |before| now.since(before));
                return master.discovers.then_some((ids, passed_ms));
            }
            MasterReport::Clock { timestamp_s, received } => {
                let timestamp = Moment::from_millis(i64::from(timestamp_s) * 1_000);
                master.skew.sample(timestamp, state.clock.steady_clock().at(received));
                set_skew(state, name, &master.skew);
            }
            MasterReport::Down { error, last_activity } => {
                if let Some(last_activity) = last_activity {
                    master.lost_at = Some(Instant::from_std(last_activity) + UNKNOWN_AFTER_DEFAULT);
                }
                set_error(state, name, &error);
            }
        }
        None
    }

    /// Marks masters as lost for which that is due.
    pub(crate) fn wake(&mut self, state: &mut State, now: Instant) {
        for (name, master) in &mut self.masters {
            if master.lost_at.take_if(|at| *at <= now).is_none() {
                continue;
            }
            master.skew = Skew::default();
            set_skew(state, name, &master.skew);
            if set_facts(state, name, |facts| facts.state = LinkState::Lost) {
                tracing::warn!(master = %name, "master lost; its gateways are unknown");
                let error =
                    state.directory.masters.get(name).and_then(|facts| facts.last_error.as_ref());
                let reason = error.map(|error| error.message.clone());
                let master = name.clone();
                state.bridge_event(&BridgeEventKind::MasterUnreachable { master, reason });
            }
        }
    }

    /// When the next master is lost.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.masters.values().filter_map(|master| master.lost_at).min()
    }
}

/// Sets facts of a master, which are published with its info; returns whether its state changed.
fn set_facts(state: &mut State, name: &GatewayName, set: impl FnOnce(&mut MasterFacts)) -> bool {
    let now = state.clock.now();
    let Some(facts) = state.directory.masters.get_mut(name) else { return false };
    let before = facts.clone();
    set(facts);
    let is_new_state = facts.state != before.state;
    if is_new_state {
        facts.since = now;
    }
    let (infos, of) = (state.publisher.content.infos(), InfoOf::Master(name.clone()));
    if is_new_state || facts.last_error != before.last_error {
        infos.changed_at_once(of);
    } else if *facts != before {
        infos.changed(of);
    }
    is_new_state
}

fn set_skew(state: &mut State, name: &GatewayName, skew: &Skew) {
    let offset = state.clock.wall_offset_ms();
    let skew = skew.estimate_ms().map(|skew| skew - offset);
    set_facts(state, name, |facts| facts.clock_skew_ms = skew);
}

fn set_error(state: &mut State, name: &GatewayName, error: &LinkError) {
    set_facts(state, name, |facts| {
        facts.last_error = Some(last_error(error));
        facts.certificate_expires_at =
            error.certificate_expires_at.or(facts.certificate_expires_at);
    });
}

pub(crate) fn last_error(error: &LinkError) -> LastError {
    LastError {
        code: error.code.as_str(),
        message: error.to_string(),
        is_file_missing: matches!(error.code, ErrorCode::Dial(code) if code.is_file_missing()),
    }
}

/// The other gateways behind the same master.
fn others_behind(state: &State, gateway: GatewayIndex) -> Vec<GatewayIndex> {
    let directory = &state.directory;
    let master = directory.gateway(gateway).and_then(|entry| entry.master.as_ref());
    let all = master.into_iter().flat_map(|master| directory.behind(&master.name));
    all.map(|(other, _)| other).filter(|other| *other != gateway).collect()
}

/// The other gateways of the same master that have or had a device which this list adds or removes:
/// their lists show whether it has moved, and what is true of it since.
pub(crate) fn affected_gateways(
    state: &State,
    gateway: GatewayIndex,
    rows: &[Listed],
) -> Vec<GatewayIndex> {
    let mut others = others_behind(state, gateway);
    if others.is_empty() {
        return others;
    }
    let before = state.fleet.devices(gateway).filter(|device| device.managed);
    let before: BTreeSet<DeviceId> = before.map(|device| device.device_id).collect();
    let after = rows.iter().map(|row| row.device_id).collect();
    let changed: Vec<&DeviceId> = before.symmetric_difference(&after).collect();
    others.retain(|other| changed.iter().any(|id| state.fleet.device(*other, **id).is_some()));
    others
}

/// Those devices of a gateway that have left its list and are in the list of another gateway of the
/// same master.
pub(crate) fn moved_devices(state: &State, gateway: GatewayIndex) -> Vec<DeviceId> {
    let others = others_behind(state, gateway);
    let has = |other, id| state.fleet.device(other, id).is_some_and(|device| device.managed);
    let has_moved = |id: &DeviceId| others.iter().any(|other| has(*other, *id));
    let absent = state.fleet.devices(gateway).filter(|device| !device.managed);
    absent.map(|device| device.device_id).filter(has_moved).collect()
}
