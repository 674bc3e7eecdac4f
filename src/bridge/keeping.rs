//! What the bridge remembers: taken up at start, written in each turn, given up and begun anew.
//!
//! May not publish. A turn's events and the states they lead to are one batch, written before any
//! of it may be published (design, decision 4). Where that fails, what was in it has been seen by
//! nobody, so it becomes the first of a new chain.

use std::path::PathBuf;
use std::time::{Duration, Instant as StdInstant};

use tokio::time::Instant;

use super::Bridge;
use super::wiring::new_chain_id;
use crate::fleet::{DeviceEvent, GatewayIndex, Remembered};
use crate::ids::{DeviceId, GatewayName};
use crate::outbox::store::{Content, Found, Key, StateDir, Store, StoreError, SyncMode, Verdict};
use crate::payload::{BridgeEventKind, DeviceEventPayload, Subject, to_bytes};

/// Between two attempts to begin the store anew after it failed (design, decision 4).
const RETRY_EVERY: Duration = Duration::from_secs(10);

/// Where the store is, and how it stands.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    mode: SyncMode,
    dir: Option<StateDir>,
    fault: Option<String>,
    retry_at: Option<Instant>,
}

impl Keeper {
    pub(super) const fn new(path: PathBuf, mode: SyncMode) -> Self {
        Self { path, mode, dir: None, fault: None, retry_at: None }
    }

    /// Holds the state directory and opens what is in it.
    ///
    /// # Errors
    /// When another process holds it.
    pub(super) fn open(&mut self) -> Result<Found, StoreError> {
        match hold(&mut self.dir, &self.path) {
            Ok(dir) => Ok(Store::open(dir, self.mode)),
            Err(held @ StoreError::Held { .. }) => Err(held),
            Err(error) => Ok(Store::look(&self.path, error)),
        }
    }

    /// Why nothing is kept, if nothing is.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// When the store is to be tried again.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.retry_at
    }
}

fn hold<'a>(
    dir: &'a mut Option<StateDir>,
    path: &std::path::Path,
) -> Result<&'a StateDir, StoreError> {
    match dir {
        Some(held) => Ok(held),
        None => Ok(dir.insert(StateDir::hold(path)?)),
    }
}

impl Bridge {
    /// Takes up what an earlier process left, before the first turn.
    pub(super) fn take_up(&mut self, found: Found) {
        let Found { content, verdict } = found;
        match verdict {
            Verdict::GoesOn(chain, store) => {
                // First, so that what is found to be gone is taken out of it too.
                self.turn_chain(chain);
                self.outbox.keep(*store);
                self.restore(content, true);
                let (chain, events) = (&self.directory.chain, self.outbox.len());
                tracing::info!(chain, events, "the chain goes on");
            }
            Verdict::Unwritable { from, error } => {
                self.restore(content, false);
                self.store_failed(&error, from, &[]);
            }
            Verdict::Ends { from, reason } => {
                self.restore(content, false);
                if let Some(reason) = reason {
                    let to = self.directory.chain.clone();
                    self.bridge_event(&BridgeEventKind::ChainReset { from, to, reason });
                }
                if let Err(error) = self.begin_anew() {
                    self.store_failed(&error, None, &[]);
                }
            }
        }
    }

    fn restore(&mut self, content: Content, goes_on: bool) {
        if !goes_on {
            self.leftovers.look();
        }
        self.outbox.restore(content.events, content.lost);
        self.restore_devices(content.devices, goes_on);
        self.restore_desired(content.desired);
        self.tell_interrupted(content.intents);
    }

    /// Changes with steps that an earlier process had under way: told, and not resumed.
    fn tell_interrupted(&mut self, intents: Vec<(GatewayName, Vec<u8>)>) {
        for (gateway, note) in intents {
            self.outbox.note(Key::Intent(gateway.clone()), None);
            let Ok(intent) = serde_json::from_slice(&note) else { continue };
            tracing::warn!(%gateway, ?intent, "a change was cut short; look at its devices");
            self.bridge_event(&BridgeEventKind::CommandInterrupted { gateway, intent });
        }
    }

