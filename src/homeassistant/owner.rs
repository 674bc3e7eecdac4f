//! Whose discovery a retained message is, and of whom it speaks.

use serde::Deserialize;

use super::Discovery;
use crate::fleet::GatewayIndex;
use crate::ids::{DeviceId, GatewayName};
use crate::payload::Directory;

/// What Home Assistant's log calls us.
pub(crate) const ORIGIN: &str = "gsdk2mqtt";

/// Of whom discovery speaks, parents first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The bridge.
    Bridge,
    /// A gateway.
    Gateway(GatewayIndex),
    /// A device of a gateway.
    Device(GatewayIndex, DeviceId),
}

/// What of a discovery payload says whose it is.
#[derive(Debug, Deserialize)]
struct Whose {
    origin: Origin,
    #[serde(default)]
    availability: Vec<Availability>,
    device: Device,
}

#[derive(Debug, Deserialize)]
struct Origin {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Availability {
    topic: String,
}

#[derive(Debug, Deserialize)]
struct Device {
    identifiers: Vec<String>,
}

/// Whether this payload was published by the bridge whose state is on this topic and whose ID is
/// this, in whichever run.
#[must_use]
pub fn is_ours(payload: &[u8], bridge_state: &str, bridge_id: &str) -> bool {
    let Ok(whose) = serde_json::from_slice::<Whose>(payload) else { return false };
    let first = whose.availability.first();
    whose.origin.name == ORIGIN
        && (first.is_some_and(|first| first.topic == bridge_state)
            || whose.device.identifiers.iter().any(|id| id == bridge_id))
}

impl Discovery {
    /// Whether the topic with this ID is of this gateway or of one of its devices.
    #[must_use]
    pub fn is_of(&self, gateway: &GatewayName, id: &str) -> bool {
        let device = || {
            let rest = id.strip_prefix(&self.base)?.strip_prefix('_')?;
            rest.strip_prefix(gateway.as_str())?.strip_prefix('_')?.parse::<DeviceId>().ok()
        };
        id == self.gateway_id(gateway) || device().is_some()
    }

    /// Of whom the topic with this ID speaks; `None` for what the configuration does not have.
    #[must_use]
    pub fn subject(&self, directory: &Directory, id: &str) -> Option<Subject> {
        let rest = id.strip_prefix(&self.base)?.strip_prefix('_')?;
        if rest == directory.bridge {
            return Some(Subject::Bridge);
        }
        let (name, last) = rest.rsplit_once('_')?;
        let at = directory.gateways.iter().position(|entry| entry.name.as_str() == name)?;
        match last {
            "gateway" => Some(Subject::Gateway(GatewayIndex(at))),
            // Only as we write it: with leading zeros it is nobody's topic of ours.
            _ => {
                let device_id = last.parse::<DeviceId>().ok()?;
                (device_id.to_string() == last)
                    .then_some(Subject::Device(GatewayIndex(at), device_id))
            }
        }
    }
}
