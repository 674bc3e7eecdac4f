//! Items that clients add to a gateway and that it loses at a restart, and how commands change
//! them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::ids::DeviceId;

/// The address at which the gateway reaches a device. The G-SDK has only IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub ip: Ipv4Addr,
    pub port: u16,
    pub ssl: bool,
}

/// Which devices may dial the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AcceptFilter {
    pub allow_all: bool,
    pub device_ids: BTreeSet<DeviceId>,
    /// Not supported by gateways yet; sent back as read.
    pub ips: Vec<String>,
    /// Likewise.
    pub subnets: Vec<String>,
}

/// The slaves of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slaves {
    pub device_id: DeviceId,
    pub rs485: Vec<DeviceId>,
    pub wiegand: Vec<DeviceId>,
}

impl Slaves {
    pub const fn is_empty(&self) -> bool {
        self.rs485.is_empty() && self.wiegand.is_empty()
    }
}

/// What a command changed at its gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Registered(Vec<(DeviceId, Target)>),
    Unregistered(BTreeSet<DeviceId>),
    /// Added to the accept filter.
    Accepted(BTreeSet<DeviceId>),
    /// Removed from the accept filter.
    Unaccepted(BTreeSet<DeviceId>),
    AllowAll(bool),
    /// The accept filter was replaced.
    Filter(AcceptFilter),
    Slaves(Vec<Slaves>),
    /// It may have been made: what it removes counts as removed, what it adds does not count.
    Attempted(Box<Self>),
}

impl Effect {
    #[must_use]
    pub fn attempted(self) -> Self {
        Self::Attempted(Box::new(self))
    }

    /// Whether it has to be provisioned again after a restart of the gateway.
    pub fn adds(&self) -> bool {
        match self {
            Self::Registered(devices) => !devices.is_empty(),
            Self::Accepted(ids) => !ids.is_empty(),
            Self::AllowAll(enabled) => *enabled,
            Self::Filter(filter) => filter.allow_all || !filter.device_ids.is_empty(),
            Self::Slaves(slaves) => !slaves.iter().all(Slaves::is_empty),
            Self::Unregistered(_) | Self::Unaccepted(_) | Self::Attempted(_) => false,
        }
    }
}
