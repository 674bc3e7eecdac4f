//! Which records of the log are live, and the segment of each.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use super::frame::frames;
use super::record::{Item, Key, Live, LogBatch, RecordChange, hash_of, records};
use super::segment::segment_path;
use crate::store::StoreError;

#[derive(Debug, Default)]
pub(crate) struct Index {
    segments: BTreeMap<u32, Usage>,
    /// Each live record with its segment: of events by ID, which are many while the broker is away,
    /// and of values.
    events: BTreeMap<u64, (u32, Live)>,
    values: HashMap<Key, (u32, Live)>,
    next_id: u64,
}

#[derive(Debug, Default)]
struct Usage {
    bytes: u64,
    live_bytes: u64,
    live_records: usize,
}

impl Index {
    /// Adds a batch of this length that is in the segment, behind all others.
    pub(crate) fn add(
        &mut self,
        segment: u32,
        len: usize,
        changes: impl IntoIterator<Item = RecordChange>,
    ) {
        self.segments.entry(segment).or_default().bytes += len as u64;
        for RecordChange { item, live } in changes {
            if let Item::Event(id) = item {
                self.skip_ids(id + 1);
            }
            if let Some(live) = live {
                let usage = self.segments.entry(segment).or_default();
                usage.live_bytes += u64::from(live.len);
                usage.live_records += 1;
            }
            if let Some((segment, dead)) = self.set(item, live.map(|live| (segment, live)))
                && let Some(usage) = self.segments.get_mut(&segment)
            {
                usage.live_bytes -= u64::from(dead.len);
                usage.live_records -= 1;
            }
        }
    }

    /// Sets or removes the live record about an item; returns the one before.
    fn set(&mut self, item: Item, live: Option<(u32, Live)>) -> Option<(u32, Live)> {
        match (item, live) {
            (Item::Event(id), Some(live)) => self.events.insert(id, live),
            (Item::Event(id), None) => self.events.remove(&id),
            (Item::Value(key), Some(live)) => self.values.insert(key, live),
            (Item::Value(key), None) => self.values.remove(&key),
        }
    }

    fn get(&self, item: &Item) -> Option<&(u32, Live)> {
        match item {
            Item::Event(id) => self.events.get(id),
            Item::Value(key) => self.values.get(key),
        }
    }

    /// The live records of a segment in this folder.
    ///
    /// # Errors
    /// When it cannot be read, or does not have what was written.
    pub(crate) fn live_batch(&self, dir: &Path, segment: u32) -> Result<LogBatch, StoreError> {
        let path = segment_path(dir, segment);
        let content = fs::read(&path).map_err(StoreError::io("reading", &path))?;
        self.live_records(segment, &content).ok_or_else(|| {
            StoreError::Failed(format!("{} is not what was written to it", path.display()))
        })
    }

    fn live_records(&self, segment: u32, content: &[u8]) -> Option<LogBatch> {
        let mut live = BTreeMap::new();
        // The first frame identifies the log of the segment.
        for (_, batch) in frames(content).skip(1) {
            for (record, len) in records(batch)? {
                let item = record.change(len).item;
                if self.get(&item).is_some_and(|(lies_in, _)| *lies_in == segment) {
                    // Of several about one item the last is live.
                    live.insert(item, record);
                }
            }
        }
        let mut batch = LogBatch::default();
        live.values().for_each(|record| batch.add(record));
        (live.len() == self.segments.get(&segment)?.live_records).then_some(batch)
    }

    pub(crate) fn has(&self, key: &Key, value: &[u8]) -> bool {
        self.values.get(key).is_some_and(|(_, live)| live.hash == hash_of(value))
    }

    /// No event has had this ID or a higher one.
    pub(crate) const fn next_id(&self) -> u64 {
        self.next_id
    }

    /// IDs below this one count as used.
    pub(crate) fn skip_ids(&mut self, next_id: u64) {
        self.next_id = self.next_id.max(next_id);
    }

    pub(crate) fn oldest(&self) -> Option<u32> {
        self.segments().next()
    }

    /// The segments, the oldest first.
    pub(crate) fn segments(&self) -> impl Iterator<Item = u32> + '_ {
        self.segments.keys().copied()
    }

    pub(crate) fn bytes_of(&self, segment: u32) -> u64 {
        self.segments.get(&segment).map_or(0, |usage| usage.bytes)
    }

    pub(crate) fn has_live(&self, segment: u32) -> bool {
        self.segments.get(&segment).is_some_and(|usage| usage.live_records > 0)
    }

    pub(crate) fn remove(&mut self, segment: u32) {
        self.segments.remove(&segment);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().map(|usage| usage.bytes).sum()
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.segments.values().map(|usage| usage.live_bytes).sum()
    }
}
