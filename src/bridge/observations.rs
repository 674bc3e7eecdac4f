//! Converts outputs of the core into observations, from which the history makes spans.

use std::collections::BTreeSet;

use super::clock::Clock;
use crate::fleet::{DeviceState, Fleet, GatewayEvent, GatewayIndex, LinkState, Output};
use crate::ids::{DeviceId, Moment};
use crate::payload::Directory;
use crate::store::history::{Observation, ObservedDevice, SpanState, UnobservedReason};

/// Observations of this iteration.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    pending: Vec<Observation>,
    /// Gateways that were lost only because the bridge did not run.
    interrupted: BTreeSet<GatewayIndex>,
}

impl Observations {
    /// Names all gateways, at the start and when one was added or forgotten.
    pub(crate) fn gateways(&mut self, directory: &Directory, at: Moment) {
        let entries = directory.gateways.values().cloned().collect();
        self.pending.push(Observation::Gateways { entries, at });
    }

    /// All since the last call.
    pub(crate) fn take(&mut self) -> Vec<Observation> {
        std::mem::take(&mut self.pending)
    }

    /// The wall clock was set by `by_ms` milliseconds, to `after`.
    pub(crate) fn clock_set(&mut self, by_ms: i64, after: Moment) {
        self.pending
            .push(Observation::ClockSet { before: after.plus(by_ms.saturating_neg()), after });
    }

    /// A gateway was lost because the bridge did not run since `until`.
    pub(crate) fn interrupted(
        &mut self,
        gateway: GatewayIndex,
        until: Moment,
        directory: &Directory,
    ) {
        self.interrupted.insert(gateway);
        let (entry, reason) = (directory.gateway(gateway), UnobservedReason::BridgeStopped);
        let gateway = entry.map(|entry| entry.name.clone());
        let lost = gateway.map(|gateway| Observation::GatewayLost { gateway, until, reason });
        self.pending.extend(lost);
    }

    /// Observes an output of the core. The core has already made the whole step.
    pub(crate) fn output(
        &mut self,
        output: &Output,
        fleet: &Fleet,
        directory: &Directory,
        clock: &Clock,
    ) {
        let now = clock.now();
        let name = |gateway: GatewayIndex| Some(directory.gateway(gateway)?.name.clone());
        let device =
            |gateway, device| name(gateway).map(|gateway| Observation::Device { gateway, device });
        let lost = |gateway, until| {
            let reason = UnobservedReason::GatewayLost;
            name(gateway).map(|gateway| Observation::GatewayLost { gateway, until, reason })
        };
        let observation = match output {
            Output::Event(event) => {
                let (device_id, device_type) = (event.device_id, event.device_type);
                let known = fleet.device(event.gateway, device_id);
                let is_expected = known.is_some_and(|known| is_expected(&known));
                let state = state(is_expected, event.status.connected());
                let (until, from) = (event.observed_until, event.received_at);
                let changed = ObservedDevice { device_id, device_type, state, until, from };
                device(event.gateway, changed)
            }
            Output::LeftList { gateway, device_id, since } => {
                let left = seen(fleet, *gateway, *device_id, *since);
                let left = left.filter(|left| left.state == SpanState::Absent);
                left.and_then(|left| device(*gateway, left))
            }
            Output::StateChanged { gateway, device_id } => {
                let seen = seen(fleet, *gateway, *device_id, now);
                let observed = seen.and_then(|seen| device(*gateway, seen));
                // The event of the same change was observed before its state.
                observed.filter(|observed| !self.ends_with(observed))
            }
            Output::Forgotten { gateway, device_id } => {
                let (device_id, device_type, state) = (*device_id, None, SpanState::Absent);
                let (until, from) = (now, now);
                let absent = ObservedDevice { device_id, device_type, state, until, from };
                device(*gateway, absent)
            }
            Output::GatewayEvent(gateway, GatewayEvent::Reachable) => {
                self.interrupted.remove(gateway);
                name(*gateway).map(|gateway| Observation::GatewayOnline { gateway, from: now })
            }
            Output::GatewayEvent(gateway, GatewayEvent::Unreachable) => {
                let until = fleet.gateway(*gateway).and_then(|it| it.link().observed_until());
                lost(*gateway, until.map_or(now, |until| clock.wall(until)))
            }
            // The link broke before the list was read.
            Output::GatewayChanged(gateway)
                if self.interrupted.contains(gateway)
                    && fleet.gateway(*gateway).map(|it| it.link().state())
                        == Some(LinkState::Lost) =>
            {
                self.interrupted.remove(gateway);
                lost(*gateway, now)
            }
            Output::GatewayEvent(..)
            | Output::StoreState { .. }
            | Output::GatewayChanged(_)
            | Output::RequestList(_) => None,
        };
        self.pending.extend(observation);
    }

    /// Whether the last observation is of the same device in the same state.
    fn ends_with(&self, observation: &Observation) -> bool {
        matches!(
            (self.pending.last(), observation),
            (
                Some(Observation::Device { gateway: last_gateway, device: last }),
                Observation::Device { gateway, device },
            ) if (last_gateway, last.device_id, last.state)
                == (gateway, device.device_id, device.state)
        )
    }
}

/// What a device is, since `from`; `None` while that is unknown because of its gateway.
fn seen(
    fleet: &Fleet,
    gateway: GatewayIndex,
    device_id: DeviceId,
    from: Moment,
) -> Option<ObservedDevice> {
    let device = fleet.device(gateway, device_id)?;
    let is_expected = is_expected(&device);
    let is_known = !is_expected || fleet.gateway_is_live(gateway);
    let device_type = device.info.map(|info| info.device_type);
    let state = state(is_expected, device.connected);
    is_known.then_some(ObservedDevice { device_id, device_type, state, until: from, from })
}

/// Whether its time counts. A device that is connected is expected, also before a list shows it.
fn is_expected(device: &DeviceState) -> bool {
    let last_known = device.last_known.map(|known| known.connected);
    device.expected || device.connected.or(last_known) == Some(true)
}

const fn state(is_expected: bool, connected: Option<bool>) -> SpanState {
    match (is_expected, connected) {
        (false, _) => SpanState::Absent,
        (true, Some(true)) => SpanState::Connected,
        (true, Some(false)) => SpanState::Disconnected,
        (true, None) => SpanState::Unknown,
    }
}
