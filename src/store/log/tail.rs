//! The end of the log: the segment that is written to, and the next one, which the worker creates
//! ahead, so that nothing waits for it.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use super::record::LogBatch;
use super::segment::Segment;
use super::worker::Worker;
use crate::store::StoreError;
use crate::store::state_dir::LockFile;

#[derive(Debug)]
pub(crate) struct LogTail {
    segment: Arc<Segment>,
    /// Earlier ones, whose sync is not requested yet: the worker refuses while its queue is full.
    unsynced: Vec<Arc<Segment>>,
    /// `None` until it is requested.
    next: Option<Receiver<Result<Segment, StoreError>>>,
}

impl LogTail {
    pub(crate) fn new(segment: Segment) -> Self {
        Self { segment: Arc::new(segment), unsynced: Vec::new(), next: None }
    }

    /// The number of the segment that is written to.
    pub(crate) fn number(&self) -> u32 {
        self.segment.number
    }

    /// Appends the frame of a batch, and syncs it if `sync`.
    pub(crate) fn append(&self, batch: &mut LogBatch, sync: bool) -> Result<(), StoreError> {
        self.segment.append(batch)?;
        if sync { self.segment.sync() } else { Ok(()) }
    }

    /// Whether the segment is still the file at its path, and has what was written.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.segment.check()
    }

    /// Requests that the segment and the locked file are looked for at their paths.
    pub(crate) fn request_check(&self, worker: &Worker, lock: Option<Arc<LockFile>>) {
        let segment = Arc::clone(&self.segment);
        worker.request(move || {
            lock.map_or(Ok(()), |lock| lock.check())?;
            segment.check()
        });
    }

    /// Requests that everything is synced, and something after that; false if it is refused.
    pub(crate) fn request_sync(
        &mut self,
        worker: &Worker,
        then: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
    ) -> bool {
        let mut segments = self.unsynced.clone();
        segments.push(Arc::clone(&self.segment));
        let requested = worker.request(move || {
            segments.iter().try_for_each(|segment| segment.sync())?;
            then()
        });
        if requested {
            self.unsynced.clear();
        }
        requested
    }

    /// Requests the next segment, unless it is requested already.
    pub(crate) fn request_next(&mut self, worker: &Worker, dir: &Path, chain: &str) {
        if self.next.is_some() {
            return;
        }
        let (sender, created) = sync_channel(1);
        let (dir, chain, number) = (dir.to_owned(), chain.to_owned(), self.number() + 1);
        let requested = worker.request(move || {
            _ = sender.send(Segment::create(&dir, number, &chain));
            Ok(())
        });
        self.next = requested.then_some(created);
    }

    /// Continues in the next segment if it is created; `wait`: waits for that. The one before is
    /// then unsynced.
    pub(crate) fn advance(&mut self, wait: bool) -> Result<bool, StoreError> {
        let Some(created) = &self.next else { return Ok(false) };
        let created = if wait { created.recv().ok() } else { created.try_recv().ok() };
        let Some(created) = created else { return Ok(false) };
        self.next = None;
        let full = std::mem::replace(&mut self.segment, Arc::new(created?));
        self.unsynced.push(full);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_whose_sync_is_refused_is_synced_with_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let worker = Worker::start().unwrap();
        let mut tail = LogTail::new(Segment::create(dir.path(), 1, "k7f3").unwrap());
        tail.request_next(&worker, dir.path(), "k7f3");
        let (hanging, hangs) = sync_channel::<()>(0);
        worker.request(move || {
            hangs.iter().for_each(drop);
            Ok(())
        });
        hanging.send(()).unwrap();
        while worker.request(|| Ok(())) {}
        assert!(tail.advance(true).unwrap());
        assert!(!tail.request_sync(&worker, || Ok(())));
        assert_eq!(tail.unsynced.len(), 1);
        drop(hanging);
        while !tail.request_sync(&worker, || Ok(())) {
            std::thread::yield_now();
        }
        assert_eq!((tail.number(), tail.unsynced.len()), (2, 0));
    }
}
