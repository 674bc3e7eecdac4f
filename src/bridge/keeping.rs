//! What the bridge remembers: written in each turn, given up and begun anew.
//!
//! May not publish, nor write over what nobody has read (`taking_up` reads it). A turn's events and
//! the states they lead to are one batch, written before any of it may be published (design,
//! decision 4). Where that fails, what was in it has been seen by nobody: it becomes the first of
//! a new chain.

use std::path::PathBuf;
use std::time::{Duration, Instant as StdInstant};

use tokio::time::Instant;

use super::Bridge;
use super::wiring::new_chain_id;
use crate::fleet::DeviceEvent;
use crate::outbox::store::{Found, Key, Late, Seen, StateDir, Store, StoreError, SyncMode};
use crate::payload::{BridgeEventKind, DeviceEventPayload, Subject, to_bytes};

/// Between two attempts to begin the store anew after it failed (design, decision 4).
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// How long it may stay unwritten that the broker has taken an event: a process that is killed
/// meanwhile sends it again, and the events that come meanwhile are written with it in one go.
const TAKEN_WAITS: Duration = Duration::from_millis(20);

/// How long the disk may be at a sync before it is said to hang.
const HANGS_AFTER: Duration = Duration::from_secs(10);

const HANGS: &str = "the disk has not answered for 10 s: what is written meanwhile would not \
                     survive a power cut; look at the disk or the network file system";

/// Where the store is, and how it stands.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    mode: SyncMode,
    dir: Option<StateDir>,
    /// What of the directory has been read; `None` where nothing could be.
    pub(super) seen: Option<Seen>,
    fault: Option<String>,
    retry_at: Option<Instant>,
    /// When what the broker has taken is to be written down.
    write_at: Option<Instant>,
    /// The disk does not answer.
    hangs: bool,
    /// The store knows that the broker's memory is still to be looked through.
    looking: bool,
}

impl Keeper {
    pub(super) const fn new(path: PathBuf, mode: SyncMode) -> Self {
        Self {
            path,
            mode,
            dir: None,
            seen: None,
            fault: None,
            retry_at: None,
            write_at: None,
            hangs: false,
            looking: false,
        }
    }

    /// Holds the state directory and opens what is in it.
    ///
    /// # Errors
    /// When another process holds it.
    pub(super) fn open(&mut self) -> Result<Found, StoreError> {
        let mode = self.mode;
        match self.hold().map(|dir| Store::open(dir, mode)) {
            Ok(found) => Ok(found),
            Err(held @ StoreError::Held { .. }) => Err(held),
            Err(error) => Ok(Store::look(&self.path, error)),
        }
    }

    /// Holds the directory that is at its path now, which may be another than before.
    fn hold(&mut self) -> Result<&StateDir, StoreError> {
        if self.dir.as_ref().is_some_and(|held| !held.is_there()) {
            (self.dir, self.seen) = (None, None);
        }
        match &mut self.dir {
            Some(held) => Ok(held),
            none => Ok(none.insert(StateDir::hold(&self.path)?)),
        }
    }

    /// Reads the directory, unless it has been read.
    pub(super) fn look_again(&mut self) -> Result<Option<Late>, StoreError> {
        self.hold()?;
        let Some(dir) = &self.dir else { return Ok(None) };
        let seen = self.seen.as_ref().is_some_and(|seen| seen.is_of(dir));
        if seen { Ok(None) } else { Store::late(dir).map(Some) }
    }

    /// Why what is written would not outlive everything, if it would not.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref().or(self.hangs.then_some(HANGS))
    }

    /// When there is something to do although nothing comes in.
    pub(super) fn due(&self) -> Option<Instant> {
        self.retry_at.into_iter().chain(self.write_at).min()
    }

    /// Whether what the broker has taken need not be written down yet.
    fn waits(&mut self) -> bool {
        let now = Instant::now();
        *self.write_at.get_or_insert(now + TAKEN_WAITS) > now
    }
}

