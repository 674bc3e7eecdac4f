//! Converts the configuration into the settings of the components.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::{
    Config, ConnectMode, GatewayConfig, HomeAssistant, Include, MasterConfig, Reach, Sync,
};
use crate::desired::DesiredState;
use crate::fleet::{GatewaySettings, Target};
use crate::gsdk::{GatewayOptions, GatewayTarget, LinkTiming};
use crate::homeassistant::{Controls, Discovery, Options};
use crate::ids::{CommandName, DEVICE_PORT, GatewayName};
use crate::mqtt;
use crate::net::{BackoffPolicy, Peer, TlsFiles};
use crate::payload::{DeviceEntry, GatewayEntry, MasterRef};
use crate::store::history::{FILE_NAME, Reader};
use crate::store::{self, OutboxLimits};
use crate::topics::Topics;

/// The version of the program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How often an idle connection to the broker is pinged.
const MQTT_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A gateway's names and those of its declared devices.
pub fn gateway_entry(
    masters: &BTreeMap<GatewayName, MasterConfig>,
    name: &GatewayName,
    gateway: &GatewayConfig,
) -> GatewayEntry {
    let devices = gateway.devices.iter().map(|(&device_id, device)| {
        let kept = device.connect != ConnectMode::Observe;
        let (name, area) = (device.name.clone(), device.area.clone());
        (device_id, DeviceEntry { name, area, kept })
    });
    let (address, master) = match &gateway.reach {
        Reach::Direct { address, .. } => (address.to_string(), None),
        Reach::Master { master, gateway_id } => {
            let address = masters.get(master).map(|master| master.address.to_string());
            let of = MasterRef { name: master.clone(), gateway_id: gateway_id.clone() };
            (address.unwrap_or_default(), Some(of))
        }
    };
    GatewayEntry {
        name: name.clone(),
        address,
        master,
        area: gateway.area.clone(),
        devices: Arc::new(devices.collect()),
    }
}

pub(crate) fn settings(gateway: &GatewayConfig, forget_after: Option<Duration>) -> GatewaySettings {
    let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    GatewaySettings {
        audit_interval_ms: millis(gateway.audit_interval),
        unknown_after_ms: millis(gateway.unknown_after),
        forget_after_ms: forget_after.map(millis),
    }
}

/// A gateway is behind a master that the configuration does not have.
#[derive(Debug, thiserror::Error)]
#[error("gateways.{0}.master names no master of the configuration; add its table")]
pub struct NoMaster(pub(crate) GatewayName);

/// Where a gateway is reached.
pub fn gateway_target(
    masters: &BTreeMap<GatewayName, MasterConfig>,
    name: &GatewayName,
    gateway: &GatewayConfig,
) -> Result<GatewayTarget, NoMaster> {
    Ok(match &gateway.reach {
        Reach::Direct { address, ca_file, server_name, queue_size } => {
            let files = TlsFiles { ca_file: Some(ca_file.clone()), ..TlsFiles::default() };
            GatewayTarget::Direct(GatewayOptions {
                peer: Peer::Gateway(name.clone()),
                address: address.clone(),
                files,
                server_name: Some(server_name.clone()),
                queue_size: *queue_size,
                timing: LinkTiming::default(),
            })
        }
        Reach::Master { master, gateway_id } => {
            let config = masters.get(master).ok_or_else(|| NoMaster(name.clone()))?;
            let options = master_options(master, config);
            GatewayTarget::Master { name: master.clone(), options, gateway_id: gateway_id.clone() }
        }
    })
}

/// How to connect to a master.
pub fn master_options(name: &GatewayName, master: &MasterConfig) -> GatewayOptions {
    let MasterConfig { address, ca_file, cert_file, key_file, server_name, queue_size, .. } =
        master;
    GatewayOptions {
        peer: Peer::Master(name.clone()),
        address: address.clone(),
        files: TlsFiles {
            ca_file: Some(ca_file.clone()),
            cert_file: Some(cert_file.clone()),
            key_file: Some(key_file.clone()),
        },
        server_name: Some(server_name.clone()),
        queue_size: *queue_size,
        timing: LinkTiming::default(),
    }
}

/// The items that the configuration declares.
pub(crate) fn desired(gateway: &GatewayConfig) -> DesiredState {
    let mut items =
        DesiredState { allow_all: gateway.accept_filter.allow_all, ..DesiredState::default() };
    for (&device_id, device) in &gateway.devices {
        match (device.connect, device.ip) {
            (ConnectMode::Accept, _) => _ = items.accepted.insert(device_id),
            (ConnectMode::Async, Some(ip)) => {
                let port = device.port.map_or(DEVICE_PORT, NonZeroU16::get);
                let target = Target { ip, port, ssl: device.ssl.unwrap_or_default() };
                items.registered.insert(device_id, target);
            }
            (ConnectMode::Observe | ConnectMode::Async, _) => {}
        }
    }
    items
}

pub(crate) fn store_settings(config: &Config) -> store::StoreSettings {
    store::StoreSettings {
        state_dir: config.state_dir.clone(),
        always_sync: config.outbox.sync == Sync::Always,
        limits: OutboxLimits {
            max_events: usize::try_from(config.outbox.max_events.get()).unwrap_or(usize::MAX),
            max_bytes: usize::try_from(config.outbox.max_bytes).unwrap_or(usize::MAX),
        },
        history: config.history,
        history_reader: Reader::new(config.state_dir.join(FILE_NAME)),
    }
}

pub(crate) fn topics(config: &Config) -> Topics {
    Topics::new(&config.mqtt.base_topic, &config.bridge_name)
}

/// How to connect to the broker.
pub fn broker_settings(config: &Config) -> mqtt::SessionSettings {
    mqtt::SessionSettings {
        mqtt: config.mqtt.clone(),
        will: mqtt::Will {
            topic: topics(config).bridge_state(),
            payload: Bytes::from_static(b"offline"),
            retain: true,
        },
        keep_alive: MQTT_KEEP_ALIVE,
        limits: mqtt::SessionLimits::default(),
        retry: BackoffPolicy::default(),
    }
}

pub(crate) fn discovery(config: &Config) -> Discovery {
    let HomeAssistant { discovery_prefix, controls, include, .. } = &config.home_assistant;
    let permitted = |command| *controls && config.commands.allow.permits(command);
    let controls = Controls {
        republish: permitted(CommandName::Republish),
        disconnect: permitted(CommandName::Disconnect),
        disconnect_all: permitted(CommandName::DisconnectAll),
        allow_all: permitted(CommandName::FilterAllowAll),
    };
    let options = Options {
        controls,
        declared_only: *include == Include::Declared,
        firmware: config.device_details,
    };
    Discovery::new(topics(config), discovery_prefix.clone(), VERSION, options)
}
