//! The log: data that must be stored before it is published, appended to segments.
//!
//! A batch is passed to the kernel in one write, so it survives the process; a thread syncs it. The
//! log is cleaned from its oldest end: a segment without live records is removed; if obsolete
//! records outweigh the live ones, the live records of the oldest segment are appended again first.
//! After any error nothing more is written to the same files.

mod frame;
mod head;
mod index;
mod record;
mod recover;
mod segment;
#[cfg(test)]
mod tests;
mod worker;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::StoreError;
use super::state_dir::{LockFile, create_dir};
use index::Index;
use recover::Recovered;
use segment::{LogTail, Segment, remove, remove_replaced, remove_segments};
use worker::Worker;

pub(crate) use frame::frames;
pub(crate) use head::{LogHead, NAME as HEAD};
pub use record::Event;
pub(crate) use record::{Key, LogBatch, Record, decode, encode, records};
pub(crate) use recover::LogContent;
pub use segment::Position;
pub(crate) use segment::{Opening, segment_numbers, segment_path};

/// A segment is followed by another when it is larger than this, in bytes. Small enough that to
/// append its live records again takes a few milliseconds.
const SEGMENT_MAX: u64 = 4 << 20;
/// Obsolete bytes tolerated beyond the live ones, in segments.
const SLACK_SEGMENTS: u64 = 2;
/// How long written records may be unsynced while events wait for the broker, and otherwise.
const SYNC_WITHIN: Duration = Duration::from_secs(1);
const SYNC_IDLE_WITHIN: Duration = Duration::from_secs(30);
/// How often the files are looked for at their paths, at most.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// The first batches of a log are about this large, in bytes.
const FIRST_BATCHES_LEN: usize = 1 << 20;

/// Whether the chain of an earlier process may continue.
#[derive(Debug)]
pub(crate) enum Recovery {
    /// It may, in this log.
    Continue(Box<Log>),
    /// It is not proven that the log holds everything: a new chain has to begin.
    NewChain {
        /// The chain that ends; `None` if it is unknown.
        from: Option<String>,
        /// Why; `None` if nothing says that there was one.
        reason: Option<String>,
    },
}

/// A log that takes batches.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    head: LogHead,
    tail: LogTail,
    index: Index,
    worker: Worker,
    /// It does not prove anything yet: nothing is synced, and the next segment is waited for.
    starting: bool,
    segment_max: u64,
    /// When the segment has to be synced, if it was written to.
    sync_at: Option<Instant>,
    /// When it has to be looked for at its path, and the locked file at its own.
    check_at: Instant,
    lock: Option<Arc<LockFile>>,
}

impl Log {
    /// Reads what is in the folder, repairs it, and continues it if that is proven to be right.
    /// `always`: each batch is synced when it is written.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or is of a later version.
    pub(crate) fn open(dir: &Path, always: bool) -> Result<(LogContent, Recovery), StoreError> {
        let Recovered { content, index, head, chain, unproven } = Recovered::read(dir)?;
        let recovery = match (head, unproven) {
            (Some(LogHead { chain, first, .. }), None) => {
                let Position { segment, offset } = content.end;
                let segment = Segment::open(dir, segment, offset)?;
                let mut log = Self::new(dir, LogHead::new(chain, always, first), segment, index)?;
                log.prove()?;
                Recovery::Continue(Box::new(log))
            }
            (head, reason) => {
                Recovery::NewChain { from: head.map(|head| head.chain).or(chain), reason }
            }
        };
        Ok((content, recovery))
    }

