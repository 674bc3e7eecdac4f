//! The one place where simulated gateways meet time and subscriptions.
//!
//! May not know gRPC services or sockets. Everything happens under one lock that is never held
//! across an await; one task, `drive`, wakes the gateways when something is due.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tonic::Status;

use super::fault::Fault;
use super::gateway::{Clock, Gateway, Millis, Output, Refusal};
use super::queue::{Queue, Subscription, SubscriptionReport};
use crate::proto::connect::StatusChange;

/// A `Connect` of a gateway that is waited for: the gateway's place and the attempt's number.
type Waited = (usize, u64);

/// How one `Connect` ended.
type ConnectResult = Result<u32, Refusal>;

/// A fault of devices that is to come, with its own chance so that no other disturbs it.
struct Planned {
    fault: Fault,
    rng: fastrand::Rng,
    every: Option<Millis>,
    left: Option<u64>,
}

struct State {
    gateways: Vec<Gateway>,
    /// Which gateways the master hears; a device gateway on its own is always heard.
    linked: Vec<bool>,
    /// What is to befall the gateways, by its moment and then by its order.
    agenda: BTreeMap<(Millis, usize), Planned>,
    /// Decides what faults ordered at run time leave to chance.
    rng: fastrand::Rng,
    subscriptions: Vec<Arc<Queue<StatusChange>>>,
    subscriptions_made: u64,
    waiting: HashMap<Waited, oneshot::Sender<ConnectResult>>,
    /// What `drive` sleeps for; an earlier need wakes it.
    sleeping_until: Option<Millis>,
}

/// Gateways, their time and their subscribers.
pub(crate) struct Hub {
    started: Instant,
    state: Mutex<State>,
    wake: Notify,
}

