//! The pure core: derives the state of every device from the events of the gateways' links.
//!
//! The event loop passes the events in their order and applies the outputs. The same inputs give
//! the same outputs: time is an argument, and there is no I/O.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

mod changes;
mod connection;
mod device;
mod device_table;
mod event;
mod gateway;
mod io;
mod link;
mod list_check;
mod list_schedule;
mod listed;
mod presence;
mod provisioned;
mod remembered;
mod skew;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod unknown_devices;
mod uptime;

use std::ops::RangeBounds;

pub use event::{ChangedItems, DeviceEvent, EventType, GatewayEvent, GatewayIndex, Source};
pub(crate) use gateway::Gateway;
pub use io::{GatewaySettings, LinkEvent, Output, StreamedStatus};
pub(crate) use list_check::SECOND_LOOK_MS;
pub use listed::{DeviceInfo, DeviceType, Listed};
pub use provisioned::{AcceptFilter, Effect, Slaves, Target};
pub use remembered::{DeviceDetails, Known, Remembered, RetrySet};
pub use skew::Skew;
pub use state::{Counts, DeviceMeasures, DeviceState, GatewayCounts, GatewayState, LinkState};
pub use status::{Mode, Status};
pub use uptime::Observed;

use crate::ids::{DeviceId, Moment, SteadyClock};
use event::StatusReport;

/// Every gateway with every device. Methods ignore an index that was never returned.
#[derive(Debug)]
pub struct Fleet {
    /// The clock of every `now`.
    clock: SteadyClock,
    /// How far the wall clock is ahead of `now`, in milliseconds.
    wall_offset_ms: i64,
    gateways: Vec<Gateway>,
}

impl Fleet {
    pub const fn new(clock: SteadyClock) -> Self {
        Self { clock, wall_offset_ms: 0, gateways: Vec::new() }
    }

    /// Adds a gateway with the devices that its configuration declares. Their states are published
    /// once its list was read or `unknown_after` has passed.
    pub fn add_gateway(
        &mut self,
        now: Moment,
        settings: GatewaySettings,
        declared: &[DeviceId],
    ) -> GatewayIndex {
        let index = GatewayIndex(self.gateways.len());
        let gateway = Gateway::new(index, settings, declared, now, self.wall_offset_ms);
        self.gateways.push(gateway);
        index
    }

    fn gateway_mut(&mut self, gateway: GatewayIndex) -> Option<&mut Gateway> {
        self.gateways.get_mut(gateway.0)
    }

    /// Restores a device of an earlier process, before the gateway's first event. The differences
    /// that its first list shows continue the event chain.
    pub fn restore(
        &mut self,
        wall_time: Moment,
        gateway: GatewayIndex,
        device_id: DeviceId,
        remembered: Remembered,
    ) {
        if let Some(gateway) = self.gateway_mut(gateway) {
            gateway.devices_mut().restore(wall_time, device_id, remembered);
        }
    }

