//! The thread for what may block: it syncs segments, creates the next one, and removes old ones.
//!
//! Jobs are done in order, so a segment that is removed after a sync was requested is removed after
//! it. A failed job is final: what the system then has of the files is unknown, so the log is given
//! up.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::segment::SegmentFile;
use crate::store::StoreError;

/// How long written records may be unsynced while events wait for the broker, and otherwise.
const SYNC_WITHIN: Duration = Duration::from_secs(1);
const SYNC_IDLE_WITHIN: Duration = Duration::from_secs(30);
/// How often the segment is looked for at its path, at most.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Jobs that may wait. On a disk that hangs further ones are refused, and requested again later.
const JOBS_MAX: usize = 64;

/// What the thread is to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Sync a segment, and look whether it is still the file at its path.
    Sync(Arc<SegmentFile>),
    /// Only look.
    Check(Arc<SegmentFile>),
    /// Create a segment of this number.
    Create {
        dir: PathBuf,
        number: u64,
        chain: String,
    },
    Remove(PathBuf),
    /// Hang until something reads this pipe.
    #[cfg(test)]
    Hang(PathBuf),
    /// Tell that every job before is done.
    #[cfg(test)]
    Notify(SyncSender<()>),
}

/// The log's end of the thread. Dropping it waits for the thread.
#[derive(Debug)]
pub(crate) struct Worker {
    /// `None` at the end.
    jobs: Option<SyncSender<Job>>,
    status: Arc<Mutex<Status>>,
    /// `None` once its end is not waited for.
    thread: Option<JoinHandle<()>>,
    /// When the current segment has to be synced, if it was written to.
    sync_at: Option<Instant>,
    /// When it has to be looked for at its path.
    check_at: Instant,
}

#[derive(Debug, Default)]
struct Status {
    failed: Option<String>,
    /// Since when the disk has been working on a job.
    busy_since: Option<Instant>,
    /// The segment that was created, with its length, until the log takes it.
    created: Option<(SegmentFile, u64)>,
}

impl Worker {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (jobs, requested) = sync_channel(JOBS_MAX);
        let status = Arc::new(Mutex::new(Status::default()));
        let shared = Arc::clone(&status);
        let thread = std::thread::Builder::new().name("log".to_owned());
        let thread = thread.spawn(move || run(&requested, &shared))?;
        let (thread, check_at) = (Some(thread), instant_now() + CHECK_EVERY);
        Ok(Self { jobs: Some(jobs), status, thread, sync_at: None, check_at })
    }

    /// The current segment was written to. `urgent`: events wait for the broker.
    pub(crate) fn written(&mut self, urgent: bool) {
        let within = if urgent { SYNC_WITHIN } else { SYNC_IDLE_WITHIN };
        let sync_at = instant_now() + within;
        self.sync_at = Some(self.sync_at.map_or(sync_at, |at| at.min(sync_at)));
    }

    /// Everything that was written is synced.
    pub(crate) const fn synced(&mut self) {
        self.sync_at = None;
    }

    /// When [`Worker::tick`] has a sync to request.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.sync_at
    }

    /// Requests what is due for the current segment.
    pub(crate) fn tick(&mut self, current: &Arc<SegmentFile>) {
        let now = instant_now();
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync(current);
        } else if self.check_at <= now {
            self.request(Job::Check(Arc::clone(current)));
            self.check_at = now + CHECK_EVERY;
        }
    }

    /// Requests a sync of the current segment; on a disk that hangs, again later.
    pub(crate) fn sync(&mut self, current: &Arc<SegmentFile>) {
        let requested = self.request(Job::Sync(Arc::clone(current)));
        self.sync_at = (!requested).then(|| instant_now() + SYNC_WITHIN);
    }

    /// Requests a job; returns false where too many wait already.
    pub(crate) fn request(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }

    /// The segment that was created, with its length, if it is ready.
    pub(crate) fn created(&self) -> Option<(SegmentFile, u64)> {
        lock(&self.status).created.take()
    }

    /// How long the disk has been working on a job.
    pub(crate) fn busy_for(&self) -> Option<Duration> {
        lock(&self.status).busy_since.map(|since| since.elapsed())
    }

    /// Why a job failed, if one did.
    pub(crate) fn failed(&self) -> Option<String> {
        lock(&self.status).failed.clone()
    }

    /// The thread's end is not waited for: it may hang.
    pub(crate) fn detach(&mut self) {
        self.thread = None;
    }

    /// Waits until every job is done.
    #[cfg(test)]
    pub(crate) fn finish(&self) {
        let (done, is_done) = sync_channel(1);
        self.request(Job::Notify(done));
        // A failed job has ended the thread.
        _ = is_done.recv();
        while self.busy_for().is_some() {
            std::thread::yield_now();
        }
    }

    /// As if a job had failed.
    #[cfg(test)]
    pub(crate) fn fail(&self) {
        lock(&self.status).failed = Some("syncing the log failed: a test".to_owned());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // What failed in it has been reported; a panic reports itself.
            _ = thread.join();
        }
    }
}

/// Now, by the clock of the event loop's timers.
fn instant_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn lock(status: &Mutex<Status>) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(jobs: &Receiver<Job>, status: &Mutex<Status>) {
    while let Ok(job) = jobs.recv() {
        lock(status).busy_since = Some(Instant::now());
        let done = job.run(status);
        let mut status = lock(status);
        status.busy_since = None;
        if let Err(error) = done {
            status.failed = Some(error.to_string());
            return;
        }
    }
}

impl Job {
    fn run(self, status: &Mutex<Status>) -> Result<(), StoreError> {
        match self {
            Self::Sync(file) => file.sync(),
            Self::Check(file) => file.check_path(),
            Self::Create { dir, number, chain } => {
                let created = SegmentFile::create(&dir, number, &chain)?;
                lock(status).created = Some(created);
                Ok(())
            }
            Self::Remove(path) => {
                std::fs::remove_file(&path).map_err(StoreError::io("removing", &path))
            }
            #[cfg(test)]
            Self::Hang(path) => {
                let pipe = std::fs::OpenOptions::new().write(true).open(&path);
                pipe.map(drop).map_err(StoreError::io("opening", &path))
            }
            #[cfg(test)]
            Self::Notify(done) => {
                _ = done.send(());
                Ok(())
            }
        }
    }
}
