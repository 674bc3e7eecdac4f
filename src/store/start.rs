//! The start of the store: which log continues, and what is recorded before another replaces it.

use std::path::PathBuf;

use super::history::{FILE_NAME, Retention};
use super::{Content, Limits, Log, Opened, Recorder, Recovery, StateDir, StoreError, SyncMode};
use crate::ids::Moment;

/// Where and how the bridge stores.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The state directory.
    pub state_dir: PathBuf,
    /// When the log is synced.
    pub sync: SyncMode,
    /// How many events may wait.
    pub limits: Limits,
    /// How long the history keeps events.
    pub history: Retention,
}

/// A store that has started.
#[derive(Debug)]
pub struct Started {
    /// The locked directory.
    pub dir: StateDir,
    /// The log that continues; `None` where a new one has to begin.
    pub log: Option<Box<Log>>,
    /// It follows the log.
    pub recorder: Recorder,
    /// What an earlier process has stored.
    pub content: Content,
    /// Whether its chain continues.
    pub recovery: Recovery,
    /// No event has had this ID or a higher one.
    pub next_id: u64,
}

/// Locks the state directory and reads it.
///
/// # Errors
/// When the directory cannot be used, or another process uses it.
pub fn start(settings: &Settings, now: Moment) -> Result<Started, StoreError> {
    let dir = StateDir::lock(&settings.state_dir)?;
    let earlier = dir.set_aside_earlier()?;
    let opened = Log::open(&dir.log(), settings.sync)?;
    let Opened { content, mut next_id, end, mut recovery, mut log } = opened;
    if let Some(earlier) = earlier {
        // That build ran after this log was written.
        if let Some(log) = log.take() {
            log.give_up();
        }
        let reason = Some(format!(
            "the store of a build made before version 2 was set aside as {}; see docs/upgrading.md",
            earlier.display()
        ));
        recovery = Recovery::NewChain { from: None, reason };
    }
    let database = settings.state_dir.join(FILE_NAME);
    let continues = log.is_some();
    let waiting = content.events.iter().map(|event| event.id).collect();
    let recorder =
        Recorder::start(dir.log(), database, settings.history, now, end, continues, &waiting)?;
    let history = recorder.status();
    if let Some(cut) = log.take_if(|_| history.position > end) {
        let from = Some(cut.chain().to_owned());
        let reason = "the log was cut: the history has read more than is left of it";
        recovery = Recovery::NewChain { from, reason: Some(reason.to_owned()) };
        cut.give_up();
    }
    if log.is_none() {
        // Above the IDs of every earlier store in this place, also if that was lost.
        let now = now.millis().unsigned_abs() * 1_000;
        next_id = next_id.max(history.last_id + 1).max(now);
    }
    Ok(Started { dir, log, recorder, content, recovery, next_id })
}
