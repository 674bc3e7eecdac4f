//! The files of the log: each is a sequence of frames, the first of which identifies the log. At
//! its end are the segment that is written to and the next one, which the worker creates ahead.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use serde::{Deserialize, Serialize};

use super::frame::{FORMAT, json_frame};
use super::record::LogBatch;
use super::worker::Worker;
use crate::store::StoreError;
use crate::store::state_dir::{LockFile, check_in_place, free_name};

const PREFIX: &str = "segment-";

/// A place in the log, behind a whole frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The number of the segment.
    pub segment: u32,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// The first frame of a segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Opening {
    pub(crate) format: u32,
    pub(crate) chain: String,
}

/// The path of a segment.
pub(crate) fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{PREFIX}{number:010}"))
}

/// The numbers of the segments in a folder, in order.
pub(crate) fn segment_numbers(dir: &Path) -> Result<Vec<u32>, StoreError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("reading", dir))? {
        let name = entry.map_err(StoreError::io("reading", dir))?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        numbers.extend(digits.and_then(|digits| digits.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes the segments of these numbers.
pub(crate) fn remove_segments(dir: &Path, range: impl RangeBounds<u32>) -> Result<(), StoreError> {
    for number in segment_numbers(dir)?.into_iter().filter(|number| range.contains(number)) {
        remove(&segment_path(dir, number))?;
    }
    Ok(())
}

/// Removes the segments of a log that another one, from `first` on, has replaced. One that cannot
/// be removed takes space, but is not read.
pub(crate) fn remove_replaced(dir: &Path, first: u32) {
    let replaced =
        segment_numbers(dir).unwrap_or_default().into_iter().take_while(|it| *it < first);
    let errors = replaced.filter_map(|number| remove(&segment_path(dir, number)).err());
    if let Some(error) = errors.reduce(|first, _| first) {
        tracing::warn!(%error, "store: cannot remove a file of an earlier log; remove it");
    }
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => {
            Err(StoreError::io("removing", path)(cause))
        }
        _ => Ok(()),
    }
}

/// Renames a damaged file.
pub(crate) fn set_aside(path: &Path) -> Result<(), StoreError> {
    let aside = free_name(&path.with_extension("damaged"));
    fs::rename(path, &aside).map_err(StoreError::io("setting aside", path))?;
    tracing::error!(file = %aside.display(), "set aside a damaged file of the log");
    Ok(())
}

/// A segment that is written to.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    file: File,
    path: PathBuf,
    /// The length that its file has at least.
    len: AtomicU64,
}

impl Segment {
    /// Creates a segment, synced with its name.
    pub(crate) fn create(dir: &Path, number: u32, chain: &str) -> Result<Self, StoreError> {
        let path = segment_path(dir, number);
        let create = || {
            let opening = json_frame(&Opening { format: FORMAT, chain: chain.to_owned() })?;
            let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
            file.write_all(&opening)?;
            file.sync_all()?;
            File::open(dir)?.sync_all()?;
            Ok((file, AtomicU64::new(opening.len() as u64)))
        };
        let (file, len) = create().map_err(StoreError::io("creating", &path))?;
        Ok(Self { number, file, path, len })
    }

    /// Opens a segment to append to it, cut to this length.
    pub(crate) fn open(dir: &Path, number: u32, len: u64) -> Result<Self, StoreError> {
        let path = segment_path(dir, number);
        let open = || {
            let file = OpenOptions::new().append(true).open(&path)?;
            file.set_len(len)?;
            Ok(file)
        };
        let file = open().map_err(StoreError::io("opening", &path))?;
        Ok(Self { number, file, path, len: AtomicU64::new(len) })
    }

    /// Appends the frame of a batch.
    pub(crate) fn append(&self, batch: &mut LogBatch) -> Result<(), StoreError> {
        let append = |frame: &[u8]| {
            (&self.file).write_all(frame)?;
            self.len.fetch_add(frame.len() as u64, Ordering::Release);
            Ok(())
        };
        batch.seal().and_then(append).map_err(StoreError::io("writing", &self.path))
    }

    /// Syncs it. A file that the next start will not find at its path is an error too.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(StoreError::io("syncing", &self.path))?;
        self.check()
    }

    /// Whether it is still the file at its path, and has what was written.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        check_in_place(&self.file, &self.path, self.len.load(Ordering::Acquire))
    }
}

/// The end of the log.
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
