//! The thread for what may block: it syncs what was written, creates the next segment in time, and
//! removes old ones.
//!
//! A failed sync is final: what the system then has of the file is unknown, so the log is given up.
//! So it is when a segment was removed or replaced.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::segment::SegmentFile;
use crate::store::StoreError;

/// How long written records may be unsynced while events wait for the broker, and otherwise.
const SYNC_WITHIN: Duration = Duration::from_secs(1);
const SYNC_IDLE_WITHIN: Duration = Duration::from_secs(30);
/// How often the segment is looked for at its path.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// The log's end of the thread. Dropping it waits for the thread.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    /// `None` once its end is not waited for.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    jobs: Mutex<Jobs>,
    changed: Condvar,
    /// While a test holds it, the disk hangs.
    #[cfg(test)]
    disk: Mutex<()>,
}

#[derive(Debug)]
struct Jobs {
    /// The segment that is written to.
    current: Arc<SegmentFile>,
    unsynced: Vec<Arc<SegmentFile>>,
    sync_at: Option<Instant>,
    next: NextSegment,
    /// Files to remove once everything before is synced.
    old: Vec<PathBuf>,
    failed: Option<String>,
    /// Since when the disk has been working.
    busy_since: Option<Instant>,
    stopping: bool,
}

#[derive(Debug)]
enum NextSegment {
    NotNeeded,
    Requested(SegmentRequest),
    Creating,
    Created(SegmentFile, u64),
}

#[derive(Debug)]
pub(super) struct SegmentRequest {
    pub(super) dir: PathBuf,
    pub(super) number: u64,
    pub(super) chain: String,
}

/// What the thread does in one go, without the lock.
struct Round {
    current: Arc<SegmentFile>,
    unsynced: Vec<Arc<SegmentFile>>,
    old: Vec<PathBuf>,
    next: Option<SegmentRequest>,
}