impl Bridge {
    /// Says whether the disk answers.
    fn watch_the_disk(&mut self) {
        let hangs = self.outbox.disk_hangs(HANGS_AFTER);
        if std::mem::replace(&mut self.keeper.hangs, hangs) != hangs {
            if hangs {
                tracing::error!(state_dir = %self.keeper.path.display(), "the store: {HANGS}");
            } else {
                tracing::info!("the disk answers again");
            }
            self.show_store();
        }
    }

    fn show_store(&self) {
        self.metrics.store_ok.set(if self.keeper.fault().is_none() { 1.0 } else { 0.0 });
    }

    /// Writes what this turn has brought; nothing of it may be published before.
    pub(super) fn write_down(&mut self) {
        self.watch_the_disk();
        let appended = self.append_unwritten();
        self.losses.write_down(&mut self.outbox);
        let looking = self.stale_topics.are_open();
        if std::mem::replace(&mut self.keeper.looking, looking) != looking {
            self.outbox.note(Key::Leftovers, looking.then_some(&[]));
        }
        for (gateway, device_id) in std::mem::take(&mut self.touched) {
            let Some(entry) = self.directory.gateway(gateway) else { continue };
            match self.fleet.remembered(gateway, device_id) {
                Some(device) => self.outbox.remember(&entry.name, device_id, &device),
                None => self.outbox.note(Key::Device(entry.name.clone(), device_id), None),
            }
        }
        if self.outbox.can_wait() && self.keeper.waits() {
            return;
        }
        self.keeper.write_at = None;
        if let Err(error) = self.outbox.commit() {
            let from = self.directory.chain.clone();
            self.store_failed(&error, Some(from), &appended);
        }
        self.unwritten.clear();
        if self.keeper.retry_at.is_some_and(|at| at <= Instant::now()) {
            match self.begin_anew() {
                Ok(()) => tracing::info!("the store takes what is written again"),
                Err(error) => {
                    tracing::debug!(%error, "the store still fails");
                    self.keeper.fault = Some(error.to_string());
                    self.keeper.retry_at = Some(Instant::now() + RETRY_EVERY);
                }
            }
        }
    }

    /// Appends this turn's device events; returns where each of them stands in the outbox.
    fn append_unwritten(&mut self) -> Vec<(Subject, u64)> {
        let unwritten = std::mem::take(&mut self.unwritten);
        let mut appended = Vec::with_capacity(unwritten.len());
        for (event, read_at) in &unwritten {
            let Some((subject, payload)) = self.written(event) else { continue };
            tracing::debug!(%subject, status = %event.status, seq = event.seq, "device event");
            self.append(subject.clone(), event.event_type.name(), payload, *read_at);
            appended.push((subject, self.outbox.last_number()));
        }
        self.unwritten = unwritten;
        appended
    }

    fn written(&self, event: &DeviceEvent) -> Option<(Subject, bytes::Bytes)> {
        let entry = self.directory.gateway(event.gateway)?;
        let subject = Subject::Device(entry.name.clone(), event.device_id);
        Some((subject, to_bytes(&DeviceEventPayload::new(&self.directory, entry, event))))
    }

    /// Goes on in memory under a new chain. `from`: the chain that ends, if one was begun;
    /// `appended`: where this turn's events stand.
    pub(super) fn store_failed(
        &mut self,
        error: &StoreError,
        from: Option<String>,
        appended: &[(Subject, u64)],
    ) {
        let reason = error.to_string();
        tracing::error!(%error, "nothing is kept from now on: going on in memory");
        self.turn_chain(new_chain_id());
        let mut unwritten = std::mem::take(&mut self.unwritten);
        self.fleet
            .new_chain(unwritten.iter_mut().map(|(event, _): &mut (_, Option<StdInstant>)| event));
        for ((event, _), (_, number)) in unwritten.iter().zip(appended) {
            if let Some((subject, payload)) = self.written(event) {
                self.outbox.rewrite(&subject, *number, payload);
            }
        }
        self.bridge_event(&BridgeEventKind::StoreFailed { reason: reason.clone() });
        let to = self.directory.chain.clone();
        let event = BridgeEventKind::ChainReset { from, to, reason: reason.clone() };
        self.bridge_event(&event);
        self.publisher.all_changed(&self.fleet);
        self.keeper.fault = Some(reason);
        self.show_store();
        self.keeper.retry_at = Some(Instant::now() + RETRY_EVERY);
    }

