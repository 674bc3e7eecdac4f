//! The inputs and outputs of the core.

use std::time::Instant;

use super::event::{DeviceEvent, GatewayEvent, GatewayIndex};
use super::listed::Listed;
use super::status::Status;
use crate::ids::{DeviceId, Moment};

/// The configuration of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Milliseconds between two audits.
    pub audit_interval_ms: i64,
    /// Milliseconds after the last sign of life until the devices' states are unknown.
    pub unknown_after_ms: i64,
    /// Milliseconds after which a device that has left the list is forgotten; `None`: never.
    pub forget_after_ms: Option<i64>,
}

/// What happened on a gateway's link, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The subscription is active. The gateway may discard status changes, which lists show.
    LinkUp,
    /// A status change from the stream.
    Status(StreamedStatus),
    /// The device list was requested: it may or may not contain later status changes.
    ListRequested,
    /// The device list, ordered by ID, each device once.
    List(Vec<Listed>),
    /// The device list could not be read; the link is still up.
    ListFailed,
    /// The link is down. Follows each `LinkUp` exactly once.
    LinkDown {
        /// When the last byte came from the gateway.
        last_activity: Instant,
    },
    /// There is no link, and the gateway's master says that it has no connection to the gateway.
    Absent,
}

/// A status change from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamedStatus {
    /// The device.
    pub device_id: DeviceId,
    /// Its new status.
    pub status: Status,
    /// The gateway's clock, in Unix seconds.
    pub timestamp_s: u32,
    /// When it was read from the stream.
    pub received: Instant,
}

/// What has to be done after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Store the event, then publish it, in order.
    Event(DeviceEvent),
    /// Store the event, then publish it, in order with the gateway's other events.
    GatewayEvent(GatewayIndex, GatewayEvent),
    /// The device's retained state has changed.
    StateChanged { gateway: GatewayIndex, device_id: DeviceId },
    /// The device left the gateway's list at `since`, by the wall clock.
    LeftList { gateway: GatewayIndex, device_id: DeviceId, since: Moment },
    /// The device is forgotten: clear its retained topics.
    Forgotten { gateway: GatewayIndex, device_id: DeviceId },
    /// The device's persisted state has changed, but nothing that is published.
    StoreState { gateway: GatewayIndex, device_id: DeviceId },
    /// The gateway's retained state or info has changed.
    GatewayChanged(GatewayIndex),
    /// Read the gateway's list: `ListRequested` follows, then `List` or `ListFailed`.
    RequestList(GatewayIndex),
}
