//! Parameters and results of the typed calls.

use std::net::Ipv4Addr;

use serde::Serialize;
use tonic::Code;

use crate::fleet::{DeviceType, Mode};
use crate::ids::{DeviceId, Moment};

/// A device that dialed the gateway and was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PendingDevice {
    pub device_id: DeviceId,
    #[serde(rename = "type")]
    pub device_type: DeviceType,
    pub ip: Option<Ipv4Addr>,
    /// By the gateway's clock.
    pub last_try: Moment,
}

/// A device that answered a search of the gateway's subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundDevice {
    pub device_id: DeviceId,
    #[serde(rename = "type")]
    pub device_type: DeviceType,
    pub ip: Option<Ipv4Addr>,
    /// As sent.
    pub port: i32,
    pub mode: Mode,
    pub ssl: bool,
    pub dhcp: bool,
    /// The server that the device dials; empty if none.
    pub server: String,
}

/// A gateway of a master, as the master lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGateway {
    pub id: String,
    pub is_connected: bool,
    pub device_ids: Vec<DeviceId>,
}

/// Why a call for many devices failed for one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceError {
    pub device_id: DeviceId,
    pub code: Code,
    /// The gateway's message.
    pub message: String,
}
