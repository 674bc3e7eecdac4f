//! The JSON of states, events and infos (docs/topics.md).
//!
//! It contains the data of the core, with the names from the configuration. The same value gives
//! the same bytes.

mod bridge;
mod device;
mod event;
mod gateway;
pub(crate) mod seconds;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

pub use bridge::{
    BridgeEventKind, BridgeInfo, Degraded, DegradedReason, EVENTS_LOST, Health, Intent, OutboxInfo,
};
pub use device::{DeviceEventPayload, DeviceStatePayload, LastKnownPayload};
pub(crate) use event::RecordedEvent;
pub use event::{COMMAND_EVENT, EventPayload, EventTypeName, Subject};
pub use gateway::{
    AcceptFilterInfo, GatewayEventContent, GatewayInfo, LastError, LinkFacts, MasterFacts,
    MasterInfo,
};

use crate::fleet::{DeviceState, DeviceType, GatewayIndex};
use crate::ids::{DeviceId, GatewayName};

/// A payload larger than this gives its memory back after it was serialized, in bytes.
const SCRATCH_KEPT_MAX: usize = 16 << 10;

/// The default of `bridge_name`.
pub const BRIDGE_NAME_DEFAULT: &str = "bridge";

/// The names that go into payloads: the bridge's, the gateways', the devices'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// The bridge's own info.
    pub info: BridgeInfo,
    /// The master gateways, with what their links show.
    pub masters: BTreeMap<GatewayName, MasterFacts>,
    /// Masters that the configuration does not have any more.
    pub removed_masters: BTreeSet<GatewayName>,
    pub gateways: BTreeMap<GatewayIndex, GatewayEntry>,
}

/// The configuration of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayEntry {
    /// Its name.
    pub name: GatewayName,
    /// Host and port, as configured; of its master, if it is behind one.
    pub address: String,
    /// The master that it is behind.
    pub master: Option<MasterRef>,
    /// Where it is, for people.
    pub area: Option<String>,
    /// Its declared devices.
    pub devices: Arc<BTreeMap<DeviceId, DeviceEntry>>,
}

/// Which gateway of which master a gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterRef {
    /// The master's name.
    pub name: GatewayName,
    /// The ID of the gateway at the master.
    pub gateway_id: String,
}

/// The configuration of a device.
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
    pub fn add(&mut self, gateway: GatewayIndex, entry: GatewayEntry) {
        self.info.gateways.push(entry.name.clone());
        self.gateways.insert(gateway, entry);
    }

    /// Removes a gateway that is forgotten; returns its entry.
    pub fn remove(&mut self, gateway: GatewayIndex) -> Option<GatewayEntry> {
        let entry = self.gateways.remove(&gateway)?;
        self.info.gateways.retain(|name| *name != entry.name);
        Some(entry)
    }

    /// The entry of a gateway; `None` if it was forgotten.
    pub fn gateway(&self, gateway: GatewayIndex) -> Option<&GatewayEntry> {
        self.gateways.get(&gateway)
    }

    /// The gateways behind a master.
    pub fn behind<'a>(
        &'a self,
        master: &'a GatewayName,
    ) -> impl Iterator<Item = (GatewayIndex, &'a GatewayEntry)> + Clone {
        let of = |entry: &GatewayEntry| entry.master.as_ref().map(|it| &it.name) == Some(master);
        self.gateways.iter().filter(move |(_, entry)| of(entry)).map(|(at, entry)| (*at, entry))
    }

    /// The gateway with this name.
    pub fn find(&self, name: &GatewayName) -> Option<GatewayIndex> {
        self.find_str(name.as_str())
    }

    /// The gateway whose name is this text.
    pub fn find_str(&self, name: &str) -> Option<GatewayIndex> {
        let mut gateways = self.gateways.iter();
        gateways.find(|(_, entry)| entry.name.as_str() == name).map(|(at, _)| *at)
    }
}

impl GatewayEntry {
    /// The device's name: the configured one, else `<Type> <id>`.
    pub fn device_name(
        &self,
        device_id: DeviceId,
        device_type: Option<DeviceType>,
    ) -> Cow<'_, str> {
        let entry = self.devices.get(&device_id);
        match (entry.and_then(|entry| entry.name.as_deref()), device_type) {
            (Some(name), _) => name.into(),
            (None, Some(known)) => {
                [&*known.product_name(), &device_id.to_string()].join(" ").into()
            }
            (None, None) => format!("Device {device_id}").into(),
        }
    }

    /// Where the device is: the configured area, else its gateway's.
    pub fn area(&self, device_id: DeviceId) -> Option<&str> {
        let entry = self.devices.get(&device_id);
        entry.and_then(|entry| entry.area.as_deref()).or(self.area.as_deref())
    }

    fn kept(&self, state: &DeviceState) -> Option<&'static str> {
        let declared = self.devices.get(&state.device_id).is_some_and(|entry| entry.kept);
        declared.then_some("config").or_else(|| state.kept.then_some("command"))
    }
}

thread_local! {
    /// The space in which payloads are serialized: each is then copied into memory of its size.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The payload as bytes. Our payloads always serialize.
pub fn to_bytes(payload: &impl Serialize) -> Bytes {
    #[expect(clippy::expect_used, reason = "no map with other keys than strings, no failing impl")]
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        serde_json::to_writer(&mut *scratch, payload).expect("payloads are plain JSON");
        let bytes = Bytes::copy_from_slice(scratch);
        scratch.shrink_to(SCRATCH_KEPT_MAX);
        bytes
    })
}