impl Hub {
    /// A hub whose time begins now; `make` builds the gateways by that clock.
    pub(crate) fn new(seed: u64, make: impl FnOnce(Clock) -> Vec<Gateway>) -> Arc<Self> {
        let unix = crate::net::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start_unix_ms = i64::try_from(unix.as_millis()).unwrap_or(0);
        let gateways = make(Clock { start_unix_ms, skew_ms: 0 });
        let state = State {
            linked: vec![true; gateways.len()],
            gateways,
            agenda: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(seed),
            subscriptions: Vec::new(),
            subscriptions_made: 0,
            waiting: HashMap::new(),
            sleeping_until: None,
        };
        Arc::new(Self { started: Instant::now(), state: Mutex::new(state), wake: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// How many gateways there are.
    pub(crate) fn gateways_count(&self) -> usize {
        self.lock().gateways.len()
    }

    /// The place of the gateway with this ID.
    pub(crate) fn find(&self, id: &str) -> Option<usize> {
        self.lock().gateways.iter().position(|gateway| gateway.id() == id)
    }

    /// The IDs of all gateways.
    pub(crate) fn gateway_ids(&self) -> Vec<String> {
        self.lock().gateways.iter().map(|gateway| gateway.id().to_owned()).collect()
    }

    /// The place of the gateway that is heard and manages this device.
    pub(crate) fn manager_of(&self, id: u32) -> Option<usize> {
        let state = self.lock();
        let mut all = state.gateways.iter().zip(&state.linked);
        all.position(|(gateway, linked)| *linked && gateway.manages(id))
    }

    /// Whether the gateway at `place` is heard.
    pub(crate) fn is_linked(&self, place: usize) -> bool {
        self.lock().linked.get(place) == Some(&true)
    }

    /// Has the gateway at `place` heard or not from now on; whether it was before.
    pub(crate) fn set_linked(&self, place: usize, linked: bool) -> bool {
        let now = self.now();
        let mut state = self.lock();
        state.do_planned(now);
        if let Some(gateway) = state.gateways.get_mut(place) {
            gateway.advance(now);
        }
        state.send_out(place);
        state.linked.get_mut(place).is_some_and(|place| std::mem::replace(place, linked))
    }

    /// What the first gateway's clock shows, in Unix seconds; with a master, the master's.
    pub(crate) fn unix_seconds(&self) -> u32 {
        let now = self.now();
        self.lock().gateways.first().map_or(0, |gateway| gateway.unix_seconds(now))
    }

    /// Lets `act` act on the gateway at `place`, having brought it up to date, and sends out
    /// what it says. `None` if there is no such gateway.
    pub(crate) fn with<R>(
        &self,
        place: usize,
        act: impl FnOnce(&mut Gateway, Millis) -> R,
    ) -> Option<R> {
        let now = self.now();
        let mut state = self.lock();
        state.do_planned(now);
        let gateway = state.gateways.get_mut(place)?;
        gateway.advance(now);
        let result = act(gateway, now);
        state.send_out(place);
        let due = state.gateways.get(place).and_then(Gateway::next_wake);
        self.wake_by(&state, due);
        Some(result)
    }

    /// As `with`, for every gateway in turn under one lock.
    pub(crate) fn with_all<R>(&self, mut act: impl FnMut(&mut Gateway, Millis) -> R) -> Vec<R> {
        let now = self.now();
        let mut state = self.lock();
        state.do_planned(now);
        let mut results = Vec::with_capacity(state.gateways.len());
        for place in 0..state.gateways.len() {
            let Some(gateway) = state.gateways.get_mut(place) else { continue };
            gateway.advance(now);
            results.push(act(gateway, now));
            state.send_out(place);
        }
        let due = state.next_wake();
        self.wake_by(&state, due);
        results
    }

    /// Plans a fault of devices for `at`, and again each `every` until `times` have been.
    ///
    /// It befalls the gateways at exactly that moment of their time, however late the machine is:
    /// the same plan gives the same history.
    pub(crate) fn plan(
        &self,
        fault: Fault,
        at: Millis,
        every: Option<Millis>,
        times: Option<u64>,
        seed: u64,
    ) {
        let mut state = self.lock();
        let order = state.agenda.len();
        let rng = fastrand::Rng::with_seed(seed);
        state.agenda.insert((at, order), Planned { fault, rng, every, left: times });
        let due = state.next_wake();
        self.wake_by(&state, due);
    }

    /// Applies a fault of devices now; how many devices it befell.
    pub(crate) fn apply(&self, fault: &Fault) -> usize {
        let now = self.now();
        let mut state = self.lock();
        state.do_planned(now);
        let done = state.apply(fault, now, None);
        let due = state.next_wake();
        self.wake_by(&state, due);
        done
    }

    fn wake_by(&self, state: &State, due: Option<Millis>) {
        let earlier = match (due, state.sleeping_until) {
            (Some(due), Some(until)) => due < until,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if earlier {
            self.wake.notify_one();
        }
    }

    /// Begins a `Connect` by `begin` and waits for its end. Dropping the future gives it up.
    pub(crate) async fn connect(
        &self,
        place: usize,
        begin: impl FnOnce(&mut Gateway, Millis) -> Result<u64, Refusal>,
    ) -> ConnectResult {
        let (sender, receiver) = oneshot::channel();
        let attempt = {
            let now = self.now();
            let mut state = self.lock();
            state.do_planned(now);
            let gateway = state.gateways.get_mut(place).ok_or_else(restarting)?;
            gateway.advance(now);
            let attempt = begin(gateway, now);
            if let Ok(attempt) = attempt {
                state.waiting.insert((place, attempt), sender);
            }
            state.send_out(place);
            let due = state.next_wake();
            self.wake_by(&state, due);
            attempt?
        };
        let _guard = GiveUp { hub: self, waited: (place, attempt) };
        receiver.await.unwrap_or_else(|_| Err(restarting()))
    }

    /// Ends every `Connect` under way, as when the process is gone.
    pub(crate) fn give_up_all(&self) {
        self.lock().waiting.clear();
    }

    /// A new subscription to all gateways' status changes.
    pub(crate) fn subscribe(&self, queue_size: i32) -> Result<Subscription<StatusChange>, Status> {
        let mut state = self.lock();
        state.subscriptions_made += 1;
        let (queue, stream) = Queue::open(state.subscriptions_made, queue_size)?;
        state.subscriptions.push(queue);
        Ok(stream)
    }

    /// Ends every subscription, telling its client `outcome`.
    pub(crate) fn end_streams(&self, outcome: &Result<(), Status>) {
        let mut state = self.lock();
        for queue in state.subscriptions.drain(..) {
            queue.end(outcome.clone());
        }
    }

    /// What the living subscriptions have been given so far.
    pub(crate) fn subscriptions(&self) -> Vec<SubscriptionReport> {
        self.lock().subscriptions.iter().map(|queue| queue.report()).collect()
    }

    /// Wakes the gateways when something is due, for ever.
    pub(crate) async fn drive(self: Arc<Self>) {
        loop {
            let next = {
                let now = self.now();
                let mut state = self.lock();
                state.do_planned(now);
                for place in 0..state.gateways.len() {
                    if let Some(gateway) = state.gateways.get_mut(place) {
                        gateway.advance(now);
                    }
                    state.send_out(place);
                }
                state.sleeping_until = state.next_wake();
                state.sleeping_until
            };
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

impl State {
    fn next_wake(&self) -> Option<Millis> {
        let planned = self.agenda.keys().next().map(|(due, _)| *due);
        self.gateways.iter().filter_map(Gateway::next_wake).chain(planned).min()
    }

    /// Brings all gateways to `now`, lets the fault befall them, and sends out what they say.
    fn apply(&mut self, fault: &Fault, now: Millis, rng: Option<&mut fastrand::Rng>) -> usize {
        for gateway in &mut self.gateways {
            gateway.advance(now);
        }
        let rng = rng.unwrap_or(&mut self.rng);
        let done = fault.apply(&mut self.gateways, now, rng);
        for place in 0..self.gateways.len() {
            self.send_out(place);
        }
        done
    }

    /// Does what was planned up to `now`, each at its own moment.
    fn do_planned(&mut self, now: Millis) {
        while let Some(entry) = self.agenda.first_entry() {
            let (due, order) = *entry.key();
            if due > now {
                break;
            }
            let mut planned = entry.remove();
            self.apply(&planned.fault, due, Some(&mut planned.rng));
            planned.left = planned.left.map(|left| left.saturating_sub(1));
            if let Some(every) = planned.every
                && planned.left != Some(0)
            {
                self.agenda.insert((due + every.max(1), order), planned);
            }
        }
    }

    /// Hands what a gateway has said to subscriptions and waiting callers.
    fn send_out(&mut self, place: usize) {
        let Some(gateway) = self.gateways.get_mut(place).filter(|one| one.has_outputs()) else {
            return;
        };
        let mut changes = Vec::new();
        for output in gateway.take_outputs() {
            match output {
                Output::Status(change) => changes.push(change),
                Output::Connected { attempt, result } => {
                    if let Some(waiting) = self.waiting.remove(&(place, attempt)) {
                        // A caller that has just gone away hears nothing, as it wanted.
                        let _ = waiting.send(result);
                    }
                }
            }
        }
        if !changes.is_empty() && self.linked.get(place) == Some(&true) {
            self.subscriptions.retain(|queue| queue.offer(&changes));
        }
    }
}

fn restarting() -> Refusal {
    Refusal::new(tonic::Code::Unavailable, "the gateway is restarting")
}

/// Gives up an attempt whose caller has gone.
struct GiveUp<'a> {
    hub: &'a Hub,
    waited: Waited,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        if state.waiting.remove(&self.waited).is_some()
            && let Some(gateway) = state.gateways.get_mut(self.waited.0)
        {
            gateway.abandon(self.waited.1);
        }
    }
}
