//! The log: what must be stored before it is published, appended to segments.
//!
//! A batch is handed to the kernel in one write, so it outlives the process; a thread syncs it. The
//! log is cleaned from its oldest end: a segment without live records is removed; when the dead
//! outweigh the living, the oldest segment's living are appended again first. After any error
//! nothing more is written to the same files.

mod create;
mod frame;
pub(crate) mod head;
mod index;
mod record;
mod recover;
mod segment;
mod tail;
#[cfg(test)]
mod tests;
mod worker;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StoreError;
pub use head::SyncMode;
use head::{Head, boot_id};
use index::Index;
use record::Item;
use recover::Scan;
use segment::{SegmentFile, segment_path};
use worker::{Job, Worker};

pub use create::create;
pub use record::{Batch, Key, UnreportedLoss, decode, encode};
pub use recover::{Content, Recovery};
pub use tail::{Position, Tail};

/// A segment is followed by another when it is larger than this, in bytes. Small enough that to
/// append its living again takes a few milliseconds.
const SEGMENT_MAX: u64 = 4 << 20;
/// What the log may hold besides twice what is live before it is cleaned, in segments.
const SLACK_SEGMENTS: u64 = 2;

/// What a start has found.
#[derive(Debug)]
pub struct Opened {
    /// What is stored.
    pub content: Content,
    /// No event has had this ID or a higher one.
    pub next_id: u64,
    /// The end of the newest segment; 0 if there is none.
    pub end: Position,
    /// Whether the chain continues.
    pub recovery: Recovery,
    /// The log in which it continues.
    pub log: Option<Box<Log>>,
}

/// A log that takes batches.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    head: Head,
    file: Arc<SegmentFile>,
    current: u64,
    index: Index,
    next_id: u64,
    /// The history has read the segments before this one.
    read_to: u64,
    worker: Worker,
    next_segment: NextSegment,
    segment_max: u64,
}

/// Who creates the segment after the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextSegment {
    /// The log itself, which waits for the disk.
    AtOnce,
    /// The worker, once it is requested.
    ByWorker,
    Requested,
}

impl Log {
    /// Reads what is in the folder, repairs it, and continues it if that is proven to be right.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or is of a later version.
    pub fn open(dir: &Path, mode: SyncMode) -> Result<Opened, StoreError> {
        Self::open_at(dir, mode, &boot_id())
    }

    fn open_at(dir: &Path, mode: SyncMode, boot: &str) -> Result<Opened, StoreError> {
        let mut scan = Scan::read(dir, boot)?;
        let content = scan.content();
        let (next_id, end) = (scan.next_id, scan.end());
        let (recovery, log) = match (scan.head, scan.unproven) {
            (Some(Head { chain, first, .. }), None) => {
                let file = SegmentFile::open(dir, end.segment)?;
                let head = Head::new(&chain, boot, mode, first);
                let file = (file, end.segment);
                let mut log = Self::with(dir, head.clone(), file, scan.index, next_id)?;
                log.finish_start(head)?;
                (Recovery::Continue { chain }, Some(Box::new(log)))
            }
            (head, reason) => {
                let from = head.map(|head| head.chain).or(scan.chain);
                (Recovery::NewChain { from, reason }, None)
            }
        };
        Ok(Opened { content, next_id, end, recovery, log })
    }

