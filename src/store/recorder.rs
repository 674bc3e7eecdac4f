//! The recorder: a thread that copies events from the log to the history.
//!
//! It follows the log's files, so the event loop hands nothing over and never waits for it, and no
//! event is missing after a kill: the history stores how far it has read. Segments that it has not
//! read stay in the log, unless the history cannot be written for a minute.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::StoreError;
use super::history::{self, Database, Retention, Totals};
use super::log::{Position, Tail};
use crate::ids::Moment;

/// The history is written at most this often.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// How often old events are removed although nothing is recorded.
const TRIM_EVERY: Duration = Duration::from_secs(60);
/// Blocks of old events that are removed in one go.
const TRIM_STEPS_MAX: usize = 32;
/// Between two attempts after an error.
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// After this time the log is cleaned without the history.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// How long a clean stop waits for the history.
const STOP_WITHIN: Duration = Duration::from_millis(800);

/// How the history stands.
#[derive(Clone, Debug, Default)]
pub struct HistoryStatus {
    /// Segments of the log before this one may be removed.
    pub read_to: u64,
    /// Why it cannot be written, if it cannot.
    pub fault: Option<String>,
    /// What it holds.
    pub totals: Totals,
    /// The ID of the newest event that it has had.
    pub last_id: u64,
    /// How far it has read the log.
    pub position: Position,
}

impl HistoryStatus {
    fn show(&mut self, database: &Database) {
        self.totals = database.totals();
        self.last_id = database.last_id();
        self.position = database.position();
    }
}

/// The bridge's end of the thread. Dropping it ends the thread as a kill would.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The segment that is written to; `None` while there is no log.
    current: Option<u64>,
    /// Something was written that is not recorded.
    written: bool,
    /// The log was replaced; nothing was stored between these times.
    gap: Option<(Moment, Moment)>,
    /// The bridge's wall clock at the last write.
    now: Moment,
    stop: Option<Stop>,
    ended: bool,
    status: HistoryStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Record what is written first.
    Clean,
    Kill,
}

