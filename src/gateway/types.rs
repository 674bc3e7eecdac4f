//! What calls take and give, in our types.
//!
//! May not touch generated types: `convert.rs` turns one into the other.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::fleet::{DeviceType, Mode};
use crate::ids::{DeviceId, Moment};

/// The port of a device (wire, section 3).
pub const DEVICE_PORT_DEFAULT: u16 = 51_211;

/// How the gateway is to reach a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The device's address; IPv4 is all that the wire knows.
    pub ip: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// Whether with SSL.
    pub ssl: bool,
}

/// Which devices that dial the gateway are let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptFilter {
    /// All of them.
    pub allow_all: bool,
    /// These.
    pub device_ids: BTreeSet<DeviceId>,
    /// Addresses; gateways do not support them yet, and they are handed back as read.
    pub ips: Vec<String>,
    /// Subnets; likewise.
    pub subnets: Vec<String>,
}

/// A device that dialled the gateway and was not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Which device.
    pub device_id: DeviceId,
    /// What kind.
    pub device_type: DeviceType,
    /// From where.
    pub ip: Option<Ipv4Addr>,
    /// When it tried last, by the gateway's clock.
    pub last_try: Moment,
}

/// A device that answered a search of the gateway's subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which device.
    pub device_id: DeviceId,
    /// What kind.
    pub device_type: DeviceType,
    /// Its address.
    pub ip: Option<Ipv4Addr>,
    /// Its port, as sent.
    pub port: i32,
    /// Who dials whom.
    pub mode: Mode,
    /// Whether it wants SSL.
    pub ssl: bool,
    /// Whether its address comes from DHCP.
    pub dhcp: bool,
    /// The server it dials; empty where it dials none.
    pub server: String,
}

/// A device and the slaves behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slaves {
    /// The device they hang on.
    pub device_id: DeviceId,
    /// Its slaves on RS-485.
    pub rs485: Vec<DeviceId>,
    /// Its slaves on Wiegand.
    pub wiegand: Vec<DeviceId>,
}

/// What failed on one device of a call for many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceError {
    /// Which device.
    pub device_id: DeviceId,
    /// The gRPC code in snake_case.
    pub code: &'static str,
    /// The gateway's own words.
    pub message: String,
}
