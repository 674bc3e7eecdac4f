//! The thread for blocking work: it syncs segments, creates the next one, and removes old ones.
//!
//! Jobs are done in order, so a segment whose removal follows a sync is removed after the sync. A
//! failed job is final: the state of the files is then unknown, so the log is no longer used.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::store::StoreError;

/// Jobs that may wait. On a disk that hangs further ones are refused, and requested again later.
const JOBS_MAX: usize = 64;

type Job = Box<dyn FnOnce() -> Result<(), StoreError> + Send>;

/// The log's end of the thread. Dropping it waits for the thread.
#[derive(Debug)]
pub(crate) struct Worker {
    /// `None` at the end.
    jobs: Option<SyncSender<Job>>,
    status: Arc<Mutex<WorkerStatus>>,
    /// `None` once its end is not waited for.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct WorkerStatus {
    failed: Option<String>,
    /// Since when the disk has been working on a job.
    busy_since: Option<Instant>,
}

impl Worker {
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, requested) = sync_channel(JOBS_MAX);
        let status = Arc::new(Mutex::new(WorkerStatus::default()));
        let shared = Arc::clone(&status);
        let thread = std::thread::Builder::new().name("log".to_owned());
        let thread = thread.spawn(move || run(&requested, &shared))?;
        Ok(Self { jobs: Some(jobs), status, thread: Some(thread) })
    }

    /// Requests a job; returns false where too many wait already.
    pub(crate) fn request(
        &self,
        job: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
    ) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(Box::new(job)).is_ok())
    }

    /// Fails once a job has failed.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        lock(&self.status).failed.clone().map_or(Ok(()), |error| Err(StoreError::Failed(error)))
    }

    /// How long the disk has been working on a job.
    pub(crate) fn busy_for(&self) -> Option<Duration> {
        lock(&self.status).busy_since.map(|since| since.elapsed())
    }

    /// The thread's end is not waited for: it may hang.
    pub(crate) fn detach(&mut self) {
        self.thread = None;
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

fn lock(status: &Mutex<WorkerStatus>) -> MutexGuard<'_, WorkerStatus> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(jobs: &Receiver<Job>, status: &Mutex<WorkerStatus>) {
    while let Ok(job) = jobs.recv() {
        lock(status).busy_since = Some(Instant::now());
        let done = job();
        let mut status = lock(status);
        status.busy_since = None;
        if let Err(error) = done {
            status.failed = Some(error.to_string());
            return;
        }
    }
}
