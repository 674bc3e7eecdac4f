//! Stores the events and states of each iteration of the loop as one batch before any of them is
//! published.
//!
//! When the log fails, the bridge continues in memory under a new chain, and tries to create a new
//! log at an interval. Events of a batch that could not be written become the first of the new
//! chain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use prometheus::Histogram;
use tokio::time::Instant;

use super::event_queue::EventQueue;
use super::observations::Observations;
use crate::fleet::{Fleet, GatewayIndex};
use crate::ids::{DeviceId, Moment};
use crate::payload::Directory;
use crate::store::{
    self, HistoryStatus, Key, Log, LogContent, Record, Recorder, Recovery, StartedStore, StateDir,
    StoreError, StoreSettings, encode,
};

/// How long acknowledgements may stay unwritten. A process that is killed meanwhile sends those
/// events again; the events that come meanwhile are written with them at once.
const ACKNOWLEDGEMENTS_WITHIN: Duration = Duration::from_millis(20);
/// Between two attempts to begin a log after the last one failed.
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// How long the disk may work on one thing before it counts as hanging.
const HANGS_AFTER: Duration = Duration::from_secs(10);
const HANGS: &str = "the disk has not answered for 10 s: what is written meanwhile would not \
                     survive a power cut; check the disk or the network file system";

/// Everything that is stored.
#[derive(Debug)]
pub(crate) struct Persistence {
    settings: StoreSettings,
    dir: StateDir,
    log: LogState,
    recorder: Recorder,
    history: Arc<HistoryStatus>,
    pub(crate) events: EventQueue,
    pub(crate) observations: Observations,
    /// Devices whose stored state may have changed.
    touched: BTreeSet<(GatewayIndex, DeviceId)>,
    /// Values of other keys, for a log that begins.
    values: BTreeMap<Key, Vec<u8>>,
    acknowledgements_due: Option<Instant>,
    hangs: bool,
    write_seconds: Histogram,
}

/// The log that is written to, or why there is none.
#[derive(Debug)]
enum LogState {
    /// Before one is created or continued, and after the stop.
    Closed,
    Open(Box<Log>),
    Failed {
        reason: String,
        retry_at: Instant,
    },
}

impl Persistence {
    /// Locks the state directory and reads it. The caller continues the log with
    /// [`Persistence::continue_log`], or begins one with [`Persistence::begin_log`] when it has
    /// the content of the log.
    ///
    /// # Errors
    /// When the directory cannot be used, or another process uses it.
    pub(crate) fn open(
        settings: StoreSettings,
        now: Moment,
        write_seconds: Histogram,
    ) -> Result<(Self, LogContent, Recovery), StoreError> {
        let StartedStore { dir, recorder, content, recovery } = store::start(&settings, now)?;
        settings.history_reader.set_next_id(content.next_id);
        let persistence = Self {
            observations: Observations::default(),
            events: EventQueue::new(settings.limits, content.next_id),
            settings,
            dir,
            log: LogState::Closed,
            history: Arc::default(),
            recorder,
            touched: BTreeSet::new(),
            values: BTreeMap::new(),
            acknowledgements_due: None,
            hangs: false,
            write_seconds,
        };
        Ok((persistence, content, recovery))
    }

    /// Continues this log.
    pub(crate) fn continue_log(&mut self, mut log: Box<Log>) {
        log.set_lock(self.dir.lock_file());
        self.log = LogState::Open(log);
    }

    /// A value that an earlier process has stored. Other components hold devices and the outbox.
    pub(crate) fn restore(&mut self, key: &Key, value: &[u8]) {
        use Key::{Device, Lost, LostBefore, NextId};
        if !matches!(key, Device(..) | Lost(_) | LostBefore(_) | NextId) {
            self.values.insert(key.clone(), value.to_vec());
        }
    }

    /// Sets or removes a value with the next write.
    pub(crate) fn set(&mut self, key: Key, value: Option<&[u8]>) {
        if self.values.get(&key).map(Vec::as_slice) == value {
            return;
        }
        let changes = self.events.outbox_mut().changes();
        match value {
            Some(value) => {
                self.values.insert(key.clone(), value.to_vec());
                changes.put(key, value);
            }
            None => {
                self.values.remove(&key);
                changes.remove(key);
            }
        }
    }

