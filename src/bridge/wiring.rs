//! Starts a bridge from its configuration: each component gets its settings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::sleep;

use super::broker::Broker;
use super::clock::Clock;
use super::dispatch::CommandDispatcher;
use super::gateways::Gateways;
use super::persistence::Persistence;
use super::restore::restore;
use super::settings::{
    NoMaster, VERSION, broker_settings, desired, discovery, gateway_entry, gateway_target,
    master_options, settings, store_settings, topics,
};
use super::state::{State, new_chain_id};
use super::web::Web;
use super::{Bridge, discovered};
use crate::config::{Config, GatewayConfig};
use crate::fleet::{Fleet, GatewayIndex, LinkState};
use crate::gsdk::{RpcObserver, RpcRecord, code_name};
use crate::http::{self, Listeners, LoopClient};
use crate::ids::{DeviceId, GatewayName, Moment, random_id};
use crate::metrics::Metrics;
use crate::mqtt::Publisher;
use crate::payload::{BridgeInfo, Directory, LinkFacts, MasterFacts, OutboxInfo};
use crate::store::history::Reader;
use crate::store::{Recovery, StoreError};
use crate::task::Heartbeat;

const COMMIT: &str = env!("BUILD_COMMIT");
/// The length of an instance's ID.
const INSTANCE_ID_LEN: usize = 8;

/// Why a bridge could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The metrics could not be set up.
    #[error("setting up the metrics failed")]
    Metrics(#[from] prometheus::Error),
    /// The state directory cannot be used.
    #[error("state_dir cannot be used: {0}; {remedy}", remedy = .0.remedy())]
    StateDir(StoreError),
    /// The error contains the remedy.
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    NoMaster(#[from] NoMaster),
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
/// the runtime `web`. [`Bridge::run`] runs the event loop. Gateways and broker need not be there.
///
/// # Errors
/// When the metrics cannot be set up, or the state directory cannot be used.
pub fn start(config: &Config, listeners: Listeners, web: &Handle) -> Result<Bridge, StartError> {
    let clock = Clock::start();
    let metrics = Metrics::new(VERSION, COMMIT)?;
    let write_seconds = metrics.store.write_seconds.clone();
    let store = store_settings(config);
    let history = store.history_reader.clone();
    let (persistence, content, recovery) = Persistence::open(store, clock.now(), write_seconds)?;
    let gateways_known = discovered::known_gateways(config, &content);
    let directory = directory(config, &gateways_known, clock.now());

    let mut fleet = Fleet::new(clock.steady_clock());
    let mut gateways =
        Gateways::new(config.device_details, config.gateways.len(), config.forget_after);
    for (name, master) in &config.masters {
        let observer = count_rpcs(&metrics, name, Metrics::master_rpc);
        gateways.start_master(name, master_options(name, master), master.discover, observer);
    }
    for (name, gateway) in &gateways_known {
        let declared: Vec<DeviceId> = gateway.devices.keys().copied().collect();
        fleet.add_gateway(clock.now(), settings(gateway, config.forget_after), &declared);
        let observer = count_rpcs(&metrics, name, Metrics::rpc);
        let target = gateway_target(&config.masters, name, gateway)?;
        gateways.start(name.clone(), target, observer, desired(gateway))?;
    }

    let (client, queries) = LoopClient::new();
    let heartbeat = Heartbeat::start();
    let settings = web_settings(config, client.clone(), &metrics, &heartbeat, history.clone());
    let file_problems = settings.file_problems.subscribe();
    let server = web.spawn(http::serve(listeners, settings, gateways.stopped()));
    let web = Web::new(server, queries, file_problems);
    let instance_id = directory.info.instance_id.clone();
    let mut broker = Broker::start(config, broker_settings(config), instance_id);
    let (gateway_count, enabled) = (directory.gateways.len(), config.home_assistant.enabled);
    let mut state = State {
        clock,
        fleet,
        facts: vec![LinkFacts::default(); gateway_count],
        directory,
        persistence,
        publisher: Publisher::new(topics(config), discovery(config), enabled),
        metrics,
        events: 0,
        device_changes: 0,
        list_requests: Vec::new(),
        connections: Vec::new(),
    };
    state.persistence.observations.gateways(&state.directory, state.clock.now());
    if matches!(recovery, Recovery::NewChain { reason: None, .. }) {
        broker.duplicates.set_new_chain();
    }
    restore(&mut state, &mut gateways, &mut broker.stale_topics, content, recovery)?;
    let dispatcher = CommandDispatcher::new(config, history);
    let alarm = Box::pin(sleep(Duration::ZERO));
    Ok(Bridge { heartbeat, client, state, gateways, broker, dispatcher, web, alarm })
}

fn directory(config: &Config, gateways: &[(GatewayName, GatewayConfig)], now: Moment) -> Directory {
    let entries =
        gateways.iter().map(|(name, gateway)| gateway_entry(&config.masters, name, gateway));
    Directory {
        info: BridgeInfo {
            bridge: config.bridge_name.clone(),
            instance_id: random_id(INSTANCE_ID_LEN),
            chain: new_chain_id(),
            version: VERSION,
            commit: COMMIT,
            started_at: now,
            connected_at: None,
            established: false,
            base_topic: config.mqtt.base_topic.clone(),
            gateways: gateways.iter().map(|(name, _)| name.clone()).collect(),
            commands_allowed: config.commands.allow.patterns().map(str::to_owned).collect(),
            outbox: OutboxInfo::default(),
        },
        masters: master_facts(config, now),
        removed_masters: BTreeSet::new(),
        gateways: (0..).map(GatewayIndex).zip(entries).collect(),
    }
}

fn master_facts(config: &Config, now: Moment) -> BTreeMap<GatewayName, MasterFacts> {
    let facts = config.masters.iter().map(|(name, master)| {
        let facts = MasterFacts {
            address: master.address.to_string(),
            state: LinkState::Connecting,
            since: now,
            last_error: None,
            certificate_expires_at: None,
            token_expires_at: None,
            clock_skew_ms: None,
        };
        (name.clone(), facts)
    });
    facts.collect()
}

/// Counts the calls to a gateway or master.
fn count_rpcs(
    metrics: &Metrics,
    name: &GatewayName,
    count: fn(&Metrics, &str, &str, &str, Option<Duration>),
) -> RpcObserver {
    let (metrics, name) = (metrics.clone(), name.clone());
    Arc::new(move |rpc: &RpcRecord| {
        count(&metrics, name.as_str(), rpc.method, code_name(rpc.code), rpc.duration);
    })
}

fn web_settings(
    config: &Config,
    event_loop: LoopClient,
    metrics: &Metrics,
    heartbeat: &Heartbeat,
    history: Reader,
) -> http::HttpSettings {
    http::HttpSettings {
        bridge: config.bridge_name.clone(),
        event_loop,
        heartbeat: heartbeat.clone(),
        metrics: metrics.clone(),
        groups: config.metrics.device.clone(),
        history,
        zone: config.time_zone.clone(),
        http: config.http.clone(),
        file_problems: watch::Sender::new(Vec::new()),
    }
}
