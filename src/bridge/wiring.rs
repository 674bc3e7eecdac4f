//! Starts a bridge from its configuration: each component gets its settings.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Bridge;
use super::broker::Broker;
use super::clock::Clock;
use super::dispatch::CommandDispatcher;
use super::gateways::Gateways;
use super::persistence::Persistence;
use super::restore::restore;
use super::state::{State, new_chain_id, random_id};
use super::status_page::StatusPage;
use super::web::Web;
use crate::config::{
    Config, Connect, DeviceSeries, Gateway, HomeAssistant, Include, Protocol, Sync,
};
use crate::desired::DesiredState;
use crate::fleet::{Fleet, GatewaySettings, Target};
use crate::gsdk::{GatewayOptions, RpcRecord, Timing, code_name};
use crate::homeassistant::{Controls, Discovery, Options};
use crate::http::{self, Listeners, LoopClient};
use crate::ids::{CommandName, DeviceId, GatewayName, Moment};
use crate::metrics::{DeviceGroup, Metrics};
use crate::mqtt::{self, Publisher};
use crate::net::{BackoffPolicy, TlsFiles};
use crate::payload::{BridgeInfo, DeviceEntry, Directory, GatewayEntry, LinkFacts, OutboxInfo};
use crate::store::history::{FILE_NAME, Retention};
use crate::store::{self, Limits, StoreError};
use crate::task::Heartbeat;
use crate::topics::Topics;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const COMMIT: &str = env!("BUILD_COMMIT");
/// How often an idle connection to the broker is pinged.
const MQTT_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The length of an instance's ID.
const INSTANCE_ID_LEN: usize = 8;

/// Why a bridge could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The metrics could not be set up.
    #[error("setting up the metrics failed")]
    Metrics(#[from] prometheus::Error),
    /// The state directory cannot be used.
    #[error(
        "state_dir cannot be used: {0}; give the directory to the user of the service, free space \
         on its disk, or set another state_dir"
    )]
    StateDir(StoreError),
    /// The error says what to do.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::InUse { .. } | StoreError::LaterFormat { .. } => Self::Store(error),
            other => Self::StateDir(other),
        }
    }
}

/// Starts the gateways' tasks, the broker's session and the web server on `listeners`, which are of
/// the runtime `web`; the loop turns with [`Bridge::run`]. Gateways and broker need not be there.
///
/// # Errors
/// When the metrics cannot be set up, or the state directory cannot be used.
pub fn start(config: &Config, listeners: Listeners, web: &Handle) -> Result<Bridge, StartError> {
    let clock = Clock::start();
    let metrics = Metrics::new(VERSION, COMMIT)?;
    let write_seconds = metrics.store.write_seconds.clone();
    let (persistence, content, recovery) =
        Persistence::open(store_settings(config), clock.now(), write_seconds)?;
    let directory = directory(config);
    let info = info(config, &directory, clock.now());

    let mut fleet = Fleet::new(clock.steady_clock());
    let mut gateways = Gateways::new(config.device_details);
    for (name, gateway) in &config.gateways {
        let declared: Vec<DeviceId> = gateway.devices.keys().copied().collect();
        fleet.add_gateway(clock.now(), settings(gateway, config.forget_after), &declared);
        let observer = count_rpcs(&metrics, name);
        gateways.start(gateway_options(name, gateway), observer, desired(gateway));
    }

    let (event_loop, queries) = LoopClient::new();
    let heartbeat = Heartbeat::start();
    let settings = web_settings(config, &info, event_loop.clone(), &metrics, &heartbeat);
    let file_problems = settings.file_problems.subscribe();
    let server = web.spawn(http::serve(listeners, settings, gateways.stopped()));
    let web = Web::new(server, queries, file_problems);
    let instance_id = directory.instance_id.clone();
    let mut broker = Broker::start(config, broker_settings(config), instance_id);
    let (gateway_count, enabled) = (directory.gateways.len(), config.home_assistant.enabled);
    let mut state = State {
        clock,
        fleet,
        facts: vec![LinkFacts::default(); gateway_count],
        directory,
        info,
        persistence,
        publisher: Publisher::new(topics(config), gateway_count, discovery(config), enabled),
        page: StatusPage::default(),
        metrics,
        events: 0,
        list_requests: Vec::new(),
        connections: Vec::new(),
    };
    state.persistence.observations.gateways(&state.directory);
    restore(&mut state, &mut gateways, &mut broker.stale_topics, content, recovery)?;
    let dispatcher = CommandDispatcher::new(config, gateways.access());
    Ok(Bridge { heartbeat, event_loop, state, gateways, broker, dispatcher, web })
}

fn info(config: &Config, directory: &Directory, started_at: Moment) -> BridgeInfo {
    BridgeInfo {
        bridge: directory.bridge.clone(),
        instance_id: directory.instance_id.clone(),
        chain: directory.chain.clone(),
        version: VERSION,
        commit: COMMIT,
        started_at,
        connected_at: None,
        base_topic: config.mqtt.base_topic.clone(),
        gateways: config.gateways.keys().cloned().collect(),
        commands_allowed: config.commands.allow.patterns().map(str::to_owned).collect(),
        outbox: OutboxInfo::default(),
    }
}

fn directory(config: &Config) -> Directory {
    let gateways = config.gateways.iter().map(|(name, gateway)| gateway_entry(name, gateway));
    Directory {
        bridge: config.bridge_name.clone(),
        instance_id: random_id(INSTANCE_ID_LEN),
        chain: new_chain_id(),
        gateways: gateways.collect(),
    }
}

