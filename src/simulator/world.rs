//! All simulated gateways with their common time, planned faults and subscribers.
//!
//! All changes are made under one lock that is never held across an await; one task, which awaits
//! `due_faults`, wakes the gateways when something is due.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;

use super::fault::{Fault, ScenarioStep};
use super::gateway::{Millis, SimulatedGateway};
use super::queue::{SubscriberStream, SubscriptionReport, Subscriptions};
use crate::proto::connect::{ConnectInfo, StatusChange};
use crate::proto::event::EventLog;

/// A fault that is still to come, with a random generator of its own, so that other faults do not
/// change its choices.
struct Planned {
    fault: Fault,
    rng: fastrand::Rng,
    every: Option<Millis>,
    left: Option<u64>,
}

struct WorldState {
    gateways: Vec<SimulatedGateway>,
    /// Faults to come, by their time and then by their order in the scenario.
    planned: BTreeMap<(Millis, usize), Planned>,
    /// Faults that are due and act on connections or calls.
    due: Vec<Fault>,
    /// For faults applied at run time.
    rng: fastrand::Rng,
    subscriptions: Subscriptions<StatusChange>,
    log_subscriptions: Subscriptions<EventLog>,
    /// The time for which `due_faults` sleeps.
    sleeps_until: Option<Millis>,
    #[cfg(feature = "model")]
    observers: Vec<Observer>,
}

/// Called with the gateways after each of their changes.
#[cfg(feature = "model")]
type Observer = Box<dyn FnMut(&[SimulatedGateway]) + Send>;

/// Gateways, their time and their subscribers.
pub(crate) struct World {
    started: Instant,
    state: Mutex<WorldState>,
    wake: Notify,
}

