//! Home Assistant's discovery: what it is told of the bridge, each gateway and each device. Pure.
//!
//! The same values are always the same bytes, so that what has not changed can be told.

mod entities;
mod owner;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde_json::{Value, json};

pub use owner::{Subject, is_ours};

use crate::fleet::{DeviceState, DeviceType};
use crate::ids::{DeviceId, GatewayName};
use crate::payload::{BRIDGE_ONLY, Directory, GatewayEntry, to_bytes};

/// Who made these devices, and their gateways' software.
const MANUFACTURER: &str = "Suprema";

/// Which controls Home Assistant is to have: those that are wanted and permitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// A button of the bridge: all retained topics again.
    pub republish: bool,
    /// A button of each device.
    pub disconnect: bool,
    /// A button of each gateway.
    pub disconnect_all: bool,
    /// A switch of each gateway: whether every device may connect by itself.
    pub allow_all: bool,
}

/// What all discovery of one bridge has in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    base: String,
    version: &'static str,
    controls: Controls,
}

/// Where the bridge speaks and listens.
#[derive(Clone, Debug)]
pub struct BridgeTopics {
    /// `online` or `offline`.
    pub state: String,
    /// Its info.
    pub info: String,
    /// Where `republish` is asked for.
    pub republish: String,
}

/// Where a gateway's view is told, and commands to it are taken.
#[derive(Clone, Debug)]
pub struct GatewayTopics {
    /// The bridge's state.
    pub bridge_state: String,
    /// `online` or `offline`.
    pub state: String,
    /// Its info.
    pub info: String,
    /// Where `disconnect_all` is asked for.
    pub disconnect_all: String,
    /// Where `accept_filter/allow_all` is asked for.
    pub allow_all: String,
}

/// Where a device's state and events are told, and commands to its gateway are taken.
#[derive(Clone, Debug)]
pub struct DeviceTopics {
    /// The bridge's state.
    pub bridge_state: String,
    /// Its gateway's state.
    pub gateway_state: String,
    /// Its own state.
    pub state: String,
    /// The filter of its events.
    pub events: String,
    /// Where `disconnect` is asked for.
    pub disconnect: String,
}

/// All of a device's state that its discovery depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape(Option<DeviceType>);

impl Shape {
    /// The shape of this state.
    #[must_use]
    pub fn of(state: &DeviceState) -> Self {
        Self(state.info.map(|info| info.device_type))
    }
}

impl Discovery {
    /// For this base topic, whose levels become words of the IDs.
    #[must_use]
    pub fn new(base_topic: &str, version: &'static str, controls: Controls) -> Self {
        Self { base: base_topic.replace('/', "_"), version, controls }
    }

    /// The bridge's ID: `<base>_<bridge>`.
    #[must_use]
    pub fn bridge_id(&self, bridge: &str) -> String {
        format!("{}_{bridge}", self.base)
    }

    /// A gateway's ID. Its last word is no number, so that it is never a device's.
    #[must_use]
    pub fn gateway_id(&self, gateway: &GatewayName) -> String {
        format!("{}_{gateway}_gateway", self.base)
    }

    /// A device's ID: `<base>_<gw>_<id>`.
    #[must_use]
    pub fn device_id(&self, gateway: &GatewayName, device_id: DeviceId) -> String {
        format!("{}_{gateway}_{device_id}", self.base)
    }

    /// The bridge with its entities.
    #[must_use]
    pub fn bridge(&self, directory: &Directory, topics: &BridgeTopics) -> Bytes {
        let id = self.bridge_id(&directory.bridge);
        let name = match directory.bridge.as_str() {
            BRIDGE_ONLY => "gsdk2mqtt".to_owned(),
            other => format!("gsdk2mqtt {other}"),
        };
        to_bytes(&json!({
            "device": {
                "identifiers": [id],
                "name": name,
                "manufacturer": "gsdk2mqtt",
                "model": "Bridge",
                "sw_version": self.version,
            },
            "origin": self.origin(),
            "components": entities::of_bridge(&id, topics, self.controls),
        }))
    }

    /// A gateway with its entities; they are there as long as the bridge is.
    #[must_use]
    pub fn gateway(
        &self,
        directory: &Directory,
        gateway: &GatewayEntry,
        topics: &GatewayTopics,
    ) -> Bytes {
        let id = self.gateway_id(&gateway.name);
        let mut device = json!({
            "identifiers": [id],
            "name": format!("Gateway {}", gateway.name),
            "manufacturer": MANUFACTURER,
            "model": "G-SDK gateway",
            "via_device": self.bridge_id(&directory.bridge),
        });
        suggest_area(&mut device, gateway.area.as_deref());
        to_bytes(&json!({
            "device": device,
            "origin": self.origin(),
            "availability": [{ "topic": topics.bridge_state }],
            "availability_mode": "all",
            "components": entities::of_gateway(&id, topics, self.controls),
        }))
    }

    /// A device with its entities. They are there as long as its gateway's view is live, whatever
    /// its own state: a door that is down is down, not absent.
    #[must_use]
    pub fn device(
        &self,
        gateway: &GatewayEntry,
        state: &DeviceState,
        topics: &DeviceTopics,
    ) -> Bytes {
        let device_id = state.device_id;
        let id = self.device_id(&gateway.name, device_id);
        let device_type = state.info.map(|info| info.device_type);
        let entry = gateway.devices.get(&device_id);
        let mut device = json!({
            "identifiers": [id],
            "name": gateway.device_name(device_id, device_type),
            "manufacturer": MANUFACTURER,
            "serial_number": device_id.to_string(),
            "via_device": self.gateway_id(&gateway.name),
        });
        if let Some(device_type) = device_type.filter(|known| !known.is_undefined()) {
            device["model"] = Value::from(device_type.product_name());
        }
        suggest_area(&mut device, entry.and_then(|entry| entry.area.as_deref()));
        to_bytes(&json!({
            "device": device,
            "origin": self.origin(),
            "availability": [{ "topic": topics.bridge_state }, { "topic": topics.gateway_state }],
            "availability_mode": "all",
            "components": entities::of_device(&id, device_id, topics, self.controls),
        }))
    }

    fn origin(&self) -> Value {
        json!({
            "name": owner::ORIGIN,
            "sw_version": self.version,
            "support_url": env!("CARGO_PKG_REPOSITORY"),
        })
    }
}

fn suggest_area(device: &mut Value, area: Option<&str>) {
    if let Some(area) = area {
        device["suggested_area"] = Value::from(area);
    }
}