impl Worker {
    pub(super) fn start(current: &Arc<SegmentFile>) -> std::io::Result<Self> {
        let jobs = Jobs {
            current: Arc::clone(current),
            unsynced: Vec::new(),
            sync_at: None,
            next: NextSegment::NotNeeded,
            old: Vec::new(),
            failed: None,
            busy_since: None,
            stopping: false,
        };
        let shared = Arc::new(Shared {
            jobs: Mutex::new(jobs),
            changed: Condvar::new(),
            #[cfg(test)]
            disk: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("log".to_owned());
        Ok(Self { shared, thread: Some(thread.spawn(move || run(&theirs))?) })
    }

    /// This file was written to. `urgent`: events wait for the broker.
    pub(super) fn written(&self, file: &Arc<SegmentFile>, urgent: bool) {
        let mut jobs = self.shared.lock();
        if !jobs.unsynced.iter().any(|known| Arc::ptr_eq(known, file)) {
            jobs.unsynced.push(Arc::clone(file));
        }
        let sync_at = Instant::now() + if urgent { SYNC_WITHIN } else { SYNC_IDLE_WITHIN };
        // The thread sleeps until the earlier of the two by itself.
        if jobs.sync_at.is_none_or(|at| at > sync_at) {
            jobs.sync_at = Some(sync_at);
            drop(jobs);
            self.shared.changed.notify_one();
        }
    }

    /// The next segment will be needed soon.
    pub(super) fn prepare(&self, request: impl FnOnce() -> SegmentRequest) {
        let mut jobs = self.shared.lock();
        if matches!(jobs.next, NextSegment::NotNeeded) {
            jobs.next = NextSegment::Requested(request());
            drop(jobs);
            self.shared.changed.notify_one();
        }
    }

    /// The next segment with its length, if it was created; it is the current one from now on.
    pub(super) fn take_next(&self) -> Option<(Arc<SegmentFile>, u64)> {
        let mut jobs = self.shared.lock();
        match std::mem::replace(&mut jobs.next, NextSegment::NotNeeded) {
            NextSegment::Created(file, len) => {
                jobs.current = Arc::new(file);
                Some((Arc::clone(&jobs.current), len))
            }
            other => {
                jobs.next = other;
                None
            }
        }
    }

    /// This file is the current one from now on.
    pub(super) fn set_current(&self, file: &Arc<SegmentFile>) {
        self.shared.lock().current = Arc::clone(file);
    }

    /// This file is to be removed once everything written so far is synced.
    pub(super) fn remove(&self, path: PathBuf) {
        self.shared.lock().old.push(path);
        self.shared.changed.notify_one();
    }

    /// How long the disk has been working.
    pub(super) fn busy_for(&self) -> Option<Duration> {
        self.shared.lock().busy_since.map(|since| since.elapsed())
    }

    /// Why the disk failed, if it did.
    pub(super) fn failed(&self) -> Option<String> {
        self.shared.lock().failed.clone()
    }

    /// Its end is not waited for: it may hang in a sync.
    pub(super) fn detach(&mut self) {
        self.thread = None;
    }

    /// Waits until everything is done.
    #[cfg(test)]
    pub(super) fn finish(&self) {
        loop {
            let mut jobs = self.shared.lock();
            let idle = jobs.unsynced.is_empty() && jobs.old.is_empty();
            let creates = matches!(jobs.next, NextSegment::Requested(_) | NextSegment::Creating);
            if jobs.failed.is_some() || (idle && jobs.busy_since.is_none() && !creates) {
                return;
            }
            if !idle {
                jobs.sync_at = Some(Instant::now());
            }
            drop(jobs);
            self.shared.changed.notify_one();
            std::thread::yield_now();
        }
    }

    /// As if a sync had failed.
    #[cfg(test)]
    pub(super) fn fail(&self) {
        self.shared.lock().failed = Some("syncing the log failed: a test".to_owned());
    }

    /// As if the disk hung, until what is returned is dropped.
    #[cfg(test)]
    pub(super) fn hang(&self) -> std::sync::mpsc::Sender<()> {
        let shared = Arc::clone(&self.shared);
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (holds, held) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            let _held = shared.disk.lock();
            _ = holds.send(());
            _ = released.recv();
        });
        _ = held.recv();
        release
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // What failed in it has been reported; a panic reports itself.
            _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to do; `None` at the end.
    fn next_round(&self, check_at: Instant) -> Option<Round> {
        let mut jobs = self.lock();
        loop {
            let now = Instant::now();
            let sync = jobs.stopping || jobs.sync_at.is_some_and(|at| at <= now);
            let create = matches!(jobs.next, NextSegment::Requested(_)) && !jobs.stopping;
            if sync || create || !jobs.old.is_empty() || now >= check_at {
                return jobs.take_round(sync);
            }
            let wake_at = jobs.sync_at.map_or(check_at, |at| at.min(check_at));
            let waited = self.changed.wait_timeout(jobs, wake_at - now);
            jobs = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Jobs {
    fn take_round(&mut self, sync: bool) -> Option<Round> {
        let old = std::mem::take(&mut self.old);
        let unsynced = if sync || !old.is_empty() {
            self.sync_at = None;
            std::mem::take(&mut self.unsynced)
        } else {
            Vec::new()
        };
        if self.stopping && unsynced.is_empty() && old.is_empty() {
            return None;
        }
        let next = match std::mem::replace(&mut self.next, NextSegment::Creating) {
            NextSegment::Requested(request) if !self.stopping => Some(request),
            other => {
                self.next = other;
                None
            }
        };
        self.busy_since = Some(Instant::now());
        Some(Round { current: Arc::clone(&self.current), unsynced, old, next })
    }
}

fn run(shared: &Shared) {
    let mut check_at = Instant::now() + CHECK_EVERY;
    while let Some(round) = shared.next_round(check_at) {
        #[cfg(test)]
        drop(shared.disk.lock());
        let done = round.run();
        check_at = Instant::now() + CHECK_EVERY;
        let mut jobs = shared.lock();
        jobs.busy_since = None;
        match done {
            Ok(None) => {}
            Ok(Some((file, len))) => jobs.next = NextSegment::Created(file, len),
            Err(error) => {
                jobs.failed = Some(error.to_string());
                return;
            }
        }
    }
}

impl Round {
    /// Returns the next segment if one was to be created.
    fn run(self) -> Result<Option<(SegmentFile, u64)>, StoreError> {
        for file in &self.unsynced {
            file.sync()?;
        }
        self.current.check_path()?;
        for path in &self.old {
            std::fs::remove_file(path).map_err(StoreError::io("removing", path))?;
        }
        let create =
            |next: SegmentRequest| SegmentFile::create(&next.dir, next.number, &next.chain);
        self.next.map(create).transpose()
    }
}
