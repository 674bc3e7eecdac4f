//! The recorder: a thread that copies events from the log to the history.
//!
//! It follows the log's files, so the event loop passes no data and never waits for it, and no
//! event is missing after a kill: the history stores the position of its reader. Unread segments
//! stay in the log, unless the history cannot be written for a minute.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::StoreError;
use super::history::{Observation, Reader};
use super::history_writer::{HistoryStatus, HistoryWriter, LogEnd, ReplacedLog};
use super::log::{LogContent, Position};
use super::span_writer::{Backlog, PROVEN_EVERY};
use crate::config::HistoryConfig;
use crate::ids::Moment;

/// The history is written at most this often.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// It is written at once when this many observations wait: about 1 MB.
const OBSERVATIONS_URGENT: usize = 8_192;
/// Between two attempts after an error.
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// How long a clean stop waits for the history.
const STOP_WITHIN: Duration = Duration::from_millis(800);

/// The bridge's end of the thread. Dropping it ends the thread as a kill would.
#[derive(Debug)]
pub(crate) struct Recorder {
    shared: Arc<SharedRecorder>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct SharedRecorder {
    state: Mutex<RecorderState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct RecorderState {
    /// The end of the log.
    end: LogEnd,
    /// Something changed for the thread: the log, or what was observed.
    has_work: bool,
    /// The log was replaced.
    replaced: Option<ReplacedLog>,
    /// The bridge's wall clock in its last iteration.
    now: Moment,
    /// What was observed and is not taken by the thread.
    observations: Backlog,
    /// What is written is to be recorded at once.
    flush: bool,
    stop: Option<RecorderStop>,
    ended: bool,
    /// Replaced as a whole, so that the bridge sees whether it has changed.
    status: Arc<HistoryStatus>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecorderStop {
    /// Record what is written first.
    Clean,
    Kill,
}

impl Recorder {
    /// Starts it on a log with this content. Where that does not continue, or is behind what the
    /// history has read, another is about to replace it: then all of it is recorded before this
    /// returns, and `content` gets what it has lost. Also returns the state of the history, and how
    /// far it had read the log before.
    ///
    /// # Errors
    /// When the system does not start a thread.
    pub(crate) fn start(
        log: PathBuf,
        reader: Reader,
        retention: HistoryConfig,
        now: Moment,
        content: &mut LogContent,
        continues: bool,
    ) -> Result<(Self, Arc<HistoryStatus>, Position), StoreError> {
        let file = reader.path().to_owned();
        let existed = content.end != Position::default();
        let mut writer = HistoryWriter::new(log, reader, retention, existed);
        let mut status = HistoryStatus::default();
        writer.try_open(now, &mut status);
        let read_before = status.position;
        let mut end = LogEnd::Segment(content.end.segment);
        if !continues || read_before > content.end {
            let waiting = content.events.keys().copied().collect();
            writer.log_replaced(ReplacedLog { end, waiting });
            end = LogEnd::Unknown;
            writer.try_record(end, now, &mut status);
            content.lost = writer.take_lost();
        }
        let status = Arc::new(status);
        let state = RecorderState { end, now, status: status.clone(), ..RecorderState::default() };
        let shared = Arc::new(SharedRecorder { state: Mutex::new(state), changed: Condvar::new() });
        #[cfg(feature = "model")]
        super::history::model::flush_with({
            let shared = Arc::downgrade(&shared);
            move || _ = shared.upgrade().map(|shared| shared.flush())
        });
        let theirs = Arc::clone(&shared);
        let starting = StoreError::io("starting a thread for", &file);
        let thread = std::thread::Builder::new().name("history".to_owned());
        let thread = thread.spawn(move || run(&theirs, writer)).map_err(starting)?;
        Ok((Self { shared, thread: Some(thread) }, status, read_before))
    }

    /// The log was written to; `current` is its newest segment.
    pub(crate) fn written(&self, current: u32) {
        let mut state = self.shared.lock();
        state.end = LogEnd::Segment(current);
        if !std::mem::replace(&mut state.has_work, true) {
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    /// The log has failed.
    pub(crate) fn log_failed(&self) {
        let mut state = self.shared.lock();
        (state.end, state.has_work) = (LogEnd::Failed, true);
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Another log was started, in which these events wait.
    pub(crate) fn log_replaced(&self, current: u32, waiting: BTreeSet<u64>, now: Moment) {
        let mut state = self.shared.lock();
        (state.end, state.now, state.has_work) = (LogEnd::Segment(current), now, true);
        state.replaced = Some(ReplacedLog { end: LogEnd::Failed, waiting });
        Arc::make_mut(&mut state.status).keep_from_segment = 0;
        drop(state);
        self.shared.changed.notify_one();
    }

    /// The bridge runs, and has observed this by now. The log has all events until then, unless it
    /// has failed: a gap begins at the last `now` that was recorded.
    pub(crate) fn observed(&self, observations: Vec<Observation>, now: Moment) {
        let mut state = self.shared.lock();
        state.now = now;
        if observations.is_empty() {
            return;
        }
        state.observations.extend(observations);
        let is_urgent = state.observations.len() >= OBSERVATIONS_URGENT;
        if !std::mem::replace(&mut state.has_work, true) || is_urgent {
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    /// The state of the history.
    pub(crate) fn status(&self) -> Arc<HistoryStatus> {
        Arc::clone(&self.shared.lock().status)
    }

    /// Records what is written and ends. A disk that hangs is not waited for.
    pub(crate) fn stop(&mut self) {
        let mut state = self.shared.lock();
        state.stop = Some(RecorderStop::Clean);
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
        self.shared.lock().stop.get_or_insert(RecorderStop::Kill);
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in it reports itself.
            _ = thread.join();
        }
    }
}

impl SharedRecorder {
    fn lock(&self) -> MutexGuard<'_, RecorderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what is written is recorded.
    #[cfg(feature = "model")]
    fn flush(&self) {
        let mut state = self.lock();
        state.flush = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |it| it.flush && !it.ended));
    }

    /// Waits until something is to be recorded, at most until `wake_at`, and not before
    /// `not_before` unless it is to stop, the log was replaced, or so many observations wait as are
    /// urgent.
    fn wait(
        &self,
        not_before: Instant,
        wake_at: Instant,
        urgent_from: usize,
    ) -> MutexGuard<'_, RecorderState> {
        let mut state = self.lock();
        loop {
            let until = if state.has_work { not_before } else { wake_at };
            let left = until.saturating_duration_since(Instant::now());
            let is_urgent = state.flush
                || state.stop.is_some()
                || state.replaced.is_some()
                || state.observations.len() >= urgent_from;
            if left.is_zero() || is_urgent {
                return state;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn run(shared: &SharedRecorder, mut writer: HistoryWriter) {
    let (mut not_before, mut wake_at) = (Instant::now(), Instant::now());
    let mut urgent_from = OBSERVATIONS_URGENT;
    loop {
        let mut state = shared.wait(not_before, wake_at, urgent_from);
        state.has_work = false;
        let (end, replaced, now) = (state.end, state.replaced.take(), state.now);
        let (flush, stop) = (state.flush, state.stop);
        let mut observations = std::mem::take(&mut state.observations);
        let mut status = HistoryStatus::clone(&state.status);
        drop(state);
        if stop == Some(RecorderStop::Kill) {
            break;
        }
        if let Some(replaced) = replaced {
            writer.log_replaced(replaced);
        }
        writer.observe(&mut observations, now);
        if stop.is_some() {
            writer.end();
        }
        writer.try_record(end, now, &mut status);
        let retry = writer.is_failing();
        shared.lock().status = Arc::new(status);
        if flush {
            shared.lock().flush = false;
            shared.changed.notify_all();
        }
        if stop.is_some() {
            break;
        }
        not_before = Instant::now() + if retry { RETRY_EVERY } else { WRITE_EVERY };
        // After an error only the time counts.
        urgent_from = if retry { usize::MAX } else { OBSERVATIONS_URGENT };
        wake_at = if retry { not_before } else { Instant::now() + PROVEN_EVERY };
    }
    // Closed before the end is announced: another process may open it then.
    drop(writer);
    shared.lock().ended = true;
    shared.changed.notify_all();
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::fs;

    use rusqlite::Connection;

    use super::*;
    use crate::payload::Subject;
    use crate::store::log::{Log, LogBatch, Record};
    use crate::store::{Event, history};

    const LONG: Duration = Duration::from_secs(365 * 86_400);

    /// Aim: what an earlier process has not recorded is not missing if the log fails at once.
    #[test]
    fn a_log_that_continues_is_read_before_it_is_written_to() {
        let (dir, now) = (tempfile::tempdir().unwrap(), Moment::from_millis(1_790_000_000_000));
        let log_dir = dir.path().join("log");
        fs::create_dir(&log_dir).unwrap();
        let mut log = Log::create(&log_dir, false, "k7f3", 1, 0, std::iter::empty()).unwrap();
        let mut batch = LogBatch::default();
        let (event_type, payload) = ("connected".into(), "{}".into());
        let subject = Subject::Bridge;
        let event = Event { id: 1, recorded_at: now, subject, event_type, payload, read_at: None };
        batch.add(&Record::Event(Cow::Owned(event)));
        log.write(&mut batch, true).unwrap();
        let keep = HistoryConfig { keep: LONG, max_bytes: 1 << 20, keep_availability: LONG };
        let reader = Reader::new(dir.path().join(history::FILE_NAME));
        let end = Position { segment: log.current(), offset: u64::MAX };
        let mut content = LogContent { end, ..LogContent::default() };
        let (recorder, ..) =
            Recorder::start(log_dir, reader, keep, now, &mut content, true).unwrap();
        let started = Instant::now();
        while recorder.status().last_id != 1 {
            assert!(started.elapsed() < Duration::from_secs(6));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Aim: when the disk is usable again, the history does not stay behind the log. Method: the
    /// database is locked until the next attempt to write it is due in 10 s.
    #[test]
    fn a_log_that_is_replaced_is_followed_at_once() {
        let (dir, now) = (tempfile::tempdir().unwrap(), Moment::from_millis(1_790_000_000_000));
        let (log_dir, database) = (dir.path().join("log"), dir.path().join(history::FILE_NAME));
        fs::create_dir(&log_dir).unwrap();
        let keep = HistoryConfig { keep: LONG, max_bytes: 1 << 20, keep_availability: LONG };
        let (reader, mut content) = (Reader::new(database.clone()), LogContent::default());
        let (recorder, ..) =
            Recorder::start(log_dir.clone(), reader, keep, now, &mut content, true).unwrap();
        let lock = Connection::open(database).unwrap();
        lock.busy_timeout(Duration::from_secs(5)).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        recorder.log_failed();
        let wait = |failing: bool| {
            let started = Instant::now();
            while recorder.status().fault.is_some() != failing {
                assert!(started.elapsed() < Duration::from_secs(6), "failing: {failing}");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        wait(true);
        lock.execute_batch("ROLLBACK").unwrap();
        let log = Log::create(&log_dir, false, "k7f3", 1, 0, std::iter::empty()).unwrap();
        recorder.log_replaced(log.current(), BTreeSet::new(), now);
        wait(false);
    }
}