    /// Topics that are to be cleared (`true`), or are not any more.
    pub(crate) fn set_clearing(&mut self, changes: Vec<(String, bool)>) {
        for (topic, is_waiting) in changes {
            self.set(Key::Clearing(topic), is_waiting.then_some(&[]));
        }
    }

    /// The stored state of this device may have changed.
    pub(crate) fn touch(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        self.touched.insert((gateway, device_id));
    }

    /// Writes everything that has changed. Nothing of it may be published before.
    ///
    /// # Errors
    /// When it could not be written: the log is given up, and a new chain has to begin.
    pub(crate) fn write(&mut self, fleet: &Fleet, directory: &Directory) -> Result<(), StoreError> {
        while let Some((key, loss)) = self.events.next_changed_loss() {
            self.set(key, loss.as_deref());
        }
        self.add_touched(fleet, directory);
        self.settings.history_reader.set_next_id(self.events.next_id());
        let outbox = self.events.outbox_mut();
        let LogState::Open(log) = &mut self.log else {
            outbox.changes().clear();
            self.written();
            return Ok(());
        };
        let (urgent, ready) = (!outbox.is_empty(), outbox.has_ready());
        let changes = outbox.changes();
        let mut waits = changes.is_empty();
        if !waits && changes.is_acknowledgements() && !ready {
            let due = Instant::now() + ACKNOWLEDGEMENTS_WITHIN;
            waits = *self.acknowledgements_due.get_or_insert(due) > Instant::now();
        }
        let written = if waits {
            log.tick()
        } else {
            let started = StdInstant::now();
            let written = log.write(changes, urgent);
            let cleaned = written.and_then(|()| log.clean(self.history.keep_from_segment));
            self.write_seconds.observe(started.elapsed().as_secs_f64());
            self.recorder.written(log.current());
            cleaned
        };
        match &written {
            Ok(()) if waits => {}
            Ok(()) => self.written(),
            Err(error) => self.fail(error),
        }
        written
    }

    fn written(&mut self) {
        self.acknowledgements_due = None;
        self.events.written();
    }

    /// Adds to the next write what has changed of devices.
    pub(crate) fn add_touched(&mut self, fleet: &Fleet, directory: &Directory) {
        let changes = self.events.outbox_mut().changes();
        while let Some((gateway, device_id)) = self.touched.pop_first() {
            let Some(entry) = directory.gateway(gateway) else { continue };
            let key = Key::Device(entry.name.clone(), device_id);
            let gateway = fleet.gateway(gateway);
            match gateway.and_then(|it| it.devices().remembered(device_id)) {
                Some(device) => {
                    let value = encode(&device);
                    if !matches!(&self.log, LogState::Open(log) if log.has(&key, &value)) {
                        changes.put(key, &value);
                    }
                }
                None => changes.remove(key),
            }
        }
    }

    /// Gives the log up.
    fn fail(&mut self, error: &StoreError) {
        self.events.outbox_mut().changes().clear();
        self.recorder.log_failed();
        let (reason, retry_at) = (error.to_string(), Instant::now() + RETRY_EVERY);
        let failed = LogState::Failed { reason, retry_at };
        if let LogState::Open(log) = std::mem::replace(&mut self.log, failed) {
            log.give_up();
        }
    }

    /// Whether a new log has to be tried now.
    pub(crate) fn retry_is_due(&self) -> bool {
        matches!(self.log, LogState::Failed { retry_at, .. } if retry_at <= Instant::now())
    }

    /// Begins a log in new files, with everything that has to be stored.
    ///
    /// # Errors
    /// When it cannot be written; it is tried again later.
    pub(crate) fn begin_log(
        &mut self,
        now: Moment,
        fleet: &Fleet,
        directory: &Directory,
    ) -> Result<(), StoreError> {
        let log = self.create_log(fleet, directory);
        let log = log.inspect_err(|error| self.fail(error))?;
        if matches!(self.log, LogState::Failed { .. }) {
            let waiting = self.events.outbox().ids().collect();
            self.recorder.log_replaced(log.current(), waiting, now);
        } else {
            self.recorder.written(log.current());
        }
        self.continue_log(Box::new(log));
        self.events.outbox_mut().changes().clear();
        self.written();
        Ok(())
    }

