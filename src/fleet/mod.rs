//! The core, pure: what is true of every device, decided from what the gateways say.
//!
//! May not use tokio, a clock (`now` is an argument), I/O, or any type of another room. One owner
//! feeds it inputs in the order they came and carries out what it puts out; the same inputs give
//! the same outputs.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

mod compare;
mod device;
mod event;
mod forgetting;
mod gateway;
mod listed;
mod provisioned;
mod seconds;
mod skew;
mod status;
mod strangers;
#[cfg(test)]
mod tests;
mod view;

pub use device::{Counts, Known, Remembered};
pub use event::{DeviceEvent, EventType, GatewayEvent, Source};
pub use gateway::{GatewayCounts, GatewaySettings, LinkState};
pub use listed::{DeviceInfo, DeviceType, Listed};
pub use provisioned::{AcceptFilter, Effect, Slaves, Target};
pub use seconds::Observed;
pub use status::{Mode, Status};
pub use view::{DeviceMeasures, DeviceState, GatewayState, LastKnown};

use std::collections::BTreeSet;
use std::ops::RangeBounds;

use crate::ids::{DeviceId, Moment};
use gateway::Gateway;

/// Which gateway: its place in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayIndex(pub usize);

/// What a gateway's link observed, in the order it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The stream is open.
    LinkUp,
    /// The stream told a status.
    Status {
        /// Of which device.
        device_id: DeviceId,
        /// Which status.
        status: Status,
        /// The gateway's clock, whole seconds.
        timestamp: Moment,
        /// When it was read, by the bridge's clock.
        received_at: Moment,
    },
    /// The list is being asked for: what was told before this is older than the list.
    ListAsked,
    /// The list, as it came.
    List(Vec<Listed>),
    /// The list could not be had; the link stands.
    ListFailed,
    /// Something was changed at the gateway: its list is worth a look.
    ListWanted,
    /// The stream has ended.
    LinkDown {
        /// When the gateway was last heard, by the bridge's clock.
        last_sign_of_life: Moment,
    },
}

/// What the core wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be written, then published, in order.
    Event(DeviceEvent),
    /// To be published, in order with the gateway's other events.
    GatewayEvent(GatewayIndex, GatewayEvent),
    /// This device's retained state has changed.
    State {
        /// Of which gateway.
        gateway: GatewayIndex,
        /// Which device.
        device_id: DeviceId,
    },
    /// This device is no more: its retained topics are to be cleared.
    Forgotten {
        /// Of which gateway.
        gateway: GatewayIndex,
        /// Which device.
        device_id: DeviceId,
    },
    /// What is stored of this device has changed, and nothing that is published of it.
    Store {
        /// Of which gateway.
        gateway: GatewayIndex,
        /// Which device.
        device_id: DeviceId,
    },
    /// This gateway's retained state or info has changed.
    Gateway(GatewayIndex),
    /// Its list is to be read: answer with `ListAsked`, then `List` or `ListFailed`.
    ListGateway(GatewayIndex),
}

/// Every gateway with every device.
#[derive(Debug, Default)]
pub struct Fleet {
    gateways: Vec<Gateway>,
}

impl Fleet {
    /// A gateway with the devices that its configuration declares. Until it is heard, or
    /// `unknown_after` has passed, nothing is said of it.
    pub fn add_gateway(
        &mut self,
        now: Moment,
        settings: GatewaySettings,
        declared: &[DeviceId],
    ) -> GatewayIndex {
        let index = GatewayIndex(self.gateways.len());
        self.gateways.push(Gateway::new(index, settings, declared, now));
        index
    }

    /// A device that an earlier process knew: to be called before the gateway's first input. What
    /// its first list says otherwise continues the chain; nothing is said of it until then.
    pub fn restore(
        &mut self,
        now: Moment,
        gateway: GatewayIndex,
        device_id: DeviceId,
        remembered: Remembered,
    ) {
        let Some(gateway) = self.gateways.get_mut(gateway.0) else { return };
        if remembered.forgotten && !gateway.devices.contains_key(&device_id) {
            gateway.past.insert(device_id, remembered);
            return;
        }
        let device = gateway.devices.entry(device_id);
        let kept = gateway.kept.contains(&device_id);
        device.or_insert_with(|| device::Device::undeclared(now, kept)).restore(remembered);
    }

    /// What is to outlive the process of a device; `None` for one that never had topics.
    #[must_use]
    pub fn remembered(&self, gateway: GatewayIndex, device_id: DeviceId) -> Option<Remembered> {
        let gateway = self.gateways.get(gateway.0)?;
        let device = gateway.devices.get(&device_id).map(device::Device::remember);
        device.or_else(|| gateway.past.get(&device_id).cloned())
    }

    /// What is to outlive the process of all devices of a gateway.
    pub fn all_remembered(
        &self,
        gateway: GatewayIndex,
    ) -> impl Iterator<Item = (DeviceId, Remembered)> {
        self.gateways.get(gateway.0).into_iter().flat_map(|gateway| {
            let devices = gateway.devices.iter().map(|(id, device)| (*id, device.remember()));
            devices.chain(gateway.past.iter().map(|(id, past)| (*id, past.clone())))
        })
    }

