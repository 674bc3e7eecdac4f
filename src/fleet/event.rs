//! The events that leave the core: changes of a device's status and of a gateway's view.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::Serialize;

use super::listed::DeviceType;
use super::status::Status;
use crate::ids::{DeviceId, Moment};

/// A gateway's place in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayIndex(pub usize);

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum EventType {
    /// To a connected status from anything else.
    Connected,
    /// From connected to any other known status.
    Disconnected,
    /// To `try_to_connect` from a status that was not connected.
    Connecting,
    /// To `..._cannot_connect` from a status that was not connected.
    ConnectFailed,
    /// To `..._not_allowed` from a status that was not connected.
    Refused,
    /// Any other change.
    StatusChanged,
}

impl EventType {
    /// The type of a change; it depends on the two statuses only.
    pub fn of(previous: Option<Status>, status: Status) -> Self {
        let was_connected = previous.and_then(Status::connected) == Some(true);
        match status {
            Status::TcpConnected | Status::TlsConnected if !was_connected => Self::Connected,
            Status::TcpConnected | Status::TlsConnected | Status::Unknown(_) => Self::StatusChanged,
            _ if was_connected => Self::Disconnected,
            Status::Disconnected => Self::StatusChanged,
            Status::TryToConnect => Self::Connecting,
            Status::TcpCannotConnect | Status::TlsCannotConnect => Self::ConnectFailed,
            Status::TcpNotAllowed | Status::TlsNotAllowed => Self::Refused,
        }
    }

    /// The name in topics and payloads.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// How a change was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Source {
    /// By the status stream.
    Stream,
    /// By the first list of a link.
    Resync,
    /// By a later list.
    Audit,
}

/// A status of a device, and how it was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusReport {
    pub(crate) status: Status,
    pub(crate) source: Source,
    /// The gateway's clock for the stream, the wall clock for a list.
    pub(crate) timestamp: Moment,
    /// When the bridge read it, by the core's `now`.
    pub(crate) at: Moment,
    pub(crate) read_at: Option<Instant>,
}

/// A change of a device's status. `seq` and `previous` chain a device's events without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEvent {
    pub gateway: GatewayIndex,
    pub device_id: DeviceId,
    /// `None` until a list has shown it.
    pub device_type: Option<DeviceType>,
    pub event_type: EventType,
    /// One more than that of the device's previous event in the same chain.
    pub seq: u64,
    /// The new status.
    pub status: Status,
    /// The status of the previous event; `None` if nothing was known.
    pub previous: Option<Status>,
    /// The gateway's clock as sent (stream), or the wall clock when the list arrived.
    pub timestamp: Moment,
    /// When the bridge read it, by the wall clock.
    pub received_at: Moment,
    /// Up to when the previous status was observed, by the wall clock: earlier than `received_at`
    /// if the link broke in between.
    pub observed_until: Moment,
    /// How long the previous `connected` lasted, in milliseconds; `None` if a part of that was not
    /// observed.
    pub duration_ms: Option<i64>,
    pub source: Source,
    /// When it was read from the stream; `None` for a change that a list has shown.
    pub read_at: Option<Instant>,
}

/// Items of one kind that a gateway has again, or lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChangedItems {
    /// `async_connections`, `accept_filter` or `slaves`.
    pub what: &'static str,
    pub count: u64,
    /// The devices of those items that are of one; the first few of many.
    pub device_ids: BTreeSet<DeviceId>,
}

/// An event of a gateway, with the fields that are published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr, strum::VariantNames)]
#[serde(untagged)]
#[strum(serialize_all = "snake_case")]
pub enum GatewayEvent {
    /// The first list of a link was read: its devices' states are known.
    Reachable,
    /// No sign of life for `unknown_after`: its devices' states are unknown.
    Unreachable,
    /// Audits found differences that the stream had not reported.
    Corrected { count: u64 },
    /// Missing items were provisioned. Made by `bridge/provisioner.rs`.
    Restored(ChangedItems),
    /// Another client removed desired items. Made by `bridge/provisioner.rs`.
    Withdrawn(ChangedItems),
    /// A status of a device that is neither listed nor configured.
    Stranger { device_id: DeviceId, status: Status },
}

impl GatewayEvent {
    /// The name in topics and payloads.
    pub fn name(&self) -> &'static str {
        self.into()
    }
}
