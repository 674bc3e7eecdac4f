//! One run: the bridge, its gateways and its broker in one thread on a paused clock.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use gsdk2mqtt::bridge;
use gsdk2mqtt::config::{self, Config};
use gsdk2mqtt::simulator::{Fault, GatewayTiming, Simulator, SimulatorSettings, Strictness};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::broker::Broker;
use crate::network::{Network, Side};
use crate::record::{Calls, Cut, End, Process, Sent, Shown, Truth, record};
use crate::request::{ALLOWED, Owner, PAYLOAD_MAX, RATE, Request};
use crate::schedule::{Act, Place, Schedule, Site};
use crate::storage::{PowerCut, Storage};
use crate::watch::Watch;

/// The wall's clock at the beginning of each run, in seconds.
pub(crate) const BEGAN_AT_S: u64 = 1_795_428_000;
/// After the faults are over all has to be true within this time: the bridge and the gateways try
/// again at least every minute, and two audits are 80 s apart at most.
const SETTLES_WITHIN: Duration = Duration::from_secs(240);

pub(crate) fn name_of(gateway: usize) -> String {
    format!("gw{gateway}")
}

fn address_of(place: Place) -> SocketAddr {
    match place {
        Place::Gateway(at) => SocketAddr::from(([10, 0, 0, 1 + u8::try_from(at).unwrap()], 4_000)),
        Place::Broker => SocketAddr::from(([10, 0, 0, 100], 1_883)),
    }
}

/// Plays the schedule of a seed to its end.
pub(crate) fn play(seed: u64, schedule: &Schedule) -> Shown {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let dir = tempfile::tempdir().unwrap();
    fastrand::seed(seed);
    runtime.unwrap().block_on(async {
        let mut world = World::new(seed, schedule, dir.path()).await;
        world.play(schedule).await
    })
}

struct World {
    began: Instant,
    network: Network,
    config: Config,
    simulators: Vec<Simulator>,
    truth: Vec<Truth>,
    broker: Broker,
    bridge: Option<Running>,
    storage: Storage,
    stopped_cleanly: bool,
    sent: Vec<Sent>,
    processes: Vec<Process>,
    cuts: Vec<Cut>,
    /// Whether the broker reads nothing.
    broker_reads_nothing: bool,
    watch: Watch,
}

