//! Data that survives the process. The log holds events until the broker has acknowledged them, the
//! last states of devices, and what else a restart needs; the outbox has the waiting events in
//! memory; the recorder's thread copies all events from the log to the history, with availability.
//! The start decides which log continues, and what is recorded before another one replaces it.

mod error;
pub mod history;
mod history_writer;
mod log;
mod log_reader;
mod outbox;
mod ready;
mod recorder;
mod span_writer;
mod state_dir;
#[cfg(test)]
mod tests;
mod waiting;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::HistoryConfig;
use crate::ids::Moment;
use history::Reader;
use log::{HEAD, segment_numbers, segment_path};
use state_dir::{LOCK, LOG, expect_regular};

pub use error::StoreError;
pub(crate) use history_writer::HistoryStatus;
pub use log::{Event, Position};
pub(crate) use log::{Key, Log, LogContent, Record, Recovery, decode, encode};
pub use log_reader::LogReader;
pub(crate) use outbox::{Outbox, OutboxLimits};
pub(crate) use recorder::Recorder;
pub(crate) use state_dir::StateDir;

/// Where and how the bridge stores.
#[derive(Clone, Debug)]
pub(crate) struct StoreSettings {
    /// The state directory.
    pub(crate) state_dir: PathBuf,
    /// Whether the log is synced before anything is published.
    pub(crate) always_sync: bool,
    /// How many events may wait.
    pub(crate) limits: OutboxLimits,
    /// How long the history keeps events.
    pub(crate) history: HistoryConfig,
    /// Reads the history, and has its path.
    pub(crate) history_reader: Reader,
}

/// A store that has started.
#[derive(Debug)]
pub(crate) struct StartedStore {
    /// The locked directory.
    pub(crate) dir: StateDir,
    /// It follows the log.
    pub(crate) recorder: Recorder,
    /// What an earlier process has stored.
    pub(crate) content: LogContent,
    /// Whether its chain continues.
    pub(crate) recovery: Recovery,
}

/// Locks the state directory and reads it.
///
/// # Errors
/// When the directory cannot be used, or another process uses it.
pub(crate) fn start(settings: &StoreSettings, now: Moment) -> Result<StartedStore, StoreError> {
    let dir = StateDir::lock(&settings.state_dir)?;
    let earlier = dir.set_aside_earlier()?;
    let (mut content, mut recovery) = Log::open(&dir.log(), settings.always_sync)?;
    if let Some(earlier) = earlier {
        // That build ran after this log was written.
        let reason = format!(
            "the store of a build made before version 2 was set aside as {}; see docs/upgrading.md",
            earlier.display()
        );
        end_chain(&mut recovery, None, reason);
    }
    let continues = matches!(recovery, Recovery::Continue(_));
    let reader = settings.history_reader.clone();
    let (recorder, history, read_before) =
        Recorder::start(dir.log(), reader, settings.history, now, &mut content, continues)?;
    if let Recovery::Continue(log) = &recovery
        && read_before > content.end
    {
        let from = Some(log.chain().to_owned());
        let reason = "the log was cut: the history has read more than is left of it";
        end_chain(&mut recovery, from, reason.to_owned());
    }
    if let Recovery::NewChain { reason: reason @ None, .. } = &mut recovery
        && history.last_id > 0
    {
        *reason = Some("its log is missing".to_owned());
    }
    // The history may be of another log, and ignores events that are not above its newest one.
    content.next_id = content.next_id.max(history.last_id + 1);
    if matches!(recovery, Recovery::NewChain { .. }) {
        // Above the IDs of every earlier store in this place, also if that was lost.
        content.next_id = content.next_id.max(now.millis().unsigned_abs() * 1_000);
    }
    Ok(StartedStore { dir, recorder, content, recovery })
}

/// Opens the files of a state directory, those that are there, for reading and writing. Changes
/// nothing.
///
/// # Errors
/// When one cannot be opened.
pub(crate) fn check_files(state_dir: &Path) -> Result<(), StoreError> {
    let log = state_dir.join(LOG);
    let segments = if log.exists() { segment_numbers(&log)? } else { Vec::new() };
    let segments = segments.into_iter().map(|number| segment_path(&log, number));
    let others = [state_dir.join(LOCK), log.join(HEAD), state_dir.join(history::FILE_NAME)];
    for path in others.into_iter().chain(segments) {
        let open = |()| fs::File::options().read(true).write(true).open(&path);
        match expect_regular(&path).and_then(open) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => {
                return Err(StoreError::io("opening", &path)(cause));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Discards the log, if it was to continue.
fn end_chain(recovery: &mut Recovery, from: Option<String>, reason: String) {
    let ended = Recovery::NewChain { from, reason: Some(reason) };
    if let Recovery::Continue(log) = std::mem::replace(recovery, ended) {
        log.give_up();
    }
}