    fn with(
        dir: &Path,
        head: Head,
        (file, current): (SegmentFile, u64),
        index: Index,
        next_id: u64,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            dir: dir.to_owned(),
            head,
            file: Arc::new(file),
            current,
            index,
            next_id,
            read_to: 0,
            worker: Worker::start().map_err(StoreError::io("starting a thread for", dir))?,
            next_segment: NextSegment::AtOnce,
            segment_max: SEGMENT_MAX,
        })
    }

    /// From now on this head proves what the files hold.
    fn finish_start(&mut self, head: Head) -> Result<(), StoreError> {
        self.head = head;
        self.sync_all()?;
        self.worker.synced();
        if !self.head.always {
            self.next_segment = NextSegment::ByWorker;
        }
        self.head.write(&self.dir)
    }

    /// Writes a batch and empties it. When this returns, all of it outlives the process; before,
    /// none of it does. `urgent`: events wait for the broker, so it is synced sooner.
    ///
    /// # Errors
    /// When it could not be written, or an earlier sync failed. The log has to be given up then.
    pub fn write(&mut self, batch: &mut Batch, urgent: bool) -> Result<(), StoreError> {
        self.check()?;
        if batch.is_empty() {
            return Ok(());
        }
        self.rotate()?;
        self.append(batch, urgent)?;
        self.clean(urgent)
    }

    /// Requests from the worker what is due.
    ///
    /// # Errors
    /// When something that was requested has failed. The log has to be given up then.
    pub fn tick(&mut self) -> Result<(), StoreError> {
        self.worker.tick(&self.file);
        self.check()
    }

    /// When [`Log::tick`] has something to do.
    #[must_use]
    pub const fn due(&self) -> Option<Instant> {
        self.worker.due()
    }

    fn check(&self) -> Result<(), StoreError> {
        self.worker.failed().map_or(Ok(()), |error| Err(StoreError::Failed(error)))
    }

    /// Whether a key has this value already.
    #[must_use]
    pub fn has(&self, key: &Key, value: &[u8]) -> bool {
        self.index.has(key, value)
    }

    /// Whether the disk has not answered for this long. What is written meanwhile outlives the
    /// process, but no power cut.
    #[must_use]
    pub fn hangs(&self, after: Duration) -> bool {
        self.worker.busy_for().is_some_and(|busy| busy >= after)
    }

    /// The name of its chain.
    #[must_use]
    pub fn chain(&self) -> &str {
        &self.head.chain
    }

    /// The segment that is written to.
    #[must_use]
    pub const fn current(&self) -> u64 {
        self.current
    }

    /// The history has read the segments before this one: they may be removed.
    pub const fn read_by_history(&mut self, segment: u64) {
        self.read_to = segment;
    }

    /// Stops cleanly: the next start may continue the chain after a restart of the machine too.
    ///
    /// # Errors
    /// When that could not be written; then the next start begins a new chain.
    pub fn stop(mut self) -> Result<(), StoreError> {
        let stopped = self.check().and_then(|()| self.sync_all()).and_then(|()| {
            self.head.clean = true;
            self.head.write(&self.dir)
        });
        if stopped.is_err() {
            self.give_up();
        }
        stopped
    }

    /// Stops without waiting for the disk: the next start finds it as after a kill.
    pub fn detach(mut self) {
        self.worker.detach();
    }

    /// Gives it up after an error: no start may take its files for everything.
    pub fn give_up(mut self) {
        self.worker.detach();
        Head::remove(&self.dir);
    }

    fn sync_all(&self) -> Result<(), StoreError> {
        for number in self.index.segments() {
            let path = segment_path(&self.dir, number);
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(StoreError::io("syncing", &path))?;
        }
        Ok(())
    }

    fn append(&mut self, batch: &mut Batch, urgent: bool) -> Result<(), StoreError> {
        let len = batch.len();
        let frame = batch.sealed().ok_or(StoreError::TooLarge(len))?;
        self.file.append(frame)?;
        if self.head.always {
            self.file.sync()?;
        } else {
            self.worker.written(urgent);
        }
        let frame = self.index.len_of(self.current);
        self.index.grow(self.current, len as u64);
        for change in batch.changes.drain(..) {
            if let Item::Event(id) = change.item {
                self.next_id = self.next_id.max(id + 1);
            }
            self.index.apply(self.current, frame, change);
        }
        batch.clear();
        Ok(())
    }

    /// Continues in another segment when this one is full. One that is still being created, as on a
    /// disk that hangs, is not waited for: this one grows meanwhile.
    fn rotate(&mut self) -> Result<(), StoreError> {
        let len = self.index.len_of(self.current);
        let number = self.current + 1;
        if self.next_segment == NextSegment::ByWorker && len >= self.segment_max / 2 {
            let (dir, chain) = (self.dir.clone(), self.head.chain.clone());
            if self.worker.request(Job::Create { dir, number, chain }) {
                self.next_segment = NextSegment::Requested;
            }
        }
        if len < self.segment_max {
            return Ok(());
        }
        let (file, len) = if self.next_segment == NextSegment::AtOnce {
            SegmentFile::create(&self.dir, number, &self.head.chain)?
        } else {
            let Some(created) = self.worker.created() else { return Ok(()) };
            self.next_segment = NextSegment::ByWorker;
            created
        };
        self.worker.sync(&self.file);
        self.file = Arc::new(file);
        self.current = number;
        self.index.grow(number, len);
        self.begin_segment()
    }

    /// Each segment says which IDs were used, as the events of earlier ones are removed.
    fn begin_segment(&mut self) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(Key::NextId, &encode(&self.next_id));
        self.append(&mut batch, false)
    }

    /// Removes the oldest segments as far as possible. Only from the oldest end: a record that says
    /// that another is dead never goes before that one.
    fn clean(&mut self, urgent: bool) -> Result<(), StoreError> {
        let mut moved = false;
        while let Some((oldest, segment)) = self.index.oldest() {
            if oldest >= self.current.min(self.read_to) {
                return Ok(());
            }
            if segment.live > 0 {
                let slack = SLACK_SEGMENTS * self.segment_max;
                // One at a time: the event loop waits for this.
                if moved || self.index.bytes() <= 2 * self.index.live_bytes() + slack {
                    return Ok(());
                }
                self.append_living(oldest, urgent)?;
                moved = true;
            }
            self.index.forget(oldest);
            // What replaces it has to be on the disk first.
            self.worker.sync(&self.file);
            self.worker.request(Job::Remove(segment_path(&self.dir, oldest)));
        }
        Ok(())
    }

    /// Appends a segment's live records again.
    fn append_living(&mut self, oldest: u64, urgent: bool) -> Result<(), StoreError> {
        let path = segment_path(&self.dir, oldest);
        let bytes = fs::read(&path).map_err(StoreError::io("reading", &path))?;
        let Some(mut batch) = self.index.living(oldest, &bytes) else {
            let error = format!("{} is not what was written to it", path.display());
            return Err(StoreError::Failed(error));
        };
        self.append(&mut batch, urgent)
    }
}