struct Running {
    since: Duration,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl World {
    async fn new(seed: u64, schedule: &Schedule, dir: &Path) -> Self {
        let network = Network::begin(seed, UNIX_EPOCH + Duration::from_secs(BEGAN_AT_S));
        let began = Instant::now();
        let broker = Broker::new(address_of(Place::Broker), schedule.protocol, schedule.window);
        let storage = Storage::new(dir.join("state"));
        let (mut simulators, mut truth) = (Vec::new(), Vec::new());
        let mut text = format!(
            "state_dir = {:?}\n[mqtt]\nurl = \"mqtt://{}\"\nprotocol = \"{}\"\n\
             [commands]\nallow = {ALLOWED}\nrate = \"{RATE}/s\"\nmax_payload = \"{PAYLOAD_MAX}\"\n",
            storage.dir().display().to_string(),
            address_of(Place::Broker),
            schedule.protocol.as_str(),
        );
        for (at, site) in schedule.sites.iter().enumerate() {
            let simulator = Simulator::start(settings(at, site, seed)).await.unwrap();
            let ca_file = dir.join(format!("{at}.crt"));
            std::fs::write(&ca_file, simulator.ca_pem()).unwrap();
            text += &format!(
                "[gateways.{}]\naddress = \"{}\"\nca_file = {:?}\nqueue_size = {}\n\
                 audit_interval = \"{}s\"\n[gateways.{}.devices]\n{}",
                name_of(at),
                simulator.address(),
                ca_file.display().to_string(),
                site.queue_size,
                site.audit_s,
                name_of(at),
                site.declared()
            );
            truth.push(record(&simulator.control(), began));
            simulators.push(simulator);
        }
        let config = config::from_toml("model.toml", text).unwrap().config;
        let watch = Watch::new(simulators.len());
        Self {
            began,
            network,
            config,
            simulators,
            truth,
            broker,
            bridge: None,
            storage,
            stopped_cleanly: false,
            sent: Vec::new(),
            processes: Vec::new(),
            cuts: Vec::new(),
            broker_reads_nothing: false,
            watch,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    async fn play(&mut self, schedule: &Schedule) -> Shown {
        for (at, act) in &schedule.steps {
            self.wait_until(*at).await;
            tracing::info!(?act, "** fault applied");
            self.act(act).await;
        }
        self.wait_until(schedule.healed_at).await;
        tracing::info!("** heals");
        self.heal().await;
        self.wait_until(schedule.healed_at + SETTLES_WITHIN).await;
        self.watch.ends(self.now());
        let retained = self.broker.retained();
        self.stop_bridge().await;
        Shown {
            seen: self.broker.seen(),
            retained,
            lists: self.simulators.iter().map(|it| it.control().managed()).collect(),
            filters: self.simulators.iter().map(|it| it.control().filter()).collect(),
            calls: self.calls(),
            sent: std::mem::take(&mut self.sent),
            processes: std::mem::take(&mut self.processes),
            began: self.broker.began(),
            ended: self.broker.ended(),
            impaired: std::mem::take(&mut self.watch.impaired),
            truth: self.truth.iter().map(|truth| truth.lock().unwrap().clone()).collect(),
            unreachable: std::mem::take(&mut self.watch.unreachable),
            wrong: std::mem::take(&mut self.watch.wrong),
            cuts: std::mem::take(&mut self.cuts),
            history: self.storage.history(),
        }
    }

    /// Lets time pass, and checks the states once a second.
    async fn wait_until(&mut self, at: Duration) {
        while self.now() < at {
            let next = at.min(self.now() + Duration::from_secs(1));
            sleep_until(self.began + next).await;
            if self.bridge.as_ref().is_some_and(|it| it.task.is_finished()) {
                self.watch.wrong.push(format!("the bridge ended by itself at {:?}", self.now()));
                self.bridge = None;
            }
            self.watch.update(self.now(), &self.broker, self.bridge.is_some());
        }
    }

    async fn act(&mut self, act: &Act) {
        match act {
            Act::BridgeStarts => self.start_bridge().await,
            Act::BridgeKilled => self.kill_bridge(End::Killed).await,
            Act::BridgeStops => self.stop_bridge().await,
            Act::PowerCut(cut) => self.cut_power(*cut).await,
            Act::BrokerStarts if self.broker.is_up() => {}
            Act::BrokerStarts => self.broker.start(),
            Act::BrokerKilled { forgets } => self.broker.kill(&self.network, *forgets).await,
            Act::BrokerDeaf(on) => {
                if !on && self.broker_reads_nothing {
                    // It reads now what it was sent before.
                    let now = self.now();
                    for cut in self.cuts.iter_mut().filter(|cut| cut.broker_reads_nothing) {
                        (cut.until, cut.broker_reads_nothing) = (cut.until.max(now), false);
                    }
                }
                self.broker_reads_nothing = *on;
                self.watch.condition.reads_nothing = *on;
                self.broker.set_condition(|condition| condition.reads_nothing = *on);
            }
            Act::BrokerMute(on) => {
                self.watch.condition.acknowledges_nothing = *on;
                self.broker.set_condition(|condition| condition.acknowledges_nothing = *on);
            }
            Act::BrokerRefuses(on) => {
                self.watch.condition.refuses = *on;
                self.broker.set_condition(|condition| condition.refuses = *on);
            }
            Act::Request(request) => self.send(request),
            Act::Unretain(request) => _ = self.broker.publish(&request.clearing()),
            Act::Hold(place, side, on) => {
                self.network.hold(address_of(*place), *side, *on);
                self.watch.hold(self.now(), *place, *side, *on);
            }
            Act::Cut(place) => self.network.cut(address_of(*place)),
            Act::Gateway(at, fault) => {
                let (control, fault) = (self.simulators[*at].control(), fault.clone());
                match fault {
                    Fault::Freeze { on } | Fault::ClientNetwork { up: on } => {
                        self.watch.frozen[*at] = on == matches!(fault, Fault::Freeze { .. });
                    }
                    _ => {}
                }
                tokio::spawn(async move { drop(control.run_fault(&fault).await) });
            }
        }
        self.watch.update(self.now(), &self.broker, self.bridge.is_some());
    }

    fn calls(&self) -> Vec<Calls> {
        self.simulators.iter().map(|it| it.control().calls()).collect()
    }

    fn send(&mut self, request: &Request) {
        let mut request = request.clone();
        let after_id = (request.command == "history").then(|| self.events_read(request.owner));
        if let Some(after_id) = after_id.flatten() {
            request.fields["after_id"] = after_id.into();
        }
        let calls = self.calls();
        let connection = self.broker.publish(&request.message(self.sent.len().to_string()));
        let process = self.bridge.as_ref().map(|_| self.processes.len());
        self.sent.push(Sent { at: self.now(), request, connection, process, calls });
    }

    /// Up to where a client has read the events of a gateway, or of all.
    fn events_read(&self, owner: Owner) -> Option<u64> {
        let gateway = match owner {
            Owner::Bridge => serde_json::Value::Null,
            Owner::Gateway(at) => name_of(at).into(),
        };
        self.broker.seen().iter().rev().find_map(|seen| {
            if !seen.topic.contains("/response/") && !seen.topic.starts_with("gsdk-reply/") {
                return None;
            }
            let answer: serde_json::Value = serde_json::from_slice(&seen.payload).unwrap();
            let is_page = answer["command"] == "history" && answer["gateway"] == gateway;
            answer["data"]["next"].as_u64().filter(|_| is_page)
        })
    }

    async fn heal(&mut self) {
        let places = (0..self.simulators.len()).map(Place::Gateway).chain([Place::Broker]);
        let holds = places.flat_map(|place| [Side::Client, Side::Server].map(|side| (place, side)));
        for (place, side) in holds {
            self.act(&Act::Hold(place, side, false)).await;
        }
        for mended in [Act::BrokerDeaf(false), Act::BrokerMute(false), Act::BrokerRefuses(false)] {
            self.act(&mended).await;
        }
        for at in 0..self.simulators.len() {
            for fault in [
                Fault::Freeze { on: false },
                Fault::ClientNetwork { up: true },
                Fault::DeviceNetwork { up: true },
                Fault::Heal,
                Fault::Latency { ms: 0 },
                Fault::LateAnswers { ms: 0 },
                Fault::PowerOn { devices: gsdk2mqtt::simulator::DeviceSelector::default() },
            ] {
                self.act(&Act::Gateway(at, fault)).await;
            }
        }
        self.act(&Act::BrokerStarts).await;
        self.act(&Act::BridgeStarts).await;
    }

    async fn start_bridge(&mut self) {
        if self.bridge.is_some() {
            return;
        }
        // The model sends no requests to it: a port of the machine is sufficient.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listeners = gsdk2mqtt::http::Listeners { main: listener, metrics: None };
        let bridge = match bridge::start(&self.config, listeners, &Handle::current()) {
            Ok(bridge) => bridge,
            Err(error) => {
                self.watch.wrong.push(format!("the bridge did not start: {error}"));
                return;
            }
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(bridge.run(async move {
            if stopped.await.is_err() {
                std::future::pending().await
            }
        }));
        self.storage.bridge_started();
        self.stopped_cleanly = false;
        self.bridge = Some(Running { since: self.now(), stop, task });
    }

    async fn stop_bridge(&mut self) {
        let Some(Running { stop, task, .. }) = self.bridge.take() else { return };
        let asked = Instant::now();
        _ = stop.send(());
        _ = task.await;
        self.ended(End::Stopped);
        if asked.elapsed() > Duration::from_secs(5) {
            self.watch.wrong.push(format!("a stop took {:?}", asked.elapsed()));
        }
        self.storage.wait_until_closed();
        self.stopped_cleanly = true;
    }

    async fn cut_power(&mut self, cut: PowerCut) {
        let running_since = self.bridge.as_ref().map(|running| running.since);
        let at = self.now();
        self.kill_bridge(End::PowerCut).await;
        if running_since.is_some() {
            self.storage.cut_power(cut);
        }
        self.storage.reboot();
        let (from, ends_chain) = (running_since.unwrap_or(at), !self.stopped_cleanly);
        let (broker_reads_nothing, stored) = (self.broker_reads_nothing, self.storage.events());
        self.cuts.push(Cut { from, at, until: at, broker_reads_nothing, ends_chain, stored });
    }

    fn ended(&mut self, end: End) {
        let (until, calls) = (self.now(), self.calls());
        self.processes.push(Process { until, end, calls });
    }

    async fn kill_bridge(&mut self, end: End) {
        let Some(Running { stop, task, .. }) = self.bridge.take() else { return };
        self.ended(end);
        for place in (0..self.simulators.len()).map(Place::Gateway).chain([Place::Broker]) {
            self.network.kill(address_of(place), Side::Client);
        }
        task.abort();
        let ended = task.await;
        assert!(ended.is_err_and(|end| end.is_cancelled()), "it was to be killed");
        drop(stop);
        // Closed channels end its tasks; a process that is gone says
        // nothing meanwhile, since its connections are dead.
        sleep(Duration::from_millis(1)).await;
    }
}

fn settings(at: usize, site: &Site, seed: u64) -> SimulatorSettings {
    SimulatorSettings {
        listen: address_of(Place::Gateway(at)),
        devices: site.devices.clone(),
        managed: true,
        strictness: Strictness {
            lazy_headers: site.is_strict,
            shuffles_lists: site.is_strict,
            ..Strictness::LENIENT
        },
        reports_tries: site.tells_tries,
        timing: GatewayTiming {
            reconnect_interval_ms: site.reconnect_ms,
            keep_alive_ms: site.keep_alive_ms,
            ..GatewayTiming::default()
        },
        seed,
        ..SimulatorSettings::default()
    }
}