impl Recorder {
    /// Starts it. `end` is the end of the log. Where that does not continue, or is behind what the
    /// history has read, another is about to replace it: then all of it is recorded before this
    /// returns.
    ///
    /// # Errors
    /// When the system does not start a thread.
    pub fn start(
        log: PathBuf,
        database: PathBuf,
        retention: Retention,
        now: Moment,
        end: Position,
        continues: bool,
    ) -> Result<Self, StoreError> {
        let mut follower = Follower { log, path: database, retention, open: None, failing: None };
        let mut state = State { now, ..State::default() };
        follower.try_open(now, &mut state.status);
        if !continues || state.status.position > end {
            follower.try_record(end.segment, now, &mut state.status);
            follower.finish_log();
        }
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let starting = StoreError::io("starting a thread for", &follower.path);
        let thread = std::thread::Builder::new().name("history".to_owned());
        let thread = thread.spawn(move || run(&theirs, follower)).map_err(starting)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The log was written to; `current` is its newest segment.
    pub fn written(&self, current: u64, now: Moment) {
        let mut state = self.shared.lock();
        (state.current, state.now) = (Some(current), now);
        if !std::mem::replace(&mut state.written, true) {
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    /// The log has failed.
    pub fn log_failed(&self) {
        self.shared.lock().current = None;
    }

    /// Another log was begun; events between these times are in neither.
    pub fn log_replaced(&self, current: u64, from: Moment, to: Moment) {
        let mut state = self.shared.lock();
        (state.current, state.now, state.written) = (Some(current), to, true);
        state.gap = Some((from, to));
        state.status.read_to = 0;
        drop(state);
        self.shared.changed.notify_one();
    }

    /// How the history stands.
    #[must_use]
    pub fn status(&self) -> HistoryStatus {
        self.shared.lock().status.clone()
    }

    /// Records what is written and ends. A disk that hangs is not waited for.
    pub fn stop(&mut self) {
        let mut state = self.shared.lock();
        state.stop = Some(Stop::Clean);
        self.shared.changed.notify_one();
        let ended = self.shared.changed.wait_timeout_while(state, STOP_WITHIN, |it| !it.ended);
        let ended = ended.unwrap_or_else(PoisonError::into_inner).0.ended;
        if !ended {
            tracing::warn!("stopping without waiting for the history; the next start completes it");
            self.thread = None;
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.lock().stop.get_or_insert(Stop::Kill);
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in it reports itself.
            _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is to be recorded, at most until `wake_at`, and not before
    /// `not_before` unless it is to stop.
    fn wait(&self, not_before: Instant, wake_at: Instant) -> Task {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let due = now >= wake_at || (state.written && now >= not_before);
            if due || state.stop.is_some() {
                state.written = false;
                let gap = state.gap.take();
                return Task { current: state.current, gap, now: state.now, stop: state.stop };
            }
            let until = if state.written { not_before } else { wake_at };
            let waited = self.changed.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

struct Task {
    current: Option<u64>,
    gap: Option<(Moment, Moment)>,
    now: Moment,
    stop: Option<Stop>,
}

fn run(shared: &Shared, mut follower: Follower) {
    let (mut not_before, mut wake_at) = (Instant::now(), Instant::now());
    loop {
        let Task { current, gap, now, stop } = shared.wait(not_before, wake_at);
        if stop == Some(Stop::Kill) {
            break;
        }
        let mut status = shared.lock().status.clone();
        if let Some(gap) = gap {
            follower.reopen(gap, now, &mut status);
        }
        if let Some(current) = current {
            follower.try_record(current, now, &mut status);
        }
        let retry = status.fault.is_some();
        shared.lock().status = status;
        if stop.is_some() {
            break;
        }
        not_before = Instant::now() + if retry { RETRY_EVERY } else { WRITE_EVERY };
        wake_at = Instant::now() + if retry { RETRY_EVERY } else { TRIM_EVERY };
    }
    // Closed before the end is announced: another process may open it then.
    drop(follower);
    shared.lock().ended = true;
    shared.changed.notify_all();
}

/// Reads the log and writes the history.
#[derive(Debug)]
struct Follower {
    log: PathBuf,
    path: PathBuf,
    retention: Retention,
    open: Option<(Database, Tail)>,
    failing: Option<(Instant, Moment)>,
}

impl Follower {
    /// Records everything up to the end of this segment, and removes what is too old.
    fn try_record(&mut self, current: u64, now: Moment, status: &mut HistoryStatus) {
        let mut recorded = self.replace_if_removed(now);
        if recorded.is_ok() {
            recorded = self.record(current, now, status);
        }
        if let Err(RecordError::History(history::Error::Damaged(_))) = recorded {
            recorded = self.replace(now).and_then(|()| self.record(current, now, status));
        }
        match recorded {
            Ok(()) => {
                if self.failing.take().is_some() {
                    tracing::info!("history: writing again");
                }
                status.fault = None;
            }
            Err(error) => self.failed(&error, now, status),
        }
    }

    fn failed(&mut self, error: &RecordError, now: Moment, status: &mut HistoryStatus) {
        self.open = None;
        let (since, _) = *self.failing.get_or_insert_with(|| {
            tracing::error!(%error, "history: cannot be written; events are delivered meanwhile");
            (Instant::now(), now)
        });
        status.fault = Some(error.to_string());
        if since.elapsed() >= GIVE_UP_AFTER {
            status.read_to = u64::MAX;
        }
    }

    fn record(
        &mut self,
        current: u64,
        now: Moment,
        status: &mut HistoryStatus,
    ) -> Result<(), RecordError> {
        let (database, tail) = self.open(now)?;
        let mut changes = Vec::new();
        let mut checkpointed = database.position().segment;
        status.read_to = checkpointed;
        loop {
            changes.clear();
            tail.read(current, &mut changes)?;
            let position = tail.position();
            if changes.is_empty() && position == database.position() {
                break;
            }
            database.apply(&changes, position)?;
            if position.segment > checkpointed {
                // The log may now remove what comes before: a power cut must not lose it here.
                database.checkpoint()?;
                checkpointed = position.segment;
                status.read_to = checkpointed;
            }
            if changes.is_empty() {
                break;
            }
        }
        for _ in 0..TRIM_STEPS_MAX {
            if !database.trim(now)? {
                break;
            }
        }
        status.show(database);
        Ok(())
    }

    fn try_open(&mut self, now: Moment, status: &mut HistoryStatus) {
        match self.open(now) {
            Ok((database, _)) => status.show(database),
            Err(error) => self.failed(&error, now, status),
        }
    }

    /// The log is read to its end, and another replaces it.
    fn finish_log(&mut self) {
        let Some((database, tail)) = &mut self.open else { return };
        if let Err(error) = database.checkpoint() {
            tracing::warn!(%error, "history: checkpoint failed; a power cut may lose events of it");
        }
        *tail = Tail::new(self.log.clone(), Position::default());
    }

    /// Continues in an empty file where the open one was removed, or in the one that has taken its
    /// place.
    fn replace_if_removed(&mut self, now: Moment) -> Result<(), RecordError> {
        let Some((database, _)) = &self.open else { return Ok(()) };
        if database.is_at(&self.path) {
            return Ok(());
        }
        let file = self.path.display();
        tracing::error!(%file, "history: removed or replaced while in use; events may be missing");
        self.open = None;
        if self.path.exists() { Ok(()) } else { self.replace(now) }
    }

    fn replace(&mut self, now: Moment) -> Result<(), RecordError> {
        self.open = None;
        let replaced = Database::replace(&self.path, self.retention, now)?;
        self.follow(replaced, now)?;
        Ok(())
    }

    /// The open database, opened first where necessary.
    fn open(&mut self, now: Moment) -> Result<&mut (Database, Tail), RecordError> {
        if let Some(open) = self.open.take() {
            return Ok(self.open.insert(open));
        }
        let opened = Database::open(&self.path, self.retention, now)?;
        self.follow(opened, now)
    }

    /// Continues to read the log where this database has stopped.
    fn follow(
        &mut self,
        opened: history::Opened,
        now: Moment,
    ) -> Result<&mut (Database, Tail), RecordError> {
        let history::Opened { mut database, set_aside } = opened;
        if let Some(file) = set_aside {
            let file = file.display();
            tracing::error!(%file, "history: damaged; set aside and replaced");
        }
        let mut tail = Tail::new(self.log.clone(), database.position());
        if tail.skip_removed()? {
            let from = self.failing.map_or(now, |(_, since)| since);
            database.mark_gap(from, now, tail.position())?;
        }
        Ok(self.open.insert((database, tail)))
    }

    /// The log was replaced by another.
    fn reopen(&mut self, gap: (Moment, Moment), now: Moment, status: &mut HistoryStatus) {
        self.open = None;
        let marked = self
            .open(now)
            .and_then(|(database, tail)| Ok(database.mark_gap(gap.0, gap.1, tail.position())?));
        if let Err(error) = marked {
            self.failed(&error, now, status);
        }
    }
}

/// Why nothing could be recorded.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error("reading the log: {0}")]
    Log(#[from] StoreError),
    #[error("{}", .0.with_cause())]
    History(#[from] history::Error),
}
