//! Beginning the store anew: in fresh files, with all that is known.
//!
//! May not remove what nobody has read. What was there before goes last, once the head says that
//! what counts is elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::end::EndFile;
use super::error::StoreError;
use super::head::{Head, boot_id};
use super::load::{segment_numbers, segment_path, set_aside};
use super::record::Batch;
use super::segment::LogFile;
use super::sync::Syncer;
use super::{SEGMENT_MAX, Seen, Segment, StateDir, Store, SyncMode, end_of};

impl Store {
    /// Begins anew under this chain, in fresh files, with what these batches hold; synced. What was
    /// there before and has been read whole is gone then; the rest is set aside.
    ///
    /// # Errors
    /// When it cannot be written; then what was there before still is.
    pub fn fresh(
        dir: &StateDir,
        mode: SyncMode,
        chain: &str,
        seen: &Seen,
        batches: impl IntoIterator<Item = Batch>,
    ) -> Result<Self, StoreError> {
        for &number in &seen.faulty {
            let path = segment_path(&dir.path, number);
            if path.exists() {
                set_aside(&dir.path, &path)?;
            }
        }
        Self::fresh_at(&dir.path, mode, chain, &boot_id(), batches)
    }

    pub(super) fn fresh_at(
        dir: &Path,
        mode: SyncMode,
        chain: &str,
        boot: &str,
        batches: impl IntoIterator<Item = Batch>,
    ) -> Result<Self, StoreError> {
        let before = segment_numbers(dir)?;
        let first = before.last().copied().unwrap_or(0) + 1;
        let head = Head {
            chain: chain.to_owned(),
            boot: boot.to_owned(),
            clean: false,
            always: mode == SyncMode::Always,
            first,
            has_end: true,
        };
        let written = Self::write_fresh(dir, &head, batches);
        if written.is_err() {
            // What was begun proves nothing, and would only take space.
            for number in segment_numbers(dir).unwrap_or_default() {
                if number >= first {
                    _ = fs::remove_file(segment_path(dir, number));
                }
            }
        }
        let store = written?;
        for number in before {
            let path = segment_path(dir, number);
            fs::remove_file(&path).map_err(StoreError::io("removing", &path))?;
        }
        Ok(store)
    }

    fn write_fresh(
        dir: &Path,
        head: &Head,
        batches: impl IntoIterator<Item = Batch>,
    ) -> Result<Self, StoreError> {
        let (file, len) = LogFile::make(dir, head.first, &head.chain)?;
        let file = Arc::new(file);
        let segments = BTreeMap::from([(head.first, Segment { len, ..Segment::default() })]);
        let syncer = Syncer::start(&file).map_err(StoreError::io("starting a thread for", dir))?;
        let mut store = Self {
            dir: dir.to_owned(),
            head: Head { always: false, ..head.clone() },
            end: EndFile::begin(dir, end_of(&segments))?,
            file,
            current: head.first,
            segments,
            events: HashMap::new(),
            values: HashMap::new(),
            syncer,
            // It is waited for all of this.
            beside: false,
            segment_max: SEGMENT_MAX,
        };
        for mut batch in batches {
            store.write(&mut batch)?;
        }
        store.sync_all()?;
        store.head.always = head.always;
        store.head.write(dir)?;
        store.beside = !head.always;
        Ok(store)
    }
}