/// A gateway's names and those of its declared devices.
#[must_use]
pub fn gateway_entry(name: &GatewayName, gateway: &Gateway) -> GatewayEntry {
    let devices = gateway.devices.iter().map(|(&device_id, device)| {
        let kept = device.connect != Connect::Observe;
        let (name, area) = (device.name.clone(), device.area.clone());
        (device_id, DeviceEntry { name, area, kept })
    });
    GatewayEntry {
        name: name.clone(),
        address: gateway.address.to_string(),
        area: gateway.area.clone(),
        devices: Arc::new(devices.collect()),
    }
}

fn settings(gateway: &Gateway, forget_after: Option<Duration>) -> GatewaySettings {
    let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    GatewaySettings {
        audit_interval_ms: millis(gateway.audit_interval),
        unknown_after_ms: millis(gateway.unknown_after),
        forget_after_ms: forget_after.map(millis),
    }
}

/// How to connect to a gateway.
#[must_use]
pub fn gateway_options(name: &GatewayName, gateway: &Gateway) -> GatewayOptions {
    let named_otherwise = gateway.server_name != gateway.address.host;
    GatewayOptions {
        name: name.clone(),
        address: gateway.address.clone(),
        ca_file: gateway.ca_file.clone(),
        server_name: named_otherwise.then(|| gateway.server_name.clone()),
        queue_size: gateway.queue_size,
        timing: Timing::default(),
    }
}

/// The items that the configuration declares.
fn desired(gateway: &Gateway) -> DesiredState {
    let mut items =
        DesiredState { allow_all: gateway.accept_filter.allow_all, ..DesiredState::default() };
    for (&device_id, device) in &gateway.devices {
        match device.connect {
            Connect::Observe => {}
            Connect::Accept => _ = items.accepted.insert(device_id),
            Connect::Async { ip, port, ssl } => {
                items.registered.insert(device_id, Target { ip, port, ssl });
            }
        }
    }
    items
}

fn count_rpcs(metrics: &Metrics, gateway: &GatewayName) -> crate::gsdk::RpcObserver {
    let (metrics, gateway) = (metrics.clone(), gateway.clone());
    Arc::new(move |rpc: &RpcRecord| {
        metrics.rpc(gateway.as_str(), rpc.method, code_name(rpc.code), rpc.duration);
    })
}

fn store_settings(config: &Config) -> store::Settings {
    store::Settings {
        state_dir: config.state_dir.clone(),
        always_sync: config.outbox.sync == Sync::Always,
        limits: Limits {
            max_events: usize::try_from(config.outbox.max_events.get()).unwrap_or(usize::MAX),
            max_bytes: usize::try_from(config.outbox.max_bytes).unwrap_or(usize::MAX),
        },
        history: Retention {
            keep: config.history.keep,
            max_bytes: config.history.max_bytes,
            keep_availability: config.history.keep_availability,
        },
    }
}

fn topics(config: &Config) -> Topics {
    Topics::new(&config.mqtt.base_topic, &config.bridge_name)
}

/// How to connect to the broker.
#[must_use]
pub fn broker_settings(config: &Config) -> mqtt::Settings {
    let (mqtt, topics) = (&config.mqtt, topics(config));
    let password = mqtt.password.clone().map(mqtt::Password::Value);
    let password_file = mqtt.password_file.clone().map(mqtt::Password::File);
    let tls = mqtt.broker.tls.then(|| TlsFiles {
        ca_file: mqtt.ca_file.clone(),
        cert_file: mqtt.cert_file.clone(),
        key_file: mqtt.key_file.clone(),
    });
    mqtt::Settings {
        host: mqtt.broker.at.host.clone(),
        port: mqtt.broker.at.port,
        tls,
        alpn: mqtt.alpn.clone(),
        websocket_path: mqtt.broker.path.clone(),
        client_id: mqtt.client_id.clone(),
        username: mqtt.username.clone(),
        password: password.or(password_file),
        protocol: match mqtt.protocol {
            Protocol::V5 => mqtt::Protocol::V5,
            Protocol::V311 => mqtt::Protocol::V311,
        },
        will: mqtt::Will {
            topic: topics.bridge_state(),
            payload: Bytes::from_static(b"offline"),
            retain: true,
        },
        keep_alive: MQTT_KEEP_ALIVE,
        limits: mqtt::Limits::default(),
        retry: BackoffPolicy::default(),
    }
}

fn discovery(config: &Config) -> Discovery {
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

fn web_settings(
    config: &Config,
    info: &BridgeInfo,
    event_loop: LoopClient,
    metrics: &Metrics,
    heartbeat: &Heartbeat,
) -> http::Settings {
    let chosen = config.metrics.device.iter().map(|series| match series {
        DeviceSeries::Seconds => DeviceGroup::Seconds,
        DeviceSeries::Counts => DeviceGroup::Counts,
        DeviceSeries::State => DeviceGroup::State,
        DeviceSeries::Info => DeviceGroup::Info,
    });
    let always = [DeviceGroup::State, DeviceGroup::Info];
    let groups: BTreeSet<DeviceGroup> = always.into_iter().chain(chosen).collect();
    http::Settings {
        bridge: info.bridge.clone(),
        version: info.version,
        started_at: info.started_at,
        event_loop,
        heartbeat: heartbeat.clone(),
        metrics: metrics.clone(),
        groups,
        history: config.state_dir.join(FILE_NAME),
        zone: config.time_zone.clone(),
        hosts: http::Hosts::new(&config.http.hosts),
        anonymous_from: config.http.anonymous_from.clone(),
        files: http::FilePaths {
            token_file: config.http.token_file.clone(),
            certificate: config.http.cert_file.clone().zip(config.http.key_file.clone()),
        },
        file_problems: watch::Sender::new(Vec::new()),
    }
}
