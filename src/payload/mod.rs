//! What the world reads: the JSON of states, events and infos (contract, sections 1 to 3).
//!
//! May not touch topics, brokers or gateways, nor decide anything: it writes down what the core
//! says, with the names from the configuration. The same value is always the same bytes.

mod bridge;
mod device;
mod gateway;
mod health;
mod subject;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

pub use bridge::{BridgeEvent, BridgeEventKind, BridgeInfo, Intent, OutboxInfo};
pub use device::{DeviceEventPayload, DeviceStatePayload, LastKnownPayload};
pub use gateway::{AcceptFilterInfo, GatewayEventPayload, GatewayInfo, LastError, LinkFacts};
pub use health::{Degraded, DegradedReason, Health};
pub use subject::Subject;
pub use time::rfc3339;

use crate::fleet::{DeviceState, DeviceType, GatewayIndex};
use crate::ids::{DeviceId, GatewayName};

/// The default of `bridge_name`.
pub const BRIDGE_ONLY: &str = "bridge";

/// The names that go into payloads: the bridge's, the gateways', the devices'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// `bridge_name` of the configuration.
    pub bridge: String,
    /// A random ID of this run of the process.
    pub instance_id: String,
    /// The chain that events are numbered in.
    pub chain: String,
    /// In the order of [`GatewayIndex`].
    pub gateways: Vec<GatewayEntry>,
}

/// What the configuration says of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayEntry {
    /// Its name.
    pub name: GatewayName,
    /// Host and port, as configured.
    pub address: String,
    /// Where it is, for people.
    pub area: Option<String>,
    /// Its declared devices.
    pub devices: Arc<BTreeMap<DeviceId, DeviceEntry>>,
}

/// What the configuration says of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceEntry {
    /// A name for people.
    pub name: Option<String>,
    /// Where it is, for people.
    pub area: Option<String>,
    /// Whether the configuration declares more than to observe it.
    pub kept: bool,
}

impl Directory {
    /// The entry of a gateway; `None` for an index that was never given out.
    #[must_use]
    pub fn gateway(&self, gateway: GatewayIndex) -> Option<&GatewayEntry> {
        self.gateways.get(gateway.0)
    }
}

impl GatewayEntry {
    /// The device's name: the configured one, else `<Type> <id>`.
    #[must_use]
    pub fn device_name(&self, device_id: DeviceId, device_type: Option<DeviceType>) -> String {
        if let Some(name) = self.devices.get(&device_id).and_then(|entry| entry.name.as_ref()) {
            return name.clone();
        }
        let product = device_type.map_or_else(|| "Device".to_owned(), DeviceType::product_name);
        format!("{product} {device_id}")
    }

    fn kept(&self, state: &DeviceState) -> Option<&'static str> {
        let declared = self.devices.get(&state.device_id).is_some_and(|entry| entry.kept);
        declared.then_some("config").or_else(|| state.kept.then_some("command"))
    }
}

/// The payload as bytes. Our payloads have nothing that JSON cannot say.
#[must_use]
pub fn to_bytes(payload: &impl Serialize) -> bytes::Bytes {
    #[expect(clippy::expect_used, reason = "no map with other keys than strings, no failing impl")]
    serde_json::to_vec(payload).expect("payloads are plain JSON").into()
}
