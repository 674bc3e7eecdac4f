//! What the bridge stores: the events and states of each iteration of the loop are written as one
//! batch before any of them is published (design, decision 4).
//!
//! When the log fails, the bridge continues in memory under a new chain, and a new log is tried at
//! an interval. Events of a batch that could not be written become the first of the new chain.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use bytes::Bytes;
use prometheus::Histogram;
use tokio::time::Instant;

use super::iteration::Iteration;
use super::log_state::LogState;
use crate::fleet::{DeviceEvent, Fleet, GatewayIndex};
use crate::ids::{DeviceId, Moment};
use crate::payload::{Directory, Subject};
use crate::store::{
    self, Content, Event, Gap, HistoryStatus, Key, Log, Outbox, Record, Recorder, Recovery,
    Settings, Started, StateDir, StoreError, encode,
};

/// How long acknowledgements may stay unwritten. A process that is killed meanwhile sends those
/// events again; the events that come meanwhile are written with them at once.
const ACKNOWLEDGEMENTS_WITHIN: Duration = Duration::from_millis(20);
const HANGS: &str = "the disk has not answered for 10 s: what is written meanwhile would not \
                     survive a power cut; look at the disk or the network file system";

/// Everything that is stored.
#[derive(Debug)]
pub(crate) struct Persistence {
    settings: Settings,
    dir: StateDir,
    log: LogState,
    recorder: Recorder,
    history: Arc<HistoryStatus>,
    outbox: Outbox,
    next_id: u64,
    iteration: Iteration,
    acknowledgements_due: Option<Instant>,
    hangs: bool,
    write_seconds: Histogram,
}

/// Values that a new log has to hold beside the outbox and the devices.
pub(crate) type Values = Vec<(Key, Vec<u8>)>;

impl Persistence {
    /// Locks the state directory and reads it. The caller continues the log with
    /// [`Persistence::continue_log`], or begins one with [`Persistence::begin_log`] once it knows
    /// what that has to hold.
    ///
    /// # Errors
    /// When the directory cannot be used, or another process uses it.
    pub(crate) fn open(
        settings: Settings,
        now: Moment,
        write_seconds: Histogram,
    ) -> Result<(Self, Content, Recovery), StoreError> {
        let Started { dir, recorder, content, recovery } = store::start(&settings, now)?;
        let persistence = Self {
            outbox: Outbox::new(settings.limits),
            settings,
            dir,
            log: LogState::NotBegun,
            history: Arc::default(),
            recorder,
            next_id: content.next_id,
            iteration: Iteration::default(),
            acknowledgements_due: None,
            hangs: false,
            write_seconds,
        };
        Ok((persistence, content, recovery))
    }

    /// The events that wait for the broker.
    pub(crate) const fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub(crate) const fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Sets or removes a value with the next write.
    pub(crate) fn set(&mut self, key: Key, value: Option<&[u8]>) {
        match value {
            Some(value) => self.outbox.changes().put(key, value),
            None => self.outbox.changes().remove(key),
        }
    }

    /// A device event, to be rendered and written with this iteration.
    pub(crate) fn device_event(&mut self, event: DeviceEvent) {
        self.iteration.event(event);
    }

    /// The stored state of this device may have changed.
    pub(crate) fn touch(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        self.iteration.touch(gateway, device_id);
    }

    /// Adds an event; returns the subjects of those that were dropped for it.
    pub(crate) fn append(
        &mut self,
        recorded_at: Moment,
        subject: Subject,
        event_type: &'static str,
        payload: Bytes,
        read_at: Option<StdInstant>,
    ) -> Vec<Subject> {
        let id = self.next_id;
        self.next_id += 1;
        let event_type = event_type.into();
        self.outbox.append(Event { id, recorded_at, subject, event_type, payload, read_at })
    }

    /// Renders the device events of this iteration and adds them to the outbox; returns the
    /// subjects of those that were dropped for them.
    pub(crate) fn append_device_events(&mut self, directory: &Directory) -> Vec<Subject> {
        self.iteration.append_to(&mut self.outbox, &mut self.next_id, directory)
    }

    /// Writes everything that has changed. Nothing of it may be published before.
    ///
    /// # Errors
    /// When it could not be written: the log is given up, and a new chain has to begin with
    /// [`Persistence::restart_chain`].
    pub(crate) fn write(
        &mut self,
        now: Moment,
        fleet: &Fleet,
        directory: &Directory,
    ) -> Result<(), StoreError> {
        self.add_touched(fleet, directory);
        let LogState::Open(log) = &mut self.log else {
            self.outbox.changes().clear();
            self.wrote();
            return Ok(());
        };
        let urgent = !self.outbox.is_empty();
        let ready = self.outbox.has_ready();
        let changes = self.outbox.changes();
        let mut waits = changes.is_empty();
        if !waits && changes.is_acknowledgements() && !ready {
            let due = Instant::now() + ACKNOWLEDGEMENTS_WITHIN;
            waits = *self.acknowledgements_due.get_or_insert(due) > Instant::now();
        }
        let written = if waits {
            log.tick()
        } else {
            let begun = StdInstant::now();
            let written = log.write(changes, urgent);
            let cleaned = written.and_then(|()| log.clean(self.history.read_to));
            self.write_seconds.observe(begun.elapsed().as_secs_f64());
            self.recorder.written(log.current(), now);
            cleaned
        };
        match &written {
            Ok(()) if waits => {}
            Ok(()) => self.wrote(),
            Err(error) => self.fail(now, error),
        }
        written
    }

