//! `Control`, the handle of a running simulation: applies faults, and returns the internal state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::fault::Fault;
use super::gate::ConnectionGates;
use super::gateway::SimulatedGateway;
use super::interceptor::{CallError, Interceptor};
use super::master::SimulatedMaster;
use super::parameters::Storm;
use super::queue::SubscriptionReport;
use super::site::SiteDevice;
use super::storm::{self, NothingManaged, StormReport};
use super::world::World;
use crate::proto::connect::{AcceptFilter, DeviceInfo, PendingDeviceInfo, SlaveDeviceInfo};

/// The handle of a running simulation; clone it freely.
#[derive(Clone)]
pub struct Control {
    pub(crate) world: Arc<World>,
    pub(crate) master: Option<Arc<SimulatedMaster>>,
    pub(crate) interceptor: Arc<Interceptor>,
    pub(crate) gates: Arc<ConnectionGates>,
    /// Whether the port is to be open.
    pub(crate) port_wanted: watch::Sender<bool>,
    /// Whether the port is open.
    pub(crate) port_is_open: watch::Receiver<bool>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("connections", &self.connections_count()).finish()
    }
}

/// The result of a fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultOutcome {
    /// The number of devices affected, or of gateways for a fault of gateways.
    pub affected: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm: Option<StormReport>,
}

impl Control {
    /// Applies a fault and returns how many devices or gateways it affected. A restart or a storm
    /// continues in the background; `run_fault` waits for its end.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, for a restart or a storm.
    pub fn apply_fault(&self, fault: &Fault) -> usize {
        if let Some(affected) =
            self.world.apply(|gateways, now, rng| fault.apply(gateways, now, rng))
        {
            return affected;
        }
        let master = self.master.as_ref();
        match fault {
            Fault::Storm(_) | Fault::Restart { .. } => {
                let (control, fault) = (self.clone(), fault.clone());
                tokio::spawn(async move { drop(control.run_fault(&fault).await) });
            }
            Fault::ClientNetwork { up } => {
                self.gates.set_stalled(!up);
                self.port_wanted.send_replace(*up);
            }
            Fault::Freeze { on } => self.gates.set_stalled(*on),
            Fault::CutConnections => self.gates.cut(),
            Fault::EndStreams { code } => self.end_streams(code.0),
            Fault::GatewayLink { gateway, up, forgets } => {
                return master.is_some_and(|one| one.set_link(gateway, *up, *forgets)).into();
            }
            Fault::GatewayListed { gateway, listed } => {
                return master.is_some_and(|one| one.set_listed(gateway, *listed)).into();
            }
            Fault::ExpireTokens => _ = master.map(|one| one.forget_tokens()),
            Fault::Fail { method, code, message, times } => {
                let message = message.as_deref().unwrap_or("ordered by a fault");
                let error = CallError { status: Status::new(code.0, message), times: *times };
                self.interceptor.update(|rules| _ = rules.errors.insert(method.clone(), error));
            }
            Fault::Heal => self.interceptor.update(|rules| rules.errors.clear()),
            Fault::Latency { ms } => {
                self.interceptor
                    .update(|rules| rules.latency = Duration::from_millis((*ms).into()));
            }
            Fault::LateAnswers { ms } => {
                self.interceptor
                    .update(|rules| rules.answer_delay = Duration::from_millis((*ms).into()));
            }
            Fault::Packages { serve } => self.interceptor.update(|rules| rules.packages = *serve),
            Fault::LazyHeaders { on } => {
                self.interceptor.update(|rules| rules.strictness.lazy_headers = *on);
            }
            // Those of devices are applied above.
            _ => {}
        }
        self.world.gateways_count()
    }

    /// Applies a fault and waits for its end: a restart until the gateway is back, a storm until
    /// all changes are reported.
    ///
    /// # Errors
    ///
    /// A storm fails when the gateway manages no devices.
    pub async fn run_fault(&self, fault: &Fault) -> Result<FaultOutcome, NothingManaged> {
        match fault {
            Fault::Storm(storm) => {
                let report = self.storm(*storm).await?;
                let affected = usize::try_from(report.changes).unwrap_or(usize::MAX);
                Ok(FaultOutcome { affected, storm: Some(report) })
            }
            Fault::Restart { down_s } => {
                self.restart(Duration::from_secs((*down_s).into())).await;
                Ok(FaultOutcome { affected: self.world.gateways_count(), storm: None })
            }
            fault => Ok(FaultOutcome { affected: self.apply_fault(fault), storm: None }),
        }
    }

