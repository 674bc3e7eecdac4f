//! The read-only view of the core: what is true now of each gateway and device.
//!
//! May not change anything. What the view says of a device holds only while its gateway's view is
//! live; otherwise `connected` is unknown and `last_known` keeps what was.

use std::ops::RangeBounds;

use super::device::{Counts, Device};
use super::gateway::{Gateway, GatewayCounts, LinkState};
use super::listed::DeviceInfo;
use super::seconds::Observed;
use super::status::Status;
use crate::ids::{DeviceId, Moment};

/// A device's state (contract, section 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceState {
    /// Which device.
    pub device_id: DeviceId,
    /// `None` while nobody can know.
    pub connected: Option<bool>,
    /// `None` while its gateway's view is not live.
    pub status: Option<Status>,
    /// When the present `connected` began; `None` only while that is unknown.
    pub since: Option<Moment>,
    /// Whether that beginning was seen.
    pub since_exact: bool,
    /// What was known last, while the gateway's view is not live.
    pub last_known: Option<LastKnown>,
    /// The last event's number; 0 before the first.
    pub seq: u64,
    /// What the list last told of it.
    pub info: Option<DeviceInfo>,
    /// Whether it is in the gateway's list.
    pub managed: bool,
    /// Whether it should be connected: it is listed, declared, or kept by a command.
    pub expected: bool,
    /// Whether it is given to the gateway again because of a command.
    pub kept: bool,
    /// When a field last changed.
    pub updated_at: Moment,
}

/// What was known of a device before its gateway was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastKnown {
    /// Whether it was connected.
    pub connected: bool,
    /// Its status.
    pub status: Status,
    /// When that value of `connected` began.
    pub since: Moment,
}

/// A gateway's state (contract, section 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatewayState {
    /// How the bridge stands to it.
    pub state: LinkState,
    /// When that began.
    pub since: Moment,
    /// Whether its devices' states hold.
    pub live: bool,
    /// Whether it has been heard or its loss established since the bridge started.
    pub decided: bool,
    /// How many devices are connected.
    pub connected: usize,
    /// How many are expected and not connected.
    pub disconnected: usize,
    /// How many are expected and cannot be known.
    pub unknown: usize,
    /// The gateway's clock minus the bridge's, in milliseconds, once there is an estimate.
    pub clock_skew_ms: Option<i64>,
    /// When its list was last read.
    pub last_list_at: Option<Moment>,
    /// How often it is to be read, in milliseconds.
    pub audit_interval_ms: i64,
}

impl GatewayState {
    /// How many devices are counted: those that are expected or connected.
    #[must_use]
    pub const fn devices(&self) -> usize {
        self.connected + self.disconnected + self.unknown
    }
}

/// What metrics and status page show of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceMeasures {
    /// Which device.
    pub device_id: DeviceId,
    /// `None` while nobody can know.
    pub connected: Option<bool>,
    /// `None` while its gateway's view is not live.
    pub status: Option<Status>,
    /// The last known status; of an unknown device what it was before.
    pub last_status: Option<Status>,
    /// When the last known `connected` began.
    pub since: Option<Moment>,
    /// Whether that beginning was seen.
    pub since_exact: bool,
    /// Whether it is in the gateway's list.
    pub managed: bool,
    /// Whether it should be connected.
    pub expected: bool,
    /// What the list last told of it.
    pub info: Option<DeviceInfo>,
    /// Events and failures.
    pub counts: Counts,
    /// Seconds observed and connected, read at one instant.
    pub observed: Observed,
}

impl Device {
    fn state(&self, device_id: DeviceId, live: bool) -> DeviceState {
        let connected = self.connected().filter(|_| live);
        let known = self.known;
        DeviceState {
            device_id,
            connected,
            status: self.status.filter(|_| live),
            since: connected.and(known).map(|known| known.since),
            since_exact: connected.is_some() && known.is_some_and(|known| known.exact),
            last_known: known.filter(|_| !live).map(|known| LastKnown {
                connected: known.connected,
                status: known.status,
                since: known.since,
            }),
            seq: self.seq,
            info: self.info,
            managed: self.managed,
            expected: self.expected(),
            kept: self.kept,
            updated_at: self.updated_at,
        }
    }
}

impl Gateway {
    pub(super) fn state_of(&self, device_id: DeviceId, device: &Device) -> DeviceState {
        device.state(device_id, self.live)
    }

    pub(super) fn view(&self) -> GatewayState {
        let (mut connected, mut disconnected, mut unknown) = (0, 0, 0);
        for device in self.devices.values() {
            match device.connected().filter(|_| self.live) {
                Some(true) => connected += 1,
                Some(false) => disconnected += usize::from(device.expected()),
                None => unknown += usize::from(device.expected()),
            }
        }
        GatewayState {
            state: self.state,
            since: self.state_since,
            live: self.live,
            decided: self.decided(),
            connected,
            disconnected,
            unknown,
            clock_skew_ms: self.skew.estimate_ms().map(|skew| skew - self.ahead_ms),
            last_list_at: self.last_list_at,
            audit_interval_ms: self.settings.audit_interval_ms,
        }
    }

    /// What the wall's clock shows at this moment of the core's.
    pub(super) const fn shown(&self, at: Moment) -> Moment {
        at.plus(self.ahead_ms)
    }

    pub(super) fn counts(&self) -> &GatewayCounts {
        &self.counts
    }

    pub(super) fn measures(
        &mut self,
        ids: impl RangeBounds<DeviceId>,
        now: Moment,
    ) -> impl Iterator<Item = DeviceMeasures> {
        let until = self.frozen_at.unwrap_or(now);
        let live = self.live;
        self.devices.range_mut(ids).map(move |(&device_id, device)| {
            let connected = device.connected();
            DeviceMeasures {
                device_id,
                connected: connected.filter(|_| live),
                status: device.status.filter(|_| live),
                last_status: device.known.map(|known| known.status),
                since: device.known.map(|known| known.since),
                since_exact: device.known.is_some_and(|known| known.exact),
                managed: device.managed,
                expected: device.expected(),
                info: device.info,
                counts: device.counts,
                observed: device.seconds.show(until, connected),
            }
        })
    }
}