    /// Begins the store anew, in fresh files, with all that is known.
    pub(super) fn begin_anew(&mut self) -> Result<(), StoreError> {
        self.take_up_late()?;
        let keeper = &mut self.keeper;
        let (mode, seen) = (keeper.mode, keeper.seen.clone().unwrap_or_default());
        let dir = keeper.hold()?;
        let (fleet, directory) = (&self.fleet, &self.directory);
        let devices = fleet.gateways().filter_map(|gateway| {
            let name = &directory.gateway(gateway)?.name;
            Some(fleet.all_remembered(gateway).map(move |(id, device)| (name, id, device)))
        });
        let desired = fleet.gateways().filter_map(|gateway| {
            let name = directory.gateway(gateway)?.name.clone();
            Some((Key::Desired(name), self.desired.note(gateway)?))
        });
        let intents = self.requests.intents();
        let intents = intents
            .map(|(gateway, intent)| (Key::Intent(gateway.clone()), to_bytes(intent).to_vec()));
        let gateways = directory.gateways.iter().map(|entry| &entry.name);
        let gateways = gateways.chain(self.stale_topics.gone());
        let gateways = gateways.map(|name| (Key::Gateway(name.clone()), Vec::new()));
        let clearing = self.publisher.clearing();
        let clearing = clearing.map(|topic| (Key::Clearing(topic.clone()), Vec::new()));
        let looking = self.stale_topics.are_open();
        let looking_note = looking.then(|| (Key::Leftovers, Vec::new()));
        let notes = desired.chain(intents).chain(gateways).chain(clearing).chain(looking_note);
        let batches = self.outbox.anew(devices.flatten(), notes.chain(self.losses.notes()));
        let store = Store::fresh(dir, mode, &directory.chain, &seen, batches)?;
        self.outbox.keep(store);
        self.keeper.looking = looking;
        self.keeper.fault = None;
        self.show_store();
        self.keeper.retry_at = None;
        Ok(())
    }

    pub(super) fn turn_chain(&mut self, chain: String) {
        self.info.chain.clone_from(&chain);
        self.directory.chain = chain;
        self.publisher.bridge_info_changed();
    }

    /// The last word to the store, once nothing more can be acknowledged.
    pub(super) fn stop_keeping(&mut self) {
        self.keeper.write_at = Some(Instant::now());
        self.write_down();
        if self.keeper.hangs {
            tracing::warn!(
                events = self.outbox.len(),
                "the disk does not answer: stopping as if killed"
            );
            self.outbox.let_go();
            return;
        }
        let mut kept = self.outbox.is_kept() && self.stopped_in_order();
        if !kept {
            // All that is to be kept is still in memory: a last attempt.
            kept = match self.begin_anew() {
                Ok(()) => self.stopped_in_order(),
                Err(error) => {
                    tracing::error!(%error, "the store still fails");
                    false
                }
            };
        }
        let events = self.outbox.len();
        if events > 0 && kept {
            tracing::info!(events, "not taken by the broker yet: kept for the next start");
        } else if events > 0 {
            tracing::warn!(events, "not taken by the broker, and not kept: lost");
        }
    }

    /// Whether all is on the disk. Where not, a new chain has begun.
    fn stopped_in_order(&mut self) -> bool {
        let stopped = self.outbox.stop();
        if let Err(error) = &stopped {
            self.store_failed(error, Some(self.directory.chain.clone()), &[]);
        }
        stopped.is_ok()
    }
}
