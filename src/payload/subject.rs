//! Whom an event is about. Events of one subject keep their order; different subjects have none.
//!
//! May not know topics: `mqtt/topics.rs` does.

use std::fmt;

use crate::ids::{DeviceId, GatewayName};

/// The bridge, a gateway, or a device of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The bridge itself.
    Bridge,
    /// A gateway.
    Gateway(GatewayName),
    /// A device.
    Device(GatewayName, DeviceId),
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