    /// A new chain begins: every device's next event has number 1 and, as `previous`, the status
    /// last known. `unpublished` events, which nobody has seen, become the first of it.
    pub fn new_chain<'a>(&mut self, unpublished: impl IntoIterator<Item = &'a mut DeviceEvent>) {
        for gateway in &mut self.gateways {
            gateway.past.clear();
            gateway.devices.values_mut().for_each(|device| device.seq = 0);
        }
        for event in unpublished {
            let gateway = self.gateways.get_mut(event.gateway.0);
            let device = gateway.and_then(|gateway| gateway.devices.get_mut(&event.device_id));
            if let Some(device) = device {
                device.seq += 1;
                event.seq = device.seq;
            }
        }
    }

    /// Takes one input of one gateway. An index that was never given out is ignored.
    pub fn step(
        &mut self,
        now: Moment,
        gateway: GatewayIndex,
        input: Input,
        out: &mut Vec<Output>,
    ) {
        let Some(gateway) = self.gateways.get_mut(gateway.0) else { return };
        match input {
            Input::LinkUp => gateway.link_up(now, out),
            Input::Status { device_id, status, timestamp, received_at } => {
                gateway.status(device_id, status, timestamp, received_at, out);
            }
            Input::ListAsked => gateway.list_asked(),
            Input::List(rows) => gateway.list(now, rows, out),
            Input::ListFailed => gateway.list_failed(now),
            Input::ListWanted => gateway.want_list(now, out),
            Input::LinkDown { last_sign_of_life } => gateway.link_down(now, last_sign_of_life, out),
        }
    }

    /// These devices of a gateway are given to it again because of a command.
    pub fn keep(
        &mut self,
        now: Moment,
        gateway: GatewayIndex,
        kept: BTreeSet<DeviceId>,
        out: &mut Vec<Output>,
    ) {
        if let Some(gateway) = self.gateways.get_mut(gateway.0) {
            gateway.keep(now, kept, out);
        }
    }

    /// Forgets devices that are neither in the list, nor in the configuration, nor kept by a
    /// command; returns those of `ids` that are, and so stay.
    pub fn forget(
        &mut self,
        gateway: GatewayIndex,
        ids: &[DeviceId],
        out: &mut Vec<Output>,
    ) -> Vec<DeviceId> {
        let gateway = self.gateways.get_mut(gateway.0);
        gateway.map(|gateway| gateway.forget(ids, out)).unwrap_or_default()
    }

    /// The wall's clock is from now on so far ahead of `now` (behind, if negative). What is shown
    /// follows it; order and durations do not.
    pub fn wall_is_ahead(&mut self, ms: i64) {
        for gateway in &mut self.gateways {
            gateway.ahead_ms = ms;
        }
    }

    /// Does what is due by now.
    pub fn wake(&mut self, now: Moment, out: &mut Vec<Output>) {
        for gateway in &mut self.gateways {
            gateway.wake(now, out);
        }
    }

    /// When [`Fleet::wake`] is to be called next.
    #[must_use]
    pub fn wake_at(&self) -> Option<Moment> {
        self.gateways.iter().filter_map(Gateway::due).min()
    }

    /// The gateways, in the order they were added.
    pub fn gateways(&self) -> impl Iterator<Item = GatewayIndex> + use<> {
        (0..self.gateways.len()).map(GatewayIndex)
    }

    /// A gateway's state; `None` for an index that was never given out.
    #[must_use]
    pub fn gateway(&self, gateway: GatewayIndex) -> Option<GatewayState> {
        self.gateways.get(gateway.0).map(Gateway::view)
    }

    /// Whether what is said of a gateway's devices holds.
    #[must_use]
    pub fn gateway_is_live(&self, gateway: GatewayIndex) -> bool {
        self.gateways.get(gateway.0).is_some_and(|gateway| gateway.live)
    }

    /// Whether a gateway has been heard, or its loss established, since the start.
    #[must_use]
    pub fn gateway_is_decided(&self, gateway: GatewayIndex) -> bool {
        self.gateways.get(gateway.0).is_some_and(Gateway::decided)
    }

    /// A gateway's counts.
    #[must_use]
    pub fn counts(&self, gateway: GatewayIndex) -> Option<&GatewayCounts> {
        self.gateways.get(gateway.0).map(Gateway::counts)
    }

    /// A device's state; `None` for one that has no topics.
    #[must_use]
    pub fn device(&self, gateway: GatewayIndex, device_id: DeviceId) -> Option<DeviceState> {
        let gateway = self.gateways.get(gateway.0)?;
        gateway.devices.get(&device_id).map(|device| gateway.state_of(device_id, device))
    }

    /// The states of a gateway's devices, in order of their IDs.
    pub fn devices(&self, gateway: GatewayIndex) -> impl Iterator<Item = DeviceState> {
        self.gateways.get(gateway.0).into_iter().flat_map(|gateway| {
            let devices = gateway.devices.iter();
            devices.map(|(device_id, device)| gateway.state_of(*device_id, device))
        })
    }

    /// The IDs of a gateway's devices, in order.
    pub fn device_ids(&self, gateway: GatewayIndex) -> impl Iterator<Item = DeviceId> {
        self.gateways.get(gateway.0).into_iter().flat_map(|gateway| gateway.devices.keys().copied())
    }

    /// The measures of those of a gateway's devices whose IDs are in `ids`, in order, all at `now`.
    pub fn measures(
        &mut self,
        gateway: GatewayIndex,
        ids: impl RangeBounds<DeviceId>,
        now: Moment,
    ) -> impl Iterator<Item = DeviceMeasures> {
        let gateway = self.gateways.get_mut(gateway.0);
        gateway.map(|gateway| gateway.measures(ids, now)).into_iter().flatten()
    }
}
