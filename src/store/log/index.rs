//! Which records of the log are live, and in which segment each lies.

use std::collections::{BTreeMap, HashMap};

use super::frame;
use super::record::{Batch, Change, Item, Key, Place, hash_of, records};

/// What the files hold.
#[derive(Debug, Default)]
pub(crate) struct Index {
    segments: BTreeMap<u64, Segment>,
    live: HashMap<Item, Live>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Segment {
    pub(crate) len: u64,
    /// Live records, and their bytes.
    pub(crate) live: u64,
    pub(crate) live_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    segment: u64,
    /// In the segment.
    place: Place,
    /// Of the value.
    hash: u32,
}

impl Index {
    /// The segment has grown by this many bytes.
    pub(crate) fn grow(&mut self, segment: u64, bytes: u64) {
        self.segments.entry(segment).or_default().len += bytes;
    }

    /// Applies a change whose frame begins at this offset of the segment.
    pub(crate) fn apply(&mut self, segment: u64, frame: u64, Change { item, live }: Change) {
        let before = match live {
            Some((Place { offset, len }, hash)) => {
                let into = self.segments.entry(segment).or_default();
                into.live += 1;
                into.live_bytes += len;
                let place = Place { offset: frame + offset, len };
                self.live.insert(item, Live { segment, place, hash })
            }
            None => self.live.remove(&item),
        };
        let Some(dead) = before else { return };
        if let Some(segment) = self.segments.get_mut(&dead.segment) {
            segment.live -= 1;
            segment.live_bytes -= dead.place.len;
        }
    }

    /// The live records of a segment with this content; `None` if that is not what was written.
    pub(crate) fn living(&self, segment: u64, content: &[u8]) -> Option<Batch> {
        let mut batch = Batch::default();
        for (frame_at, frame) in frame::after_first(content) {
            for (record, place) in records(frame)? {
                let here = (segment, frame_at + place.offset);
                let live = self.live.get(&record.item());
                if live.is_some_and(|live| (live.segment, live.place.offset) == here) {
                    batch.add(&record);
                }
            }
        }
        let is_whole = batch.changes.len() as u64 == self.segments.get(&segment)?.live;
        is_whole.then_some(batch)
    }

    /// Whether a key has this value already.
    pub(crate) fn has(&self, key: &Key, value: &[u8]) -> bool {
        let live = self.live.get(&Item::Value(key.clone()));
        live.is_some_and(|live| live.hash == hash_of(value))
    }

    pub(crate) fn len_of(&self, segment: u64) -> u64 {
        self.segments.get(&segment).map_or(0, |segment| segment.len)
    }

    pub(crate) fn oldest(&self) -> Option<(u64, Segment)> {
        self.segments.first_key_value().map(|(&number, &segment)| (number, segment))
    }

    /// The newest segment and its length.
    pub(crate) fn newest(&self) -> Option<(u64, u64)> {
        self.segments.last_key_value().map(|(&number, segment)| (number, segment.len))
    }

    pub(crate) fn forget(&mut self, segment: u64) {
        self.segments.remove(&segment);
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = u64> + '_ {
        self.segments.keys().copied()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.len).sum()
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.live_bytes).sum()
    }
}
