//! The current state in the core as plain data: states of gateways and devices, counters.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::event::EventType;
use super::listed::DeviceInfo;
use super::remembered::{DeviceDetails, Known};
use super::status::Status;
use super::uptime::Observed;
use crate::ids::{DeviceId, Moment};

/// Unknown status codes that are counted one by one; further ones share a counter.
const UNKNOWN_CODES_MAX: usize = 32;

/// A device's state.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceState {
    pub device_id: DeviceId,
    /// `None` if it is unknown.
    pub connected: Option<bool>,
    /// `None` if its gateway's view is not live.
    pub status: Option<Status>,
    /// When the present `connected` began; `None` only if that is unknown.
    pub since: Option<Moment>,
    /// Whether that beginning was seen.
    pub since_exact: bool,
    /// The last known state, if its gateway's view is not live.
    pub last_known: Option<Known>,
    /// The last event's number; 0 before the first.
    pub seq: u64,
    /// Its last row in the list.
    pub info: Option<DeviceInfo>,
    /// Its details.
    pub details: Option<Arc<DeviceDetails>>,
    /// Whether it is in the gateway's list.
    pub managed: bool,
    /// Whether it should be connected: it is listed, declared, or kept by a command.
    pub expected: bool,
    /// Whether it is provisioned again because of a command.
    pub kept: bool,
    /// When a field last changed.
    pub updated_at: Moment,
}

/// The state of a gateway's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum LinkState {
    /// No link since the start, and not lost yet.
    Connecting,
    /// The stream is open, the list is not read yet.
    Syncing,
    /// Its devices' states are known.
    Online,
    /// No sign of life for `unknown_after`.
    Lost,
}

impl LinkState {
    /// The name in `info`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// A gateway's state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatewayState {
    pub state: LinkState,
    /// When that state began.
    pub since: Moment,
    /// Whether its devices' states are known.
    pub live: bool,
    /// Devices that are connected.
    pub connected: usize,
    /// Devices that are expected and not connected.
    pub disconnected: usize,
    /// Devices that are expected and unknown.
    pub unknown: usize,
    /// The gateway's clock minus the bridge's, in milliseconds, once there is an estimate.
    pub clock_skew_ms: Option<i64>,
    pub last_list_at: Option<Moment>,
    pub audit_interval_ms: i64,
}

impl GatewayState {
    /// The devices that are expected or connected.
    pub const fn devices(&self) -> usize {
        self.connected + self.disconnected + self.unknown
    }
}

/// A device's state, with what is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceMeasures {
    pub state: DeviceState,
    /// The last known value of `connected`: the present one, if it is known.
    pub known: Option<Known>,
    pub counts: Counts,
    pub observed: Observed,
}

/// Counters of one device since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events `connected`.
    pub connects: u64,
    /// Events `disconnected`.
    pub disconnects: u64,
    /// Statuses `..._cannot_connect` and `..._not_allowed`, including repeats.
    pub connect_failures: u64,
}

impl Counts {
    pub(crate) fn count(&mut self, event_type: EventType, status: Status) {
        self.connects += u64::from(event_type == EventType::Connected);
        self.disconnects += u64::from(event_type == EventType::Disconnected);
        self.count_failure(status);
    }

    /// Counts a failed attempt to connect, also a repeated one.
    pub(crate) fn count_failure(&mut self, status: Status) {
        self.connect_failures += u64::from(status.is_failure());
    }
}

/// Counters of one gateway since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayCounts {
    /// Links that came up.
    pub stream_starts: u64,
    /// Changes that became events, by status.
    pub status_changes: BTreeMap<Status, u64>,
    /// Changes to unknown statuses beyond the first few codes.
    pub status_changes_other: u64,
    /// Repeated statuses from the stream.
    pub repeated: u64,
    /// Differences that audits found.
    pub corrections: u64,
    /// Statuses of devices neither listed nor configured.
    pub strangers: u64,
}

impl GatewayCounts {
    pub(crate) fn count_change(&mut self, status: Status) {
        let has_room = !matches!(status, Status::Unknown(_))
            || self.status_changes.len() < Status::KNOWN.len() + UNKNOWN_CODES_MAX;
        match self.status_changes.get_mut(&status) {
            Some(count) => *count += 1,
            None if has_room => _ = self.status_changes.insert(status, 1),
            None => self.status_changes_other += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_status_is_counted_by_name_after_many_unknown_ones() {
        let mut counts = GatewayCounts::default();
        (1_000..1_100).for_each(|code| counts.count_change(Status::Unknown(code)));
        let other = counts.status_changes_other;
        assert!(other > 0);
        Status::KNOWN.into_iter().for_each(|status| counts.count_change(status));
        assert!(Status::KNOWN.iter().all(|status| counts.status_changes[status] == 1));
        assert_eq!(counts.status_changes_other, other);
    }
}
