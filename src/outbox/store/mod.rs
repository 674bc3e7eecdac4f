//! The store: a segmented log of our own, appended to and never written over.
//!
//! May not know what events mean. A batch is handed to the kernel in one write, which outlives the
//! process; another thread forces it to the disk. The log is cleaned from its oldest end: a segment
//! in which nothing is live goes; when the dead outweigh the living, the oldest's living are
//! written anew first. After any error nothing more is written to the same files.

mod code;
mod end;
mod error;
mod frame;
mod fresh;
mod head;
mod load;
mod lock;
mod open;
mod record;
mod segment;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use error::StoreError;
pub use lock::StateDir;
pub use open::{Content, Found, Late, Seen, Verdict};
pub use record::{Batch, Event, Key, Untold};

use end::{End, EndFile};
use frame::Next;
use head::Head;
use load::segment_path;
use record::{Change, Entry, entries};
use segment::LogFile;
use sync::{NextSegment, Syncer};

/// A segment that has grown beyond this is followed by another, in bytes, once that is made. Small
/// enough that to write one's living anew is a few milliseconds.
const SEGMENT_MAX: u64 = 4 << 20;
/// What the log may hold besides twice what is live before it is cleaned, in bytes.
const SLACK: u64 = 2 * SEGMENT_MAX;

/// When what is written is forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// By the other thread, at most 10 ms or 1,000 events later.
    Interval,
    /// Before the write returns.
    Always,
}

/// A log that takes batches.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    head: Head,
    end: EndFile,
    file: Arc<LogFile>,
    current: u64,
    segments: BTreeMap<u64, Segment>,
    events: HashMap<u64, LiveEvent>,
    values: HashMap<Key, LiveValue>,
    syncer: Syncer,
    /// The next segment is made by the other thread: nobody waits for the disk.
    beside: bool,
    segment_max: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    len: u64,
    live: u64,
    live_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct LiveEvent {
    segment: u64,
    len: u64,
    lost: u64,
}

#[derive(Clone, Copy, Debug)]
struct LiveValue {
    segment: u64,
    len: u64,
    hash: u64,
}

impl Store {
    /// Writes a batch: when this returns, all of it outlives the process; before, nothing of it
    /// does.
    ///
    /// # Errors
    /// When it could not be written, or something before could not be synced. The store is to be
    /// dropped then: what its files hold is not known any more.
    pub fn write(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        if let Some(error) = self.failed() {
            return Err(StoreError::Sync(error));
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.append(batch)?;
        self.clean()
    }

    /// Why the store is to be dropped, if it is.
    #[must_use]
    pub fn failed(&self) -> Option<String> {
        self.syncer.failed()
    }

    /// Whether the disk has not answered for this long. What is written meanwhile outlives the
    /// process, but not the machine.
    #[must_use]
    pub fn hangs(&self, after: Duration) -> bool {
        self.syncer.busy().is_some_and(|busy| busy >= after)
    }

    /// Whether this is not yet the device's last state in the log.
    #[must_use]
    pub fn is_news(&self, key: &Key, value: &[u8]) -> bool {
        self.values.get(key).is_none_or(|known| known.hash != record::hash_of(value))
    }

    /// How many bytes the log takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.len).sum()
    }

    /// The process ends in order: the next may go on, whatever becomes of the machine.
    ///
    /// # Errors
    /// When that could not be written; then the next can go on only within this boot.
    pub fn stop(mut self) -> Result<(), StoreError> {
        if let Some(error) = self.failed() {
            return Err(StoreError::Sync(error));
        }
        self.sync_all()?;
        self.head.clean = true;
        self.head.write(&self.dir)
    }

    /// Forces all of the log to the disk, and waits for it.
    fn sync_all(&self) -> Result<(), StoreError> {
        for &number in self.segments.keys() {
            let path = segment_path(&self.dir, number);
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(StoreError::io("syncing", &path))?;
        }
        self.end.sync()
    }

    /// The process ends, and nothing more waits for the disk: the next goes on as after a kill.
    pub fn let_go(mut self) {
        self.syncer.let_go();
    }

    /// Gives it up after an error: no start may take its files as proof.
    pub fn give_up(mut self) {
        self.syncer.let_go();
        Head::remove(&self.dir);
    }

    fn append(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        self.turn_the_page()?;
        let len = batch.len();
        let frame = batch.sealed().ok_or(StoreError::TooLarge(len))?;
        self.file.append(frame)?;
        if self.head.always {
            self.file.sync_data()?;
        } else {
            self.syncer.written(&self.file, batch.events);
        }
        let segment = self.current;
        self.segments.entry(segment).or_default().len += len as u64;
        self.end.write(end_of(&self.segments))?;
        for change in batch.changes.drain(..) {
            self.book(segment, change);
        }
        batch.clear();
        Ok(())
    }