    fn wrote(&mut self) {
        self.acknowledgements_due = None;
        self.iteration.wrote();
    }

    fn add_touched(&mut self, fleet: &Fleet, directory: &Directory) {
        for (gateway, device_id) in self.iteration.take_touched() {
            let Some(entry) = directory.gateway(gateway) else { continue };
            let key = Key::Device(entry.name.clone(), device_id);
            match fleet.remembered(gateway, device_id) {
                Some(device) => {
                    let value = encode(&device);
                    if !self.log.has(&key, &value) {
                        self.outbox.changes().put(key, &value);
                    }
                }
                None => self.outbox.changes().remove(key),
            }
        }
    }

    /// Gives the log up.
    fn fail(&mut self, now: Moment, error: &StoreError) {
        self.outbox.changes().clear();
        self.recorder.log_failed();
        self.log.fail(now, error);
    }

    /// A new chain begins because the log failed: the events that were not written become its
    /// first, and are rendered again.
    pub(crate) fn restart_chain(&mut self, fleet: &mut Fleet, directory: &Directory) {
        self.iteration.restart_chain(fleet, &mut self.outbox, directory);
    }

    /// Whether a new log has to be tried now.
    pub(crate) fn retry_is_due(&self) -> bool {
        self.log.retry_is_due()
    }

    /// Continues this log.
    pub(crate) fn continue_log(&mut self, log: Box<Log>) {
        self.log = LogState::Open(log);
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
        values: Values,
    ) -> Result<(), StoreError> {
        let created = self.create_log(fleet, directory, values);
        match created {
            Ok(log) => {
                match self.log {
                    LogState::Failed { since, .. } => {
                        let waiting = self.outbox.ids().collect();
                        let gap = Gap { from: since, to: now, waiting };
                        self.recorder.log_replaced(log.current(), gap);
                    }
                    LogState::NotBegun | LogState::Open(_) => {
                        self.recorder.written(log.current(), now);
                    }
                }
                self.log = LogState::Open(Box::new(log));
                self.outbox.changes().clear();
                self.wrote();
                Ok(())
            }
            Err(error) => {
                self.fail(now, &error);
                Err(error)
            }
        }
    }

    fn create_log(
        &mut self,
        fleet: &Fleet,
        directory: &Directory,
        values: Values,
    ) -> Result<Log, StoreError> {
        if !self.dir.is_in_place() {
            // Another directory is at its path now, and may have a log that was never read.
            self.dir = StateDir::lock(&self.settings.state_dir)?;
            self.dir.set_aside_log()?;
        }
        let devices = fleet.gateways().filter_map(|gateway| {
            let name = &directory.gateway(gateway)?.name;
            Some(
                fleet
                    .all_remembered(gateway)
                    .map(move |(id, device)| (Key::Device(name.clone(), id), encode(&device))),
            )
        });
        let values = values.into_iter().chain(devices.flatten());
        let values = values.map(|(key, value)| Record::Put(key, value.into()));
        let records = self.outbox.records().chain(values);
        let (dir, always) = (self.dir.log(), self.settings.always_sync);
        let after = self.recorder.status().position.segment;
        Log::create(&dir, always, &directory.chain, self.next_id, after, records)
    }

    /// Whether what is written outlives the process.
    pub(crate) const fn is_durable(&self) -> bool {
        matches!(self.log, LogState::Open(_))
    }

    /// Why what is written would not outlive everything, if it would not.
    pub(crate) fn fault(&self) -> Option<&str> {
        match &self.log {
            LogState::Failed { reason, .. } => Some(reason),
            LogState::NotBegun | LogState::Open(_) => self.hangs.then_some(HANGS),
        }
    }

    /// How the history stands.
    pub(crate) fn history(&self) -> &HistoryStatus {
        &self.history
    }

    /// Looks how the history stands; returns whether that has changed.
    pub(crate) fn check_history(&mut self) -> bool {
        let status = self.recorder.status();
        let changed = !Arc::ptr_eq(&status, &self.history);
        self.history = status;
        changed
    }

    /// Looks whether the disk answers; logs a change.
    pub(crate) fn check_disk(&mut self) {
        let hangs = self.log.hangs();
        if std::mem::replace(&mut self.hangs, hangs) != hangs {
            if hangs {
                let state_dir = self.settings.state_dir.display();
                tracing::error!(%state_dir, "store: {HANGS}");
            } else {
                tracing::info!("store: the disk answers again");
            }
        }
    }

    /// When there is something to do although nothing comes in.
    pub(crate) fn due(&self) -> Option<Instant> {
        let acknowledgements = self.acknowledgements_due.filter(|_| self.is_durable());
        self.log.due().into_iter().chain(acknowledgements).min()
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
        self.log.stop(self.hangs)
    }
}