    fn restore_devices(
        &mut self,
        devices: Vec<(GatewayName, DeviceId, Remembered)>,
        goes_on: bool,
    ) {
        let now = self.clock.now();
        let mut gone: Vec<(GatewayName, Vec<DeviceId>)> = Vec::new();
        for (name, device_id, device) in devices {
            let at = self.directory.gateways.iter().position(|entry| entry.name == name);
            if let Some(at) = at {
                // Of a chain that has ended, a forgotten device's place says nothing.
                if goes_on || !device.forgotten {
                    let seq = if goes_on { device.seq } else { 0 };
                    let device = Remembered { seq, ..device };
                    self.fleet.restore(now, GatewayIndex(at), device_id, device);
                }
                continue;
            }
            if device.forgotten {
                continue;
            }
            self.outbox.remember(&name, device_id, &device.forget());
            match gone.last_mut().filter(|(known, _)| *known == name) {
                Some((_, ids)) => ids.push(device_id),
                None => gone.push((name, vec![device_id])),
            }
        }
        for (gateway, ids) in gone {
            tracing::info!(%gateway, devices = ids.len(), "not configured any more: forgotten");
            self.publisher.gateway_gone(&gateway, ids);
        }
    }

    /// Writes what this turn has brought; nothing of it may be published before.
    pub(super) fn write_down(&mut self) {
        let appended = self.append_unwritten();
        for (gateway, device_id) in std::mem::take(&mut self.touched) {
            let Some(entry) = self.directory.gateway(gateway) else { continue };
            match self.fleet.remembered(gateway, device_id) {
                Some(device) => self.outbox.remember(&entry.name, device_id, &device),
                None => self.outbox.note(Key::Device(entry.name.clone(), device_id), None),
            }
        }
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
    fn store_failed(
        &mut self,
        error: &StoreError,
        from: Option<String>,
        appended: &[(Subject, u64)],
    ) {
        let reason = error.to_string();
        tracing::error!(%error, "nothing is kept from now on: going on in memory");
        self.turn_chain(new_chain_id());
        let mut unwritten = std::mem::take(&mut self.unwritten);
        self.fleet.new_chain(unwritten.iter_mut().map(|(event, _): &mut (_, StdInstant)| event));
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
        self.metrics.store_ok.set(0.0);
        self.keeper.fault = Some(reason);
        self.keeper.retry_at = Some(Instant::now() + RETRY_EVERY);
    }

    /// Begins the store anew, in fresh files, with all that is known.
    fn begin_anew(&mut self) -> Result<(), StoreError> {
        let keeper = &mut self.keeper;
        let dir = hold(&mut keeper.dir, &keeper.path)?;
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
        let batches = self.outbox.anew(devices.flatten(), desired.chain(intents));
        let store = Store::fresh(dir, keeper.mode, &directory.chain, batches)?;
        self.outbox.keep(store);
        self.metrics.store_ok.set(1.0);
        self.keeper.fault = None;
        self.keeper.retry_at = None;
        Ok(())
    }

    fn turn_chain(&mut self, chain: String) {
        self.info.chain.clone_from(&chain);
        self.directory.chain = chain;
        self.publisher.bridge_info_changed();
    }

    /// The last word to the store, once nothing more can be acknowledged.
    pub(super) fn stop_keeping(&mut self) {
        self.write_down();
        let (events, kept) = (self.outbox.len(), self.outbox.is_kept());
        if events > 0 && kept {
            tracing::info!(events, "not taken by the broker yet: kept for the next start");
        } else if events > 0 {
            tracing::warn!(events, "not taken by the broker, and not kept: lost");
        }
        if let Err(error) = self.outbox.stop() {
            tracing::error!(%error, "the store could not be stopped in order");
        }
    }
}