    /// Begins a log of this chain with these records, in new files, which replace those of an
    /// earlier log once they are complete. `next_id`: no event has had this ID or a higher one;
    /// `after`: no segment has had a number above this one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn create<'a>(
        dir: &Path,
        always: bool,
        chain: &str,
        next_id: u64,
        after: u32,
        records: impl Iterator<Item = Record<'a>>,
    ) -> Result<Self, StoreError> {
        create_dir(dir)?;
        let first = segment_numbers(dir)?.last().map_or(after, |&last| last.max(after)) + 1;
        let head = LogHead::new(chain.to_owned(), always, first);
        let created = Self::create_with(dir, head, next_id, records);
        match &created {
            Ok(_) => remove_replaced(dir, first),
            // Incomplete files prove nothing, and take space.
            Err(_) => _ = remove_segments(dir, first..),
        }
        created
    }

    fn create_with<'a>(
        dir: &Path,
        head: LogHead,
        next_id: u64,
        records: impl Iterator<Item = Record<'a>>,
    ) -> Result<Self, StoreError> {
        let segment = Segment::create(dir, head.first, &head.chain)?;
        let mut index = Index::default();
        index.skip_ids(next_id);
        let mut log = Self::new(dir, head, segment, index)?;
        log.begin_segment()?;
        let mut batch = LogBatch::default();
        for record in records {
            batch.add(&record);
            if batch.len() >= FIRST_BATCHES_LEN {
                log.write(&mut batch, false)?;
            }
        }
        log.write(&mut batch, false)?;
        log.prove()?;
        Ok(log)
    }

    fn new(dir: &Path, head: LogHead, segment: Segment, index: Index) -> Result<Self, StoreError> {
        Ok(Self {
            dir: dir.to_owned(),
            head,
            tail: LogTail::new(segment),
            index,
            worker: Worker::start().map_err(StoreError::io("starting a thread for", dir))?,
            starting: true,
            segment_max: SEGMENT_MAX,
            sync_at: None,
            check_at: Instant::now() + CHECK_EVERY,
            lock: None,
        })
    }

    /// From now on it fails once this file was removed: another process may write to it then.
    pub(crate) fn set_lock(&mut self, lock: Arc<LockFile>) {
        self.lock = Some(lock);
    }

    /// Syncs everything; from then on the head proves what the files hold.
    fn prove(&mut self) -> Result<(), StoreError> {
        self.worker.check()?;
        for number in self.index.segments() {
            let path = segment_path(&self.dir, number);
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(StoreError::io("syncing", &path))?;
        }
        self.tail.check()?;
        (self.starting, self.sync_at) = (false, None);
        self.head.write(&self.dir)
    }

    /// Writes a batch and empties it. When this returns, all of it outlives the process; before,
    /// none of it does. `urgent`: events wait for the broker, so it is synced sooner.
    ///
    /// # Errors
    /// When it could not be written, or an earlier sync failed. The log has to be given up then.
    pub(crate) fn write(&mut self, batch: &mut LogBatch, urgent: bool) -> Result<(), StoreError> {
        self.tick()?;
        if batch.is_empty() {
            return Ok(());
        }
        self.rotate()?;
        self.append(batch, self.sync_within(urgent))
    }

    /// Requests from the worker what is due.
    ///
    /// # Errors
    /// When something that was requested has failed. The log has to be given up then.
    pub(crate) fn tick(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        if self.sync_at.is_some_and(|at| at <= now) {
            self.request_sync();
        } else if self.check_at <= now {
            self.tail.request_check(&self.worker, self.lock.clone());
            self.check_at = now + CHECK_EVERY;
        }
        self.worker.check()
    }

    /// Removes the oldest segments as far as possible, but none from this one on, which the history
    /// still needs. Only from the oldest end: a record that marks another as obsolete is never
    /// removed before that one.
    ///
    /// # Errors
    /// When live records could not be written again. The log has to be given up then.
    pub(crate) fn clean(&mut self, keep_from_segment: u32) -> Result<(), StoreError> {
        let mut moved = false;
        while let Some(oldest) = self.index.oldest()
            && oldest < self.tail.number().min(keep_from_segment)
        {
            let mut batch = LogBatch::default();
            if self.index.has_live(oldest) {
                let slack = SLACK_SEGMENTS * self.segment_max;
                let is_small = self.index.bytes() <= 2 * self.index.live_bytes() + slack;
                // The event loop waits for this: one at a time, and none from a disk that hangs.
                if moved || is_small || self.hangs(SYNC_WITHIN) {
                    return Ok(());
                }
                batch = self.index.live_batch(&self.dir, oldest)?;
                moved = true;
            }
            let remaining = encode(&(oldest + 1));
            if !self.has(&Key::OldestSegment, &remaining) {
                batch.put(Key::OldestSegment, &remaining);
            }
            if !batch.is_empty() {
                self.append(&mut batch, Some(SYNC_IDLE_WITHIN))?;
            }
            let path = segment_path(&self.dir, oldest);
            // What replaces it has to be on the disk first. Refused, it stays the oldest.
            if !self.tail.request_sync(&self.worker, move || remove(&path)) {
                return Ok(());
            }
            self.index.remove(oldest);
        }
        Ok(())
    }

    /// When [`Log::tick`] has something to do.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.sync_at
    }

    pub(crate) fn has(&self, key: &Key, value: &[u8]) -> bool {
        self.index.has(key, value)
    }

    /// Whether the disk has not answered for this long. What is written meanwhile outlives the
    /// process, but no power cut.
    pub(crate) fn hangs(&self, after: Duration) -> bool {
        self.worker.busy_for().is_some_and(|busy| busy >= after)
    }

    /// The name of its chain.
    pub(crate) fn chain(&self) -> &str {
        &self.head.chain
    }

    /// The segment that is written to.
    pub(crate) fn current(&self) -> u32 {
        self.tail.number()
    }

    /// Stops cleanly: the next start may continue the chain after a restart of the machine too.
    ///
    /// # Errors
    /// When that could not be written; then the next start begins a new chain.
    pub(crate) fn stop(mut self) -> Result<(), StoreError> {
        self.head.clean = true;
        let stopped = self.prove();
        if stopped.is_err() {
            self.give_up();
        }
        stopped
    }

    /// Stops without waiting for the disk: the next start finds it as after a kill.
    pub(crate) fn detach(mut self) {
        self.worker.detach();
    }

    /// Gives it up after an error: no start may take its files for everything.
    pub(crate) fn give_up(mut self) {
        self.worker.detach();
        // The disk may have failed.
        _ = LogHead::remove(&self.dir);
    }

    /// When a batch is synced: `None` for at once.
    fn sync_within(&self, urgent: bool) -> Option<Duration> {
        let within = if urgent { SYNC_WITHIN } else { SYNC_IDLE_WITHIN };
        (!self.head.always || self.starting).then_some(within)
    }

    fn append(&mut self, batch: &mut LogBatch, sync: Option<Duration>) -> Result<(), StoreError> {
        self.tail.append(batch, sync.is_none())?;
        self.sync_at = self.sync_at.into_iter().chain(sync.map(|it| Instant::now() + it)).min();
        self.index.add(self.tail.number(), batch.len(), batch.take_changes());
        batch.clear();
        Ok(())
    }

    /// Requests that everything is synced; on a disk that hangs, again later.
    fn request_sync(&mut self) {
        let requested = self.tail.request_sync(&self.worker, || Ok(()));
        self.sync_at = (!requested).then(|| Instant::now() + SYNC_WITHIN);
    }

    /// Continues in another segment when this one is full. One that is still being created, as on a
    /// disk that hangs, is not waited for: this one grows meanwhile.
    fn rotate(&mut self) -> Result<(), StoreError> {
        let bytes = self.index.bytes_of(self.tail.number());
        if bytes >= self.segment_max / 2 {
            self.tail.request_next(&self.worker, &self.dir, &self.head.chain);
        }
        if bytes < self.segment_max || !self.tail.advance(self.starting)? {
            return Ok(());
        }
        self.request_sync();
        self.begin_segment()
    }

    /// Each segment has the next ID and the oldest segment's number: earlier ones are removed.
    fn begin_segment(&mut self) -> Result<(), StoreError> {
        let mut batch = LogBatch::default();
        batch.put(Key::NextId, &encode(&self.index.next_id()));
        batch.put(Key::OldestSegment, &encode(&self.index.oldest().unwrap_or(self.current())));
        self.append(&mut batch, self.sync_within(false))
    }
}
