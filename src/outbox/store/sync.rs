//! The thread that forces to the disk what has been written, and clears away what is then past.
//!
//! May not write. A failed sync is final: what the system then has of the file nobody knows, so the
//! store that it belongs to is given up.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long written events may be unsynced.
const INTERVAL: Duration = Duration::from_millis(10);
/// How many events may be unsynced before the interval is over.
const EVENTS_MAX: usize = 1_000;

/// The loop's end of the thread. Dropping it waits for the thread's end: whoever opens the store
/// next is not to find files that are just being cleared away.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    /// `None` once nobody waits for it.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Desk {
    unsynced: Vec<Arc<File>>,
    events: usize,
    /// To be removed once everything before is synced.
    past: Vec<PathBuf>,
    failed: Option<String>,
    busy: bool,
    ended: bool,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Syncer {
    pub(super) fn start() -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("store-sync".to_owned());
        let thread = Some(builder.spawn(move || run(&theirs))?);
        Ok(Self { shared, thread })
    }

    /// This file has been written to; so many events are in what was.
    pub(super) fn written(&self, file: &Arc<File>, events: usize) {
        let mut desk = self.shared.desk();
        let idle = desk.unsynced.is_empty();
        if !desk.unsynced.iter().any(|known| Arc::ptr_eq(known, file)) {
            desk.unsynced.push(Arc::clone(file));
        }
        desk.events += events;
        // While the interval runs, it wakes by itself.
        let wake = idle || desk.events >= EVENTS_MAX;
        drop(desk);
        if wake {
            self.shared.changed.notify_one();
        }
    }

    /// This file may go once everything written so far is synced.
    pub(super) fn past(&self, path: PathBuf) {
        self.shared.desk().past.push(path);
        self.shared.changed.notify_one();
    }

    /// Waits until all is synced and cleared away.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        loop {
            let desk = self.shared.desk();
            if desk.unsynced.is_empty() && desk.past.is_empty() && !desk.busy {
                return;
            }
            drop(desk);
            std::thread::yield_now();
        }
    }

    /// As if a sync had failed.
    #[cfg(test)]
    pub(super) fn fail(&self) {
        self.shared.desk().failed = Some("syncing the store failed: a test".to_owned());
    }

    /// Nobody is to wait for its end: it may hang in a sync that never comes back.
    pub(super) fn let_go(&mut self) {
        self.thread = None;
    }

    /// Why a sync failed, if one did.
    pub(super) fn failed(&self) -> Option<String> {
        self.shared.desk().failed.clone()
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.desk().ended = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has told of what failed; a panic in it is told by its own words.
            _ = thread.join();
        }
    }
}

fn run(shared: &Shared) {
    let mut desk = shared.desk();
    loop {
        while desk.unsynced.is_empty() && desk.past.is_empty() {
            if desk.ended {
                return;
            }
            desk = shared.changed.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
        let more = |desk: &mut Desk| desk.events < EVENTS_MAX && !desk.ended;
        let waited = shared.changed.wait_timeout_while(desk, INTERVAL, more);
        desk = waited.unwrap_or_else(PoisonError::into_inner).0;
        let (files, past) = (std::mem::take(&mut desk.unsynced), std::mem::take(&mut desk.past));
        desk.events = 0;
        desk.busy = true;
        drop(desk);
        let outcome = sync(&files, &past);
        desk = shared.desk();
        desk.busy = false;
        if let Err(error) = outcome {
            desk.failed = Some(error);
            return;
        }
    }
}

fn sync(files: &[Arc<File>], past: &[PathBuf]) -> Result<(), String> {
    for file in files {
        file.sync_all().map_err(|error| format!("syncing the store failed: {error}"))?;
    }
    for path in past {
        std::fs::remove_file(path)
            .map_err(|error| format!("removing {} failed: {error}", path.display()))?;
    }
    Ok(())
}