    /// Runs the simulation's time. Never returns.
    pub(crate) async fn run(self) {
        let mut running = JoinSet::new();
        loop {
            for fault in self.world.due_faults().await {
                let control = self.clone();
                running.spawn(async move {
                    if let Err(error) = control.run_fault(&fault).await {
                        tracing::warn!(%error, "a step of the scenario failed");
                    }
                });
            }
            while running.try_join_next().is_some() {}
        }
    }

    /// Reports many status changes and waits for the end.
    ///
    /// # Errors
    ///
    /// When the gateway manages no devices.
    pub async fn storm(&self, storm: Storm) -> Result<StormReport, NothingManaged> {
        storm::run(&self.world, storm).await
    }

    /// Restarts the gateway: ends everything, forgets what clients set, stays away for `down`, and
    /// listens again on the same port when this returns.
    pub async fn restart(&self, down: Duration) {
        self.stop_listening();
        self.wait_until_open(false).await;
        tokio::time::sleep(down).await;
        self.start_listening();
        self.wait_until_open(true).await;
    }

    async fn wait_until_open(&self, open: bool) {
        // The error means that the simulation has ended.
        let _ = self.port_is_open.clone().wait_for(|is_open| *is_open == open).await;
    }

    /// The first half of a restart: the gateway is gone, and has forgotten what clients set.
    pub fn stop_listening(&self) {
        self.port_wanted.send_replace(false);
        self.gates.cut();
        self.end_streams(Code::Ok);
        match &self.master {
            // Its device gateways are other processes and keep running.
            Some(master) => master.forget_tokens(),
            None => drop(self.world.with_all(SimulatedGateway::restart)),
        }
    }

    /// The second half of a restart: the gateway starts, on the same port.
    pub fn start_listening(&self) {
        // What devices did meanwhile, they did without this gateway.
        if self.master.is_none() {
            self.world.with_all(SimulatedGateway::restart);
        }
        // Another fault may have opened the port meanwhile.
        self.gates.cut();
        self.port_wanted.send_replace(true);
    }

    pub(crate) fn end_streams(&self, code: Code) {
        let outcome = match code {
            Code::Ok => Ok(()),
            code => Err(Status::new(code, "the gateway ended the stream")),
        };
        self.world.end_streams(&outcome);
        if let Some(master) = &self.master {
            master.end_streams(&outcome);
        }
    }

    /// The managed devices, as `GetDeviceList` returns them.
    pub fn managed(&self) -> Vec<DeviceInfo> {
        self.world.with_all(|gateway, _| gateway.connections().list()).concat()
    }

    /// Calls `observe` with the managed devices now and after each change, before a client can see
    /// it.
    #[cfg(feature = "model")]
    pub fn observe_managed(&self, mut observe: impl FnMut(Vec<DeviceInfo>) + Send + 'static) {
        self.world.observe(move |gateways| {
            observe(gateways.iter().flat_map(|gateway| gateway.connections().list()).collect());
        });
    }

    /// The devices of the site, managed or not, in order of their IDs within a gateway.
    pub fn devices(&self) -> Vec<SiteDevice> {
        let devices = |gateway: &mut SimulatedGateway, _| {
            gateway.connections().subnet().devices().cloned().collect::<Vec<_>>()
        };
        self.world.with_all(devices).concat()
    }

    /// The refused devices, as `GetPendingList` returns them.
    pub fn pending(&self) -> Vec<PendingDeviceInfo> {
        self.world.with_all(|gateway, _| gateway.connections().pending()).concat()
    }

    /// Replaces the first gateway's accept filter, as another client would. `false` if it is
    /// invalid.
    pub fn set_filter(&self, filter: AcceptFilter) -> bool {
        let set = self.world.with(0, |gateway, _| gateway.set_filter(Some(filter)));
        set.is_some_and(|set| set.is_ok())
    }

    /// The first gateway's accept filter.
    pub fn filter(&self) -> AcceptFilter {
        let filter =
            |gateway: &mut SimulatedGateway, _| gateway.connections_mut().admission_mut().filter();
        self.world.with(0, filter).unwrap_or_default()
    }

    /// The slaves of each device, as `GetSlaveDevice` returns them.
    pub fn slaves(&self) -> Vec<SlaveDeviceInfo> {
        self.world.with_all(|gateway, _| gateway.slaves()).concat()
    }

    /// The counts of the open subscriptions.
    pub fn subscriptions(&self) -> Vec<SubscriptionReport> {
        self.world.subscriptions()
    }

    /// How often each method was called, with old and new package names.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.interceptor.calls()
    }

    /// The number of open client connections.
    pub fn connections_count(&self) -> usize {
        self.gates.open_count()
    }
}
