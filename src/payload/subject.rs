//! The subject of an event. Events of one subject keep their order; different subjects have none.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, GatewayName};

/// The bridge, a gateway, or a device of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// The bridge itself.
    Bridge,
    /// A gateway.
    Gateway(GatewayName),
    /// A device.
    Device(GatewayName, DeviceId),
}

impl Subject {
    /// The gateway, if it is about one or its device.
    pub const fn gateway(&self) -> Option<&GatewayName> {
        match self {
            Self::Bridge => None,
            Self::Gateway(gateway) | Self::Device(gateway, _) => Some(gateway),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("the bridge"),
            Self::Gateway(gateway) => write!(f, "gateway {gateway}"),
            Self::Device(gateway, device_id) => {
                write!(f, "device {device_id} of gateway {gateway}")
            }
        }
    }
}