    fn create_log(&mut self, fleet: &Fleet, directory: &Directory) -> Result<Log, StoreError> {
        if matches!(self.log, LogState::Failed { .. }) {
            self.dir.check_answers()?;
        }
        if !self.dir.is_in_place() {
            // Another directory is at its path now, and may have a log that was never read.
            self.dir = StateDir::lock(&self.settings.state_dir)?;
            self.dir.set_aside_log()?;
        }
        let devices = fleet.gateways().filter_map(|(index, gateway)| {
            let name = &directory.gateway(index)?.name;
            let devices = gateway.devices().all_remembered();
            Some(devices.map(|(id, device)| (Key::Device(name.clone(), id), encode(&device))))
        });
        let values = self.values.clone().into_iter().chain(devices.flatten());
        let values = values.map(|(key, value)| Record::Put(key, value.into()));
        let records = self.events.outbox().records().chain(values);
        let (dir, always) = (self.dir.log(), self.settings.always_sync);
        let (next_id, after) = (self.events.next_id(), self.recorder.status().position.segment);
        self.settings.history_reader.set_next_id(next_id);
        Log::create(&dir, always, &directory.info.chain, next_id, after, records)
    }

    /// Whether what is written outlives the process.
    pub(crate) const fn is_durable(&self) -> bool {
        matches!(self.log, LogState::Open(_))
    }

    /// Why what is written would not outlive everything, if it would not.
    pub(crate) fn fault(&self) -> Option<&str> {
        match &self.log {
            LogState::Failed { reason, .. } => Some(reason),
            LogState::Closed | LogState::Open(_) => self.hangs.then_some(HANGS),
        }
    }

    /// Hands observations over to the history, after [`Persistence::write`].
    pub(crate) fn hand_over_observations(&mut self, now: Moment) {
        self.recorder.observed(self.observations.take(), now);
    }

    /// The state of the history.
    pub(crate) fn history(&self) -> &HistoryStatus {
        &self.history
    }

    /// Reads the state of the history; returns whether it has changed.
    pub(crate) fn check_history(&mut self) -> bool {
        let before = std::mem::replace(&mut self.history, self.recorder.status());
        !Arc::ptr_eq(&before, &self.history)
    }

    /// Looks whether the disk answers; logs a change.
    pub(crate) fn check_disk(&mut self) {
        let hangs = matches!(&self.log, LogState::Open(log) if log.hangs(HANGS_AFTER));
        if std::mem::replace(&mut self.hangs, hangs) != hangs {
            if hangs {
                let state_dir = self.settings.state_dir.display();
                tracing::error!(%state_dir, problem = HANGS, "store: the disk does not answer");
            } else {
                tracing::info!("store: the disk answers again");
            }
        }
    }

    /// When there is something to do although nothing comes in.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.log {
            LogState::Closed => None,
            LogState::Failed { retry_at, .. } => Some(*retry_at),
            LogState::Open(log) => log.due().into_iter().chain(self.acknowledgements_due).min(),
        }
    }

    /// The next [`Persistence::write`] writes acknowledgements too.
    pub(crate) fn write_all_now(&mut self) {
        self.acknowledgements_due = Some(Instant::now());
    }

    /// Stops log and history, with everything on the disk. A disk that hangs is not waited for.
    ///
    /// # Errors
    /// When not everything is on the disk, or the log has failed before.
    pub(crate) fn stop(&mut self) -> Result<(), StoreError> {
        self.recorder.stop();
        match std::mem::replace(&mut self.log, LogState::Closed) {
            LogState::Closed => Ok(()),
            LogState::Open(log) if self.hangs => {
                log.detach();
                tracing::warn!("stopping without waiting for the disk");
                Ok(())
            }
            LogState::Open(log) => log.stop(),
            LogState::Failed { reason, .. } => Err(StoreError::Failed(reason)),
        }
    }
}