impl World {
    /// A world whose time begins now.
    pub(crate) fn new(seed: u64, gateways: Vec<SimulatedGateway>) -> Arc<Self> {
        let state = WorldState {
            gateways,
            planned: BTreeMap::new(),
            due: Vec::new(),
            rng: fastrand::Rng::with_seed(seed),
            subscriptions: Subscriptions::default(),
            log_subscriptions: Subscriptions::default(),
            sleeps_until: None,
            #[cfg(feature = "model")]
            observers: Vec::new(),
        };
        Arc::new(Self { started: Instant::now(), state: Mutex::new(state), wake: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, WorldState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// Brings everything up to the present, acts, and delivers what the gateways report.
    fn update<R>(&self, act: impl FnOnce(&mut WorldState, Millis) -> R) -> R {
        let now = self.now();
        let mut state = self.lock();
        state.advance(now);
        let result = act(&mut state, now);
        state.deliver();
        let next = state.next_wake();
        if next.is_some_and(|next| state.sleeps_until.is_none_or(|until| next < until)) {
            self.wake.notify_one();
        }
        result
    }

    /// Calls `observe` with the gateways now and after each change, before a client can see it.
    #[cfg(feature = "model")]
    pub(crate) fn observe(&self, mut observe: impl FnMut(&[SimulatedGateway]) + Send + 'static) {
        self.update(|state, _| {
            observe(&state.gateways);
            state.observers.push(Box::new(observe));
        });
    }

    pub(crate) fn gateways_count(&self) -> usize {
        self.lock().gateways.len()
    }

    /// The index of the gateway with this ID.
    pub(crate) fn find(&self, id: &str) -> Option<usize> {
        self.lock().gateways.iter().position(|gateway| gateway.id() == id)
    }

    pub(crate) fn gateway_ids(&self) -> Vec<String> {
        self.lock().gateways.iter().map(|gateway| gateway.id().to_owned()).collect()
    }

    /// The index of the linked gateway that manages this device.
    fn manager_of(&self, id: u32) -> Option<usize> {
        let manages = |gateway: &SimulatedGateway| {
            gateway.is_linked() && gateway.connections().managed().contains_key(&id)
        };
        self.lock().gateways.iter().position(manages)
    }

    pub(crate) fn is_linked(&self, index: usize) -> bool {
        self.lock().gateways.get(index).is_some_and(SimulatedGateway::is_linked)
    }

    /// Connects a gateway to the master or disconnects it; returns whether it was connected.
    pub(crate) fn set_linked(&self, index: usize, linked: bool) -> bool {
        self.update(|state, _| {
            // What happened before still belongs to the former state.
            state.deliver();
            state.gateways.get_mut(index).is_some_and(|gateway| gateway.set_linked(linked))
        })
    }

    /// What the first gateway's clock shows, in Unix seconds; with a master, the master's.
    pub(crate) fn unix_seconds(&self) -> u32 {
        let now = self.now();
        let clock =
            |one: &mut SimulatedGateway| one.connections_mut().reports_mut().unix_seconds(now);
        self.lock().gateways.first_mut().map_or(0, clock)
    }

    /// Acts on one gateway. `None` if there is no such gateway.
    pub(crate) fn with<R>(
        &self,
        index: usize,
        act: impl FnOnce(&mut SimulatedGateway, Millis) -> R,
    ) -> Option<R> {
        self.update(|state, now| state.gateways.get_mut(index).map(|gateway| act(gateway, now)))
    }

    /// Acts on one gateway; an error if there is no such gateway.
    pub(crate) fn try_with<R>(
        &self,
        index: usize,
        act: impl FnOnce(&mut SimulatedGateway, Millis) -> Result<R, Status>,
    ) -> Result<R, Status> {
        let absent = || Err(Status::unavailable("the gateway is not there"));
        self.with(index, act).unwrap_or_else(absent)
    }

    /// Acts on the gateway that manages the device; the first one refuses a device that none does.
    pub(crate) fn try_with_manager<R>(
        &self,
        id: u32,
        act: impl FnOnce(&mut SimulatedGateway, Millis) -> Result<R, Status>,
    ) -> Result<R, Status> {
        self.try_with(self.manager_of(id).unwrap_or(0), act)
    }

    /// Acts on every gateway in turn.
    pub(crate) fn with_all<R>(
        &self,
        mut act: impl FnMut(&mut SimulatedGateway, Millis) -> R,
    ) -> Vec<R> {
        self.update(|state, now| state.gateways.iter_mut().map(|one| act(one, now)).collect())
    }

    /// Plans the steps of a scenario. Those that act on devices are applied at exactly their moment
    /// of the gateways' time, however late the machine is: the same plan gives the same history.
    pub(crate) fn plan(&self, steps: &[ScenarioStep], seed: u64) {
        let mut state = self.lock();
        for (number, step) in steps.iter().enumerate() {
            let seed = seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
            let planned = Planned {
                fault: step.fault.clone(),
                rng: fastrand::Rng::with_seed(seed),
                every: step.every_s.map(millis),
                left: step.times,
            };
            state.planned.insert((millis(step.at_s), number), planned);
        }
    }

    /// Acts on all gateways at once.
    pub(crate) fn apply<R>(
        &self,
        act: impl FnOnce(&mut [SimulatedGateway], Millis, &mut fastrand::Rng) -> R,
    ) -> R {
        self.update(|state, now| act(&mut state.gateways, now, &mut state.rng))
    }

    /// `Connect`. Dropping the future abandons it.
    pub(crate) async fn connect(
        &self,
        index: usize,
        info: Option<&ConnectInfo>,
    ) -> Result<u32, Status> {
        let dialing = self.try_with(index, |gateway, now| gateway.start_connect(now, info))?;
        tokio::time::sleep_until(self.started + Duration::from_millis(dialing.until)).await;
        self.try_with(index, |gateway, now| gateway.finish_connect(now, dialing))
    }

    /// A new subscription to all gateways' status changes.
    pub(crate) fn subscribe(
        &self,
        queue_size: i32,
    ) -> Result<SubscriberStream<StatusChange>, Status> {
        self.lock().subscriptions.open(queue_size)
    }

    /// A new subscription to what monitored devices record.
    pub(crate) fn subscribe_logs(
        &self,
        queue_size: i32,
    ) -> Result<SubscriberStream<EventLog>, Status> {
        self.lock().log_subscriptions.open(queue_size)
    }

    pub(crate) fn end_streams(&self, outcome: &Result<(), Status>) {
        let mut state = self.lock();
        state.subscriptions.end(outcome);
        state.log_subscriptions.end(outcome);
    }

    pub(crate) fn subscriptions(&self) -> Vec<SubscriptionReport> {
        self.lock().subscriptions.reports()
    }

    /// Wakes the gateways whenever something is due, until faults are due that act on connections
    /// or calls; returns those.
    pub(crate) async fn due_faults(&self) -> Vec<Fault> {
        loop {
            let (faults, next) = {
                let mut state = self.lock();
                state.advance(self.now());
                state.deliver();
                state.sleeps_until = state.next_wake();
                (std::mem::take(&mut state.due), state.sleeps_until)
            };
            if !faults.is_empty() {
                return faults;
            }
            match next {
                Some(due) => {
                    let due = self.started + Duration::from_millis(due);
                    let _ = tokio::time::timeout_at(due, self.wake.notified()).await;
                }
                None => self.wake.notified().await,
            }
        }
    }
}

impl WorldState {
    fn next_wake(&self) -> Option<Millis> {
        let planned = self.planned.keys().next().map(|(due, _)| *due);
        let gateways = self.gateways.iter().filter_map(|one| one.connections().next_wake());
        gateways.chain(planned).min()
    }

    /// Brings the gateways up to `now` and applies the planned faults, each at its own moment.
    fn advance(&mut self, now: Millis) {
        while let Some(entry) = self.planned.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((due, order), mut planned) = entry.remove_entry();
            self.advance_gateways(due);
            if planned.fault.apply(&mut self.gateways, due, &mut planned.rng).is_none() {
                self.due.push(planned.fault.clone());
            }
            planned.left = planned.left.map(|left| left.saturating_sub(1));
            if let Some(every) = planned.every.filter(|_| planned.left != Some(0)) {
                self.planned.insert((due + every.max(1), order), planned);
            }
        }
        self.advance_gateways(now);
    }

    fn advance_gateways(&mut self, now: Millis) {
        for gateway in &mut self.gateways {
            gateway.connections_mut().advance(now);
        }
    }

    /// Delivers what the gateways report, and what devices record, to the subscriptions.
    fn deliver(&mut self) {
        #[cfg(feature = "model")]
        for observe in &mut self.observers {
            observe(&self.gateways);
        }
        for gateway in &mut self.gateways {
            let changes = gateway.connections_mut().reports_mut().take();
            if !changes.is_empty() && gateway.is_linked() {
                self.subscriptions.offer(&changes);
            }
            let logs = gateway.connections_mut().logs_mut().take();
            if !logs.is_empty() && gateway.is_linked() {
                self.log_subscriptions.offer(&logs);
            }
        }
    }
}

fn millis(seconds: f64) -> Millis {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
