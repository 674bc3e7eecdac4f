//! What happened to a device or a gateway: the events that leave the core.
//!
//! May not touch JSON or topics: `payload` writes events down.

use std::collections::BTreeSet;
use std::fmt;

use super::GatewayIndex;
use super::listed::DeviceType;
use super::status::Status;
use crate::ids::{DeviceId, Moment};

/// What kind of change an event tells (contract, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// All types, in the order of the contract.
    pub const ALL: [Self; 6] = [
        Self::Connected,
        Self::Disconnected,
        Self::Connecting,
        Self::ConnectFailed,
        Self::Refused,
        Self::StatusChanged,
    ];

    /// The type of a change: it depends on nothing but the two statuses.
    #[must_use]
    pub fn of(previous: Option<Status>, status: Status) -> Self {
        let was_connected = previous.and_then(Status::connected) == Some(true);
        match (was_connected, status) {
            (false, Status::TcpConnected | Status::TlsConnected) => Self::Connected,
            (true, Status::TcpConnected | Status::TlsConnected) => Self::StatusChanged,
            (_, Status::Unknown(_)) => Self::StatusChanged,
            (
                true,
                Status::Disconnected
                | Status::TryToConnect
                | Status::TcpCannotConnect
                | Status::TlsCannotConnect
                | Status::TcpNotAllowed
                | Status::TlsNotAllowed,
            ) => Self::Disconnected,
            (false, Status::Disconnected) => Self::StatusChanged,
            (false, Status::TryToConnect) => Self::Connecting,
            (false, Status::TcpCannotConnect | Status::TlsCannotConnect) => Self::ConnectFailed,
            (false, Status::TcpNotAllowed | Status::TlsNotAllowed) => Self::Refused,
        }
    }

    /// Its name, as in topics and payloads.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::ConnectFailed => "connect_failed",
            Self::Refused => "refused",
            Self::StatusChanged => "status_changed",
        }
    }
}

/// How a change was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The stream told it.
    Stream,
    /// Comparing with the gateway's list at a new link.
    Resync,
    /// The periodic comparison with the gateway's list.
    Audit,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "stream",
            Self::Resync => "resync",
            Self::Audit => "audit",
        })
    }
}

/// One link of a device's chain: `seq` and `previous` make it unbroken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEvent {
    /// Whose list the device is in.
    pub gateway: GatewayIndex,
    /// Which device.
    pub device_id: DeviceId,
    /// What kind of device, where a list has told.
    pub device_type: Option<DeviceType>,
    /// What kind of change.
    pub event_type: EventType,
    /// One more than the device's event before, in one chain.
    pub seq: u64,
    /// The status from now on.
    pub status: Status,
    /// The status of the event before; `None` when nothing was known.
    pub previous: Option<Status>,
    /// The gateway's clock as sent (stream) or the bridge's when the list arrived (otherwise).
    pub timestamp: Moment,
    /// When the bridge read it, by its own clock.
    pub received_at: Moment,
    /// Milliseconds that the previous `connected` lasted; `None` where a part was not observed.
    pub duration_ms: Option<i64>,
    /// How it was found.
    pub source: Source,
}

/// What happened to the view of a gateway (contract, section 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayEvent {
    /// Its list has been read: the view is live.
    Reachable,
    /// No sign of life for `unknown_after`: the view is lost.
    Unreachable,
    /// An audit found this many differences that the stream had not told.
    Corrected {
        /// How many devices.
        count: u64,
    },
    /// What is wanted and was missing has been added to it. Told by who adds it, not by the core.
    Restored {
        /// `async_connections`, `accept_filter` or `slaves`.
        what: &'static str,
        /// How many entries.
        count: u64,
        /// Of which devices, where they are of devices.
        device_ids: BTreeSet<DeviceId>,
    },
    /// What is wanted was taken away by another client. Told by who compares, not by the core.
    Withdrawn {
        /// As in `Restored`.
        what: &'static str,
        /// How many entries.
        count: u64,
        /// Of which devices, where they are of devices.
        device_ids: BTreeSet<DeviceId>,
    },
    /// A status of a device that is neither listed nor configured.
    Stranger {
        /// Which device.
        device_id: DeviceId,
        /// What was said of it.
        status: Status,
    },
}

impl GatewayEvent {
    /// Its name, as in topics and payloads.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Reachable => "reachable",
            Self::Unreachable => "unreachable",
            Self::Corrected { .. } => "corrected",
            Self::Restored { .. } => "restored",
            Self::Withdrawn { .. } => "withdrawn",
            Self::Stranger { .. } => "stranger",
        }
    }
}
