//! Home Assistant discovery: topics and payloads for the bridge, each gateway and each device.
//! Pure.
//!
//! The same values give the same bytes, so that unchanged messages can be recognized.

mod entities;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::fleet::{DeviceDetails, DeviceState, DeviceType, Fleet, GatewayIndex};
use crate::ids::{DeviceId, GatewayName};
use crate::payload::{BRIDGE_NAME_DEFAULT, Directory, GatewayEntry, to_bytes};
use crate::topics::Topics;

/// The manufacturer of the devices, and of their gateways' software.
const MANUFACTURER: &str = "Suprema";
/// The name in Home Assistant's log.
const ORIGIN: &str = "gsdk2mqtt";

/// Which controls Home Assistant shows: those that are configured and permitted.
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

/// The configuration of discovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub controls: Controls,
    /// Whether only devices in the configuration are published.
    pub declared_only: bool,
    /// Whether devices have a sensor of their firmware.
    pub firmware: bool,
}

/// What discovery describes, parents first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Described {
    Bridge,
    Gateway(GatewayIndex),
    Device(GatewayIndex, DeviceId),
}

/// All of a device's state that its discovery depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(Option<DeviceType>, Option<Arc<DeviceDetails>>);

impl Shape {
    /// The shape of this state.
    pub fn of(state: &DeviceState) -> Self {
        Self(state.info.map(|info| info.device_type), state.details.clone())
    }
}

/// The discovery of one bridge.
#[derive(Clone, Debug)]
pub struct Discovery {
    topics: Topics,
    /// What its topics begin with.
    prefix: String,
    version: &'static str,
    options: Options,
}

impl Discovery {
    pub fn new(topics: Topics, prefix: String, version: &'static str, options: Options) -> Self {
        Self { topics, prefix, version, options }
    }

    /// The filter of all devices' discovery, that of others too.
    pub fn filter(&self) -> String {
        self.topic("+")
    }

    fn topic(&self, id: &str) -> String {
        format!("{}/device/{id}/config", self.prefix)
    }

