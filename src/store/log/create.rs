//! Begins a log in new files, which replace those of an earlier log once they are complete.

use std::fs;
use std::path::Path;

use super::Log;
use super::head::{Head, SyncMode, boot_id};
use super::index::Index;
use super::record::Batch;
use super::segment::{SegmentFile, segment_numbers, segment_path};
use crate::store::StoreError;

/// Begins a log of this chain with these batches. `next_id`: no event has had this ID or a higher
/// one; `after`: no segment has had a number above this one.
///
/// # Errors
/// When it cannot be written.
pub fn create(
    dir: &Path,
    mode: SyncMode,
    chain: &str,
    next_id: u64,
    after: u64,
    batches: impl IntoIterator<Item = Batch>,
) -> Result<Log, StoreError> {
    let first = segment_numbers(dir)?.last().map_or(after, |&last| last.max(after)) + 1;
    replace(dir, Head::new(chain, &boot_id(), mode, first), next_id, batches)
}

pub(crate) fn replace(
    dir: &Path,
    head: Head,
    next_id: u64,
    batches: impl IntoIterator<Item = Batch>,
) -> Result<Log, StoreError> {
    let (before, first) = (segment_numbers(dir)?, head.first);
    let written = write(dir, head, next_id, batches);
    if written.is_err() {
        // Incomplete files prove nothing, and take space.
        let numbers = segment_numbers(dir).unwrap_or_default().into_iter();
        for number in numbers.filter(|&number| number >= first) {
            _ = fs::remove_file(segment_path(dir, number));
        }
    }
    let log = written?;
    for number in before {
        let path = segment_path(dir, number);
        fs::remove_file(&path).map_err(StoreError::io("removing", &path))?;
    }
    Ok(log)
}

fn write(
    dir: &Path,
    head: Head,
    next_id: u64,
    batches: impl IntoIterator<Item = Batch>,
) -> Result<Log, StoreError> {
    let (file, len) = SegmentFile::create(dir, head.first, &head.chain)?;
    let mut index = Index::default();
    index.grow(head.first, len);
    // Synced as a whole at the end.
    let unsynced = Head { always: false, ..head.clone() };
    let mut log = Log::with(dir, unsynced, (file, head.first), index, next_id)?;
    log.begin_segment()?;
    for mut batch in batches {
        log.write(&mut batch, false)?;
    }
    log.finish_start(head)?;
    Ok(log)
}