    /// Goes on in another segment where this one is full. One that is still being made, as on a
    /// disk that hangs, is not waited for: this one grows meanwhile.
    fn turn_the_page(&mut self) -> Result<(), StoreError> {
        let len = self.segments.get(&self.current).map_or(0, |segment| segment.len);
        let number = self.current + 1;
        let (dir, chain) = (&self.dir, &self.head.chain);
        if self.beside && len >= self.segment_max / 2 {
            let next = || NextSegment { dir: dir.clone(), number, chain: chain.clone() };
            self.syncer.prepare(next);
        }
        if len < self.segment_max {
            return Ok(());
        }
        let (file, len) = if self.beside {
            let Some(made) = self.syncer.take_next() else { return Ok(()) };
            made
        } else {
            let (file, len) = LogFile::make(dir, number, chain)?;
            let file = Arc::new(file);
            self.syncer.goes_on_in(&file);
            (file, len)
        };
        // The last one may hold what is not synced yet: the thread has it still.
        self.file = file;
        self.current = number;
        self.segments.insert(number, Segment { len, ..Segment::default() });
        Ok(())
    }

    fn book(&mut self, segment: u64, change: Change) {
        match change {
            Change::Event { number, lost, len } => {
                let before = self.events.insert(number, LiveEvent { segment, len, lost });
                self.dead(before.map(|it| (it.segment, it.len)));
                self.live(segment, len);
            }
            Change::Gone(number) => {
                let before = self.events.remove(&number);
                self.dead(before.map(|it| (it.segment, it.len)));
            }
            Change::Lost { number, lost } => {
                if let Some(event) = self.events.get_mut(&number) {
                    event.lost = lost;
                }
            }
            Change::Value { key, len, hash } => {
                let before = self.values.insert(key, LiveValue { segment, len, hash });
                self.dead(before.map(|it| (it.segment, it.len)));
                self.live(segment, len);
            }
            Change::NoValue(key) => {
                let before = self.values.remove(&key);
                self.dead(before.map(|it| (it.segment, it.len)));
            }
        }
    }

    fn live(&mut self, segment: u64, len: u64) {
        let segment = self.segments.entry(segment).or_default();
        segment.live += 1;
        segment.live_bytes += len;
    }

    fn dead(&mut self, record: Option<(u64, u64)>) {
        let Some((segment, len)) = record else { return };
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live = segment.live.saturating_sub(1);
            segment.live_bytes = segment.live_bytes.saturating_sub(len);
        }
    }

    /// Lets go of the oldest segments, as far as that is due. Only from the oldest end: what says
    /// that a record is dead never goes before the record.
    fn clean(&mut self) -> Result<(), StoreError> {
        let mut moved = false;
        while let Some((&oldest, segment)) = self.segments.first_key_value() {
            if oldest == self.current {
                return Ok(());
            }
            if segment.live > 0 {
                let live: u64 = self.segments.values().map(|segment| segment.live_bytes).sum();
                // At most one in a turn: the loop waits for this.
                if moved || self.bytes() <= 2 * live + SLACK.min(2 * self.segment_max) {
                    return Ok(());
                }
                self.write_anew(oldest)?;
                moved = true;
            }
            self.segments.remove(&oldest);
            // Nobody is to miss it.
            self.end.write(end_of(&self.segments))?;
            self.syncer.past(segment_path(&self.dir, oldest));
        }
        Ok(())
    }

    /// Writes a segment's living records anew.
    fn write_anew(&mut self, oldest: u64) -> Result<(), StoreError> {
        let path = segment_path(&self.dir, oldest);
        let bytes = std::fs::read(&path).map_err(StoreError::io("reading", &path))?;
        let mut batch = Batch::default();
        let mut values = BTreeMap::new();
        let (mut at, mut first) = (0, true);
        while let Next::Whole(frame, next) = frame::next(&bytes, at) {
            at = next;
            if std::mem::take(&mut first) {
                continue;
            }
            for (entry, _) in entries(frame).flatten() {
                match entry {
                    Entry::Event(event) => {
                        let live = self.events.get(&event.number);
                        if let Some(live) = live.filter(|live| live.segment == oldest) {
                            let Event { number, subject, event_type, payload, .. } = &event;
                            batch.event(*number, live.lost, subject, event_type, payload);
                        }
                    }
                    Entry::Value { key, value } => {
                        if self.values.get(&key).is_some_and(|live| live.segment == oldest) {
                            values.insert(key, value);
                        }
                    }
                    Entry::Gone(_) | Entry::Lost { .. } | Entry::NoValue(_) => {}
                }
            }
        }
        for (key, value) in values {
            batch.value(key, value);
        }
        let left = |segment: &Segment| segment.live;
        let expected = self.segments.get(&oldest).map(left).unwrap_or_default();
        if batch.changes.len() as u64 != expected {
            let error = format!("{} is not what was written to it", path.display());
            return Err(StoreError::Sync(error));
        }
        self.append(&mut batch)
    }
}

/// Where a log of these segments ends.
fn end_of(segments: &BTreeMap<u64, Segment>) -> End {
    let oldest = segments.keys().next().copied().unwrap_or_default();
    let (segment, len) = segments.last_key_value().map_or((0, 0), |(&last, it)| (last, it.len));
    End { oldest, segment, len }
}