    /// The ID in a topic.
    fn id<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(&self.prefix)?.strip_prefix("/device/")?.strip_suffix("/config")
    }

    /// What the IDs begin with: the base topic, whose levels are words of the ID.
    fn base(&self) -> String {
        self.topics.base().replace('/', "_")
    }

    /// The bridge's ID: `<base>_<bridge>`.
    fn bridge_id(&self, bridge: &str) -> String {
        format!("{}_{bridge}", self.base())
    }

    /// A gateway's ID. Its last word is no number, so that it is never a device's.
    fn gateway_id(&self, gateway: &GatewayName) -> String {
        format!("{}_{gateway}_gateway", self.base())
    }

    /// A device's ID: `<base>_<gw>_<id>`.
    fn device_id(&self, gateway: &GatewayName, device_id: DeviceId) -> String {
        format!("{}_{gateway}_{device_id}", self.base())
    }

    /// The topic of a device's discovery.
    pub fn device_topic(&self, gateway: &GatewayName, device_id: DeviceId) -> String {
        self.topic(&self.device_id(gateway, device_id))
    }

    /// The topic of a gateway's discovery.
    pub fn gateway_topic(&self, gateway: &GatewayName) -> String {
        self.topic(&self.gateway_id(gateway))
    }

    /// Whether the configuration has this subject published.
    pub fn includes(&self, directory: &Directory, subject: Described) -> bool {
        let Described::Device(gateway, device_id) = subject else { return true };
        let declared = || directory.gateway(gateway)?.devices.get(&device_id);
        !self.options.declared_only || declared().is_some()
    }

    /// The topic and the payload of a subject; `None` if it does not exist, or is not published.
    pub fn message(
        &self,
        fleet: &Fleet,
        directory: &Directory,
        subject: Described,
    ) -> Option<(String, Bytes)> {
        if !self.includes(directory, subject) {
            return None;
        }
        let (id, payload) = match subject {
            Described::Bridge => self.bridge(directory),
            Described::Gateway(gateway) => self.gateway(directory, directory.gateway(gateway)?),
            Described::Device(gateway, device_id) => {
                let state = fleet.device(gateway, device_id)?;
                self.device(directory.gateway(gateway)?, &state)
            }
        };
        Some((self.topic(&id), to_bytes(&payload)))
    }

    /// The bridge with its entities.
    fn bridge(&self, directory: &Directory) -> (String, Value) {
        let id = self.bridge_id(&directory.info.bridge);
        let name = match directory.info.bridge.as_str() {
            BRIDGE_NAME_DEFAULT => "gsdk2mqtt".to_owned(),
            other => format!("gsdk2mqtt {other}"),
        };
        let payload = json!({
            "device": {
                "identifiers": [id],
                "name": name,
                "manufacturer": "gsdk2mqtt",
                "model": "Bridge",
                "sw_version": self.version,
            },
            "origin": self.origin(),
            "components":
                entities::of_bridge(&id, directory, &self.topics, self.options.controls),
        });
        (id, payload)
    }

    /// A gateway with its entities; they are available as long as the bridge is.
    fn gateway(&self, directory: &Directory, gateway: &GatewayEntry) -> (String, Value) {
        let id = self.gateway_id(&gateway.name);
        let mut device = json!({
            "identifiers": [id],
            "name": format!("Gateway {}", gateway.name),
            "manufacturer": MANUFACTURER,
            "model": "G-SDK gateway",
            "via_device": self.bridge_id(&directory.info.bridge),
        });
        suggest_area(&mut device, gateway.area.as_deref());
        let payload = json!({
            "device": device,
            "origin": self.origin(),
            "availability": [{ "topic": self.topics.bridge_state() }],
            "availability_mode": "all",
            "components":
                entities::of_gateway(&id, &gateway.name, &self.topics, self.options.controls),
        });
        (id, payload)
    }

    /// A device with its entities. They are available as long as its gateway is online, whatever
    /// its own state: a door that is down is down, not absent.
    fn device(&self, gateway: &GatewayEntry, state: &DeviceState) -> (String, Value) {
        let device_id = state.device_id;
        let id = self.device_id(&gateway.name, device_id);
        let device_type = state.info.map(|info| info.device_type);
        let mut device = json!({
            "identifiers": [id],
            "name": gateway.device_name(device_id, device_type),
            "manufacturer": MANUFACTURER,
            "serial_number": device_id.to_string(),
            "via_device": self.gateway_id(&gateway.name),
        });
        let details = state.details.as_deref();
        let product = device_type.filter(|known| !known.is_undefined());
        let product = product.map(|known| known.product_name());
        if let Some(model) = details.and_then(|details| details.model.clone()).or(product) {
            device["model"] = Value::from(model);
        }
        if let Some(firmware) = details.and_then(|details| details.firmware.as_deref()) {
            device["sw_version"] = Value::from(firmware);
        }
        suggest_area(&mut device, gateway.area(device_id));
        let (topics, name) = (&self.topics, &gateway.name);
        let payload = json!({
            "device": device,
            "origin": self.origin(),
            "availability":
                [{ "topic": topics.bridge_state() }, { "topic": topics.gateway_state(name) }],
            "availability_mode": "all",
            "components": entities::of_device(&id, name, device_id, topics, self.options),
        });
        (id, payload)
    }

    fn origin(&self) -> Value {
        json!({
            "name": ORIGIN,
            "sw_version": self.version,
            "support_url": env!("CARGO_PKG_REPOSITORY"),
        })
    }

    /// Whether a topic is the discovery of this gateway or of one of its devices.
    pub fn is_of(&self, gateway: &GatewayName, topic: &str) -> bool {
        let Some(id) = self.id(topic) else { return false };
        let device = || {
            let rest = id.strip_prefix(&self.base())?.strip_prefix('_')?;
            rest.strip_prefix(gateway.as_str())?.strip_prefix('_')?.parse::<DeviceId>().ok()
        };
        id == self.gateway_id(gateway) || device().is_some()
    }

    /// What a topic describes; `None` for what the configuration does not have.
    pub fn subject(&self, directory: &Directory, topic: &str) -> Option<Described> {
        let rest = self.id(topic)?.strip_prefix(&self.base())?.strip_prefix('_')?;
        if rest == directory.info.bridge {
            return Some(Described::Bridge);
        }
        let (name, last) = rest.rsplit_once('_')?;
        let gateway = directory.find_str(name)?;
        if last == "gateway" {
            return Some(Described::Gateway(gateway));
        }
        let device_id = last.parse::<DeviceId>().ok()?;
        // With leading zeros it is no topic of ours.
        let is_ours = device_id.to_string() == last;
        is_ours.then_some(Described::Device(gateway, device_id))
    }

    /// Whether a message was published by this bridge, in any run: its topic is one of discovery,
    /// and the payload names the bridge.
    pub fn is_ours(&self, directory: &Directory, topic: &str, payload: &[u8]) -> bool {
        if self.id(topic).is_none() {
            return false;
        }
        let Ok(published) = serde_json::from_slice::<Value>(payload) else { return false };
        let (state, id) = (self.topics.bridge_state(), self.bridge_id(&directory.info.bridge));
        let identifiers = published["device"]["identifiers"].as_array();
        published["origin"]["name"] == ORIGIN
            && (published["availability"][0]["topic"] == *state
                || identifiers.is_some_and(|all| all.contains(&Value::from(id))))
    }
}

fn suggest_area(device: &mut Value, area: Option<&str>) {
    if let Some(area) = area {
        device["suggested_area"] = Value::from(area);
    }
}