    /// Starts a new event chain: every device's next event has number 1 and, as `previous`, the
    /// last known status. `unpublished` events become its first.
    pub fn new_chain<'a>(&mut self, unpublished: impl IntoIterator<Item = &'a mut DeviceEvent>) {
        self.gateways.iter_mut().for_each(|gateway| gateway.devices_mut().reset_chain());
        for event in unpublished {
            let gateway = self.gateway_mut(event.gateway);
            let device = gateway.and_then(|it| it.devices_mut().get_mut(event.device_id));
            if let Some(device) = device {
                event.seq = device.next_seq();
            }
        }
    }

    /// Applies one event of a gateway's link.
    pub fn step(
        &mut self,
        now: Moment,
        gateway: GatewayIndex,
        event: LinkEvent,
        out: &mut Vec<Output>,
    ) {
        let clock = self.clock;
        let Some(gateway) = self.gateway_mut(gateway) else { return };
        let mut changed = None;
        match event {
            LinkEvent::LinkUp => gateway.link_up(now, out),
            LinkEvent::Status(StreamedStatus { device_id, status, timestamp_s, received }) => {
                let report = StatusReport {
                    status,
                    source: Source::Stream,
                    timestamp: Moment::from_millis(i64::from(timestamp_s) * 1_000),
                    at: clock.at(received),
                    read_at: Some(received),
                };
                gateway.status(device_id, report, out);
                changed = Some(device_id);
            }
            LinkEvent::ListRequested => gateway.list_requested(),
            LinkEvent::List(rows) => gateway.list(now, &rows, out),
            LinkEvent::ListFailed => gateway.list_failed(now),
            LinkEvent::LinkDown { last_activity } => {
                gateway.link_down(now, clock.at(last_activity), out);
            }
            LinkEvent::Absent => gateway.absent(now, out),
        }
        debug_assert_eq!(gateway.broken_invariant(changed), None);
    }

    /// Changes a gateway; `None` for an index that was never returned.
    pub(crate) fn change<R>(
        &mut self,
        gateway: GatewayIndex,
        change: impl FnOnce(&mut Gateway) -> R,
    ) -> Option<R> {
        let gateway = self.gateway_mut(gateway)?;
        let result = change(gateway);
        debug_assert_eq!(gateway.broken_invariant(None), None);
        Some(result)
    }

    /// Sets how far the wall clock is ahead of `now` (behind, if negative). Published times follow
    /// it; order and durations do not.
    pub fn set_wall_offset(&mut self, ms: i64) {
        self.wall_offset_ms = ms;
        self.gateways.iter_mut().for_each(|gateway| gateway.set_wall_offset(ms));
    }

    /// Does what is due by now.
    pub fn wake(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.gateways.iter_mut().for_each(|gateway| gateway.wake(now, out));
    }

    /// When [`Fleet::wake`] is due.
    pub fn wake_at(&self) -> Option<Moment> {
        self.gateways.iter().filter_map(Gateway::wake_at).min()
    }

    /// The gateways that are not forgotten, in the order they were added.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = (GatewayIndex, &Gateway)> {
        let gateways = (0..).map(GatewayIndex).zip(&self.gateways);
        gateways.filter(|(_, gateway)| !gateway.link().is_forgotten())
    }

    /// A gateway, also a forgotten one.
    pub(crate) fn gateway(&self, gateway: GatewayIndex) -> Option<&Gateway> {
        self.gateways.get(gateway.0)
    }

    /// Whether the states of a gateway's devices are known.
    pub fn gateway_is_live(&self, gateway: GatewayIndex) -> bool {
        self.gateway(gateway).is_some_and(|gateway| gateway.view().is_live)
    }

    /// A device's state; `None` if it has no topics.
    pub fn device(&self, gateway: GatewayIndex, device_id: DeviceId) -> Option<DeviceState> {
        let gateway = self.gateway(gateway)?;
        Some(gateway.devices().get(device_id)?.state(gateway.view().is_live))
    }

    /// Whether a device is connected; `None` if that is unknown.
    pub fn connected(&self, gateway: GatewayIndex, device_id: DeviceId) -> Option<bool> {
        let gateway = self.gateway(gateway).filter(|gateway| gateway.view().is_live)?;
        gateway.devices().get(device_id)?.connected()
    }

    /// The states of a gateway's devices, in the order of their IDs.
    pub fn devices(&self, gateway: GatewayIndex) -> impl Iterator<Item = DeviceState> {
        let states = self.gateway(gateway).map(|gateway| {
            let is_live = gateway.view().is_live;
            gateway.devices().iter().map(move |device| device.state(is_live))
        });
        states.into_iter().flatten()
    }

    /// The measures of those of a gateway's devices whose IDs are in `ids`, in order, as observed
    /// until `now`.
    pub fn measures(
        &mut self,
        gateway: GatewayIndex,
        ids: impl RangeBounds<DeviceId>,
        now: Moment,
    ) -> impl Iterator<Item = DeviceMeasures> {
        let gateway = self.gateway_mut(gateway);
        let measures = gateway.map(|gateway| {
            let view = gateway.view();
            let until = view.observed_until(now);
            let devices = gateway.devices_mut().range_mut(ids);
            devices.map(move |device| device.measures(view.is_live, until))
        });
        measures.into_iter().flatten()
    }
}
