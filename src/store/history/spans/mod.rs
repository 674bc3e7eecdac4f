//! Spans: when each device was observed to be connected, disconnected or absent, and when it was
//! not observed.
//!
//! [`Tracker`] turns observations into rows without a database; `table` reads and writes them.

mod gateway;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;
mod tracker;

pub use snapshot::{RowKey, Selection, Snapshot, Span, Timeline};
pub(crate) use table::{SpanTables, TABLES};
pub(crate) use tracker::Tracker;

use crate::fleet::DeviceType;
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::GatewayEntry;

/// What a device is in one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum SpanState {
    /// It was observed to be connected.
    Connected,
    /// It was observed not to be connected, and expected to be.
    Disconnected,
    /// It was not expected to be connected. Lasts until the device is expected again, whether that
    /// time is observed or not.
    Absent,
    /// The device alone was not observed: its status is one that this version does not know, or it
    /// changed while the link to its gateway was broken.
    Unknown,
}

/// Why a time was not observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum UnobservedReason {
    /// The bridge did not run, or had not read the gateway's list since.
    BridgeStopped,
    /// The gateway was lost.
    GatewayLost,
    /// The wall clock was implausible, was set, or the machine was suspended.
    ClockUnset,
    /// The database could not be written.
    StoreFailed,
    /// The gateway was not in the configuration: it and its devices were absent.
    NotConfigured,
}

/// A device that was observed. Times are by the bridge's wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedDevice {
    /// Its ID.
    pub device_id: DeviceId,
    /// Its type, for its name.
    pub device_type: Option<DeviceType>,
    /// What it is now.
    pub state: SpanState,
    /// Up to when it was observed before.
    pub until: Moment,
    /// Since when it is observed as it is now.
    pub from: Moment,
}

/// What the bridge has observed. Times are by its wall clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The gateways that there are.
    Gateways {
        /// All of them.
        entries: Vec<GatewayEntry>,
        /// Since when.
        at: Moment,
    },
    /// A device changed.
    Device {
        /// Its gateway.
        gateway: GatewayName,
        device: ObservedDevice,
    },
    /// The states of a gateway's devices are known from here on.
    GatewayOnline {
        /// Its name.
        gateway: GatewayName,
        /// When its list was read.
        from: Moment,
    },
    /// The states of a gateway's devices are unknown.
    GatewayLost {
        /// Its name.
        gateway: GatewayName,
        /// Up to when they were observed.
        until: Moment,
        /// Why they are not.
        reason: UnobservedReason,
    },
    /// The wall clock was set, or the machine was suspended.
    ClockSet {
        /// What it showed before.
        before: Moment,
        /// What it shows now.
        after: Moment,
    },
}

/// A row to be written. A row with the same key is replaced; one that ends where it begins is
/// removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// Every open row ends, but those of absence.
    EndAll {
        at: Moment,
    },
    Span {
        gateway: GatewayName,
        device_id: DeviceId,
        state: SpanState,
        from: Moment,
        to: Option<Moment>,
    },
    /// Of a gateway, or of the bridge.
    Unobserved {
        gateway: Option<GatewayName>,
        reason: UnobservedReason,
        from: Moment,
        to: Option<Moment>,
    },
    Gateway {
        gateway: GatewayName,
        first_seen_at: Moment,
    },
    Device {
        gateway: GatewayName,
        device_id: DeviceId,
        name: String,
        /// Whether it replaces an earlier name: the type is known, or the name is configured.
        is_final: bool,
        first_seen_at: Moment,
    },
}

/// What the database has, for the tracker to continue.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredSpans {
    /// The last proven instant.
    pub(crate) proven_at: Option<Moment>,
    /// The gateways, and since when they are not configured.
    pub(crate) gateways: Vec<(GatewayName, Option<Moment>)>,
    /// The devices, and since when they are absent.
    pub(crate) devices: Vec<(GatewayName, DeviceId, Option<Moment>)>,
}
