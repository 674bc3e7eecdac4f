//! A bridge made from its configuration: every room with what it is to know, and nothing more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::Bridge;
use super::broker::Broker;
use super::clock::Clock;
use super::dispatch::CommandDispatcher;
use super::links::Links;
use super::losses::Losses;
use super::persistence::Persistence;
use super::provisioner::Provisioner;
use super::retained::{RetainedTopics, discovery};
use super::site::Site;
use super::web::Web;
use crate::config::{Config, Connect, DeviceSeries, Gateway, Protocol, Sync};
use crate::fleet::{Fleet, GatewaySettings};
use crate::gsdk::{GatewayOptions, RpcRecord, Timing, code_name};
use crate::http::{self, LoopClient};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::metrics::{DeviceGroup, Metrics};
use crate::mqtt::{self, Publisher};
use crate::net::{BackoffPolicy, TlsFiles};
use crate::payload::{BridgeInfo, DeviceEntry, Directory, GatewayEntry, LinkFacts, OutboxInfo};
use crate::store::history::Retention;
use crate::store::{self, Limits, StoreError};
use crate::task::Heartbeat;
use crate::topics::Topics;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const COMMIT: &str = env!("BUILD_COMMIT");
/// How often an idle connection to the broker is pinged.
const MQTT_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The letters of random IDs.
const ID_LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// The length of a chain's ID: one of a million, and a chain begins rarely.
const CHAIN_ID_LEN: usize = 4;
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

impl Bridge {
    /// Starts the gateways' tasks, the broker's session and the web server on `listener`, which is
    /// of the runtime `web`; the loop turns with [`Bridge::run`]. Gateways and broker need not be
    /// there.
    ///
    /// # Errors
    /// When the metrics cannot be set up, or the state directory cannot be used.
    pub fn start(config: &Config, listener: TcpListener, web: &Handle) -> Result<Self, StartError> {
        let clock = Clock::start();
        let metrics = Metrics::new(VERSION, COMMIT)?;
        let (persistence, content, recovery) = Persistence::open(
            store_settings(config),
            clock.now(),
            metrics.store.write_seconds.clone(),
        )?;
        let directory = directory(config);
        let info = info(config, &directory, clock.now());

        let mut fleet = Fleet::new(clock.steady_clock());
        let mut links = Links::new();
        for (name, gateway) in &config.gateways {
            let declared: Vec<DeviceId> = gateway.devices.keys().copied().collect();
            let index =
                fleet.add_gateway(clock.now(), settings(gateway, config.forget_after), &declared);
            links.start(index, gateway_options(name, gateway), count_rpcs(&metrics, name));
        }

        let (event_loop, queries) = LoopClient::new();
        let heartbeat = Heartbeat::start();
        let settings = web_settings(config, &info, event_loop, &metrics, &heartbeat);
        let web = web.spawn(http::serve(listener, settings, links.stopped()));
        let topics = Topics::new(&config.mqtt.base_topic, &config.bridge_name);
        let session_settings = session_settings(config, &topics);
        let discovery = discovery(config, &topics, VERSION);
        let publishes_discovery = config.home_assistant.enabled;
        let gateways = config.gateways.len();
        let facts = vec![LinkFacts::default(); links.all().len()];
        let mut bridge = Self {
            clock,
            heartbeat,
            persistence,
            losses: Losses::default(),
            publisher: Publisher::new(topics, gateways, discovery, publishes_discovery),
            broker: Broker::start(session_settings, directory.instance_id.clone()),
            retained: RetainedTopics::new(&config.home_assistant, config.mqtt.republish_interval),
            provisioner: Provisioner::new(config),
            dispatcher: CommandDispatcher::new(config, links.all()),
            links,
            web: Web::new(web, queries),
            metrics,
            site: Site { fleet, directory, facts, info, events: 0, outputs: Vec::new() },
        };
        bridge.restore(content, recovery)?;
        Ok(bridge)
    }
}

/// The name of a new chain.
pub(crate) fn new_chain_id() -> String {
    random_id(CHAIN_ID_LEN)
}

fn random_id(len: usize) -> String {
    let letter = || char::from(fastrand::choice(ID_LETTERS).copied().unwrap_or(b'a'));
    std::iter::repeat_with(letter).take(len).collect()
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

/// What a gateway's task, or whoever calls it, is told by the configuration.
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
        history: Retention { keep: config.history.keep, max_bytes: config.history.max_bytes },
    }
}

/// What the session with the broker, or whoever tries one, is told by the configuration.
#[must_use]
pub fn broker_settings(config: &Config) -> mqtt::Settings {
    session_settings(config, &Topics::new(&config.mqtt.base_topic, &config.bridge_name))
}

fn session_settings(config: &Config, topics: &Topics) -> mqtt::Settings {
    let mqtt = &config.mqtt;
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
        hosts: http::Hosts::new(&config.http.hosts),
    }
}
