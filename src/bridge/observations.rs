//! Converts outputs of the core into observations, from which the history makes spans.

use std::collections::BTreeSet;

use super::clock::Clock;
use crate::fleet::{DeviceState, Fleet, GatewayEvent, GatewayIndex, LinkState, Output};
use crate::ids::{DeviceId, GatewayName, Moment};
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
    pub(crate) fn gateways(&mut self, directory: &Directory) {
        self.pending.push(Observation::Gateways(directory.gateways.values().cloned().collect()));
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
        let name = |gateway: GatewayIndex| Some(directory.gateway(gateway)?.name.clone());
        let observation = match output {
            Output::Event(event) => name(event.gateway).map(|gateway| {
                let (device_id, device_type) = (event.device_id, event.device_type);
                let device = fleet.device(event.gateway, device_id);
                let is_expected = device.is_some_and(|device| is_expected(&device));
                let state = state(is_expected, event.status.connected());
                let (until, from) = (event.observed_until, event.received_at);
                let device = ObservedDevice { device_id, device_type, state, until, from };
                Observation::Device { gateway, device }
            }),
            Output::LeftList { gateway, device_id, since } => {
                let left = seen(fleet, *gateway, *device_id, *since);
                let left = left.filter(|now| now.state == SpanState::Absent);
                let left = name(*gateway).zip(left);
                left.map(|(gateway, device)| Observation::Device { gateway, device })
            }
            Output::StateChanged { gateway, device_id } => {
                let observed = name(*gateway).zip(seen(fleet, *gateway, *device_id, clock.now()));
                // The event of the same change was observed before its state.
                let observed = observed.filter(|(gateway, now)| !self.ends_with(gateway, now));
                observed.map(|(gateway, device)| Observation::Device { gateway, device })
            }
            Output::Forgotten { gateway, device_id } => name(*gateway).map(|gateway| {
                let (state, device_type) = (SpanState::Absent, None);
                let (device_id, until, from) = (*device_id, clock.now(), clock.now());
                let device = ObservedDevice { device_id, device_type, state, until, from };
                Observation::Device { gateway, device }
            }),
            Output::GatewayEvent(gateway, GatewayEvent::Reachable) => {
                self.interrupted.remove(gateway);
                let from = clock.now();
                name(*gateway).map(|gateway| Observation::GatewayOnline { gateway, from })
            }
            Output::GatewayEvent(gateway, GatewayEvent::Unreachable) => {
                let until = fleet.observed_until(*gateway);
                let until = until.map_or_else(|| clock.now(), |until| clock.wall(until));
                let reason = UnobservedReason::GatewayLost;
                name(*gateway).map(|gateway| Observation::GatewayLost { gateway, until, reason })
            }
            // The link broke before the list was read.
            Output::GatewayChanged(gateway)
                if self.interrupted.contains(gateway)
                    && fleet.gateway(*gateway).is_some_and(|it| it.state == LinkState::Lost) =>
            {
                self.interrupted.remove(gateway);
                let (until, reason) = (clock.now(), UnobservedReason::GatewayLost);
                name(*gateway).map(|gateway| Observation::GatewayLost { gateway, until, reason })
            }
            Output::GatewayEvent(..)
            | Output::StoreState { .. }
            | Output::GatewayChanged(_)
            | Output::RequestList(_) => None,
        };
        self.pending.extend(observation);
    }

    /// Whether the last observation is of this device in this state.
    fn ends_with(&self, in_gateway: &GatewayName, now: &ObservedDevice) -> bool {
        matches!(
            self.pending.last(),
            Some(Observation::Device { gateway, device })
                if (gateway, device.device_id, device.state)
                    == (in_gateway, now.device_id, now.state)
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
