//! The thread that forces to the disk what has been written, makes the next segment in time, and
//! clears away what is then past: all that may hang where a disk does.
//!
//! May not write what is kept. A failed sync is final: what the system then has of the file nobody
//! knows, so the store that it belongs to is given up. So is a file that has been taken away.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::StoreError;
use super::segment::LogFile;

/// How long written events may be unsynced.
const INTERVAL: Duration = Duration::from_millis(10);
/// How many events may be unsynced before the interval is over.
const EVENTS_MAX: usize = 1_000;
/// How often it is looked whether the file is still there, while nothing is written.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The loop's end of the thread. Dropping it waits for the thread's end: whoever opens the store
/// next is not to find files that are just being cleared away.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    /// `None` once nobody waits for it.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
    /// Held by a test, the disk hangs.
    #[cfg(test)]
    disk: Mutex<()>,
}

#[derive(Debug)]
struct Desk {
    /// What is being written to.
    current: Arc<LogFile>,
    unsynced: Vec<Arc<LogFile>>,
    events: usize,
    next: Next,
    /// To be removed once everything before is synced.
    past: Vec<PathBuf>,
    failed: Option<String>,
    /// Since when the disk is being worked on.
    busy: Option<Instant>,
    ended: bool,
}

/// The next segment.
#[derive(Debug)]
enum Next {
    NotNeeded,
    Wanted(NextSegment),
    BeingMade,
    Made(LogFile, u64),
}

/// Which segment is to be made.
#[derive(Debug)]
pub(super) struct NextSegment {
    pub(super) dir: PathBuf,
    pub(super) number: u64,
    pub(super) chain: String,
}

impl Desk {
    const fn is_idle(&self) -> bool {
        self.unsynced.is_empty() && self.past.is_empty() && !matches!(self.next, Next::Wanted(_))
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Syncer {
    /// For a log that is written to here.
    pub(super) fn start(current: &Arc<LogFile>) -> std::io::Result<Self> {
        let desk = Desk {
            current: Arc::clone(current),
            unsynced: Vec::new(),
            events: 0,
            next: Next::NotNeeded,
            past: Vec::new(),
            failed: None,
            busy: None,
            ended: false,
        };
        let shared = Arc::new(Shared {
            desk: Mutex::new(desk),
            changed: Condvar::new(),
            #[cfg(test)]
            disk: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("store-sync".to_owned());
        let thread = Some(builder.spawn(move || run(&theirs))?);
        Ok(Self { shared, thread })
    }

    /// This file has been written to; so many events are in what was.
    pub(super) fn written(&self, file: &Arc<LogFile>, events: usize) {
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

    /// The next segment will be needed soon.
    pub(super) fn prepare(&self, which: impl FnOnce() -> NextSegment) {
        let mut desk = self.shared.desk();
        if matches!(desk.next, Next::NotNeeded) {
            desk.next = Next::Wanted(which());
            drop(desk);
            self.shared.changed.notify_one();
        }
    }

    /// The next segment, if it has been made; it is what is written to from now on.
    pub(super) fn take_next(&self) -> Option<(Arc<LogFile>, u64)> {
        let mut desk = self.shared.desk();
        match std::mem::replace(&mut desk.next, Next::NotNeeded) {
            Next::Made(file, len) => {
                desk.current = Arc::new(file);
                Some((Arc::clone(&desk.current), len))
            }
            other => {
                desk.next = other;
                None
            }
        }
    }

    /// This file is what is written to from now on.
    pub(super) fn goes_on_in(&self, file: &Arc<LogFile>) {
        self.shared.desk().current = Arc::clone(file);
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
            if desk.is_idle() && desk.busy.is_none() {
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

    /// As if the disk hung, until what is returned is told.
    #[cfg(test)]
    pub(super) fn hang(&self) -> std::sync::mpsc::Sender<()> {
        let shared = Arc::clone(&self.shared);
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (tell, hangs) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            let _held = shared.disk.lock();
            _ = tell.send(());
            _ = ended.recv();
        });
        _ = hangs.recv();
        end
    }

    /// Nobody is to wait for its end: it may hang in a sync that never comes back.
    pub(super) fn let_go(&mut self) {
        self.thread = None;
    }

    /// How long the disk has been at what it was last asked for.
    pub(super) fn busy(&self) -> Option<Duration> {
        self.shared.desk().busy.map(|since| since.elapsed())
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
        if desk.is_idle() {
            if desk.ended {
                return;
            }
            let waited = shared.changed.wait_timeout(desk, LOOK_EVERY);
            let (after, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            desk = after;
            if !(waited.timed_out() && desk.is_idle()) {
                continue;
            }
        } else {
            let more = |desk: &mut Desk| desk.events < EVENTS_MAX && !desk.ended;
            let waited = shared.changed.wait_timeout_while(desk, INTERVAL, more);
            desk = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let (files, past) = (std::mem::take(&mut desk.unsynced), std::mem::take(&mut desk.past));
        let next = match std::mem::replace(&mut desk.next, Next::BeingMade) {
            Next::Wanted(next) if !desk.ended => Some(next),
            Next::Wanted(_) => None,
            other => {
                desk.next = other;
                None
            }
        };
        let current = Arc::clone(&desk.current);
        desk.events = 0;
        desk.busy = Some(Instant::now());
        drop(desk);
        #[cfg(test)]
        drop(shared.disk.lock());
        let done = work(&current, &files, &past, next.as_ref());
        desk = shared.desk();
        desk.busy = None;
        match done {
            Ok(None) => {}
            Ok(Some((file, len))) => desk.next = Next::Made(file, len),
            Err(error) => {
                desk.failed = Some(error.to_string());
                return;
            }
        }
    }
}

/// One round of all that may hang; with the next segment, if one was to be made.
fn work(
    current: &LogFile,
    files: &[Arc<LogFile>],
    past: &[PathBuf],
    next: Option<&NextSegment>,
) -> Result<Option<(LogFile, u64)>, StoreError> {
    for file in files {
        file.sync()?;
    }
    current.is_there()?;
    for path in past {
        std::fs::remove_file(path).map_err(StoreError::io("removing", path))?;
    }
    let make = |next: &NextSegment| LogFile::make(&next.dir, next.number, &next.chain);
    next.map(make).transpose()
}
