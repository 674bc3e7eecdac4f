//! Which records of the log are live, and in which segment each lies.

use std::collections::{BTreeMap, HashMap};

use super::record::{Change, Key, hash_of};
use super::recover::Scan;

/// What the files hold.
#[derive(Debug, Default)]
pub(super) struct Index {
    segments: BTreeMap<u64, Segment>,
    events: HashMap<u64, LiveEvent>,
    values: HashMap<Key, LiveValue>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    pub(super) len: u64,
    /// Live records, and their bytes.
    pub(super) live: u64,
    pub(super) live_bytes: u64,
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

impl Index {
    /// The index of what a start has read.
    pub(super) fn of(scan: &Scan) -> Self {
        let mut index = Self::default();
        for (&number, &len) in &scan.segments {
            index.grow(number, len);
        }
        for (&id, found) in &scan.events {
            if !scan.done.contains(&id) {
                let change = Change::Event { id, lost: found.value.1, len: found.len };
                index.apply(found.segment, change);
            }
        }
        for (key, found) in &scan.values {
            let hash = hash_of(&found.value);
            index.apply(found.segment, Change::Put { key: key.clone(), len: found.len, hash });
        }
        index
    }

    /// The segment has grown by this many bytes.
    pub(super) fn grow(&mut self, segment: u64, bytes: u64) {
        self.segments.entry(segment).or_default().len += bytes;
    }

    pub(super) fn apply(&mut self, segment: u64, change: Change) {
        match change {
            Change::Event { id, lost, len } => {
                let before = self.events.insert(id, LiveEvent { segment, len, lost });
                self.bury(before.map(|it| (it.segment, it.len)));
                self.add_live(segment, len);
            }
            Change::Done(id) => {
                let before = self.events.remove(&id);
                self.bury(before.map(|it| (it.segment, it.len)));
            }
            Change::Lost { id, lost } => {
                if let Some(event) = self.events.get_mut(&id) {
                    event.lost = lost;
                }
            }
            Change::Put { key, len, hash } => {
                let before = self.values.insert(key, LiveValue { segment, len, hash });
                self.bury(before.map(|it| (it.segment, it.len)));
                self.add_live(segment, len);
            }
            Change::Remove(key) => {
                let before = self.values.remove(&key);
                self.bury(before.map(|it| (it.segment, it.len)));
            }
            Change::NextId => {}
        }
    }

    fn add_live(&mut self, segment: u64, len: u64) {
        let segment = self.segments.entry(segment).or_default();
        segment.live += 1;
        segment.live_bytes += len;
    }

    /// A record is dead.
    fn bury(&mut self, record: Option<(u64, u64)>) {
        let Some((segment, len)) = record else { return };
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live = segment.live.saturating_sub(1);
            segment.live_bytes = segment.live_bytes.saturating_sub(len);
        }
    }

    /// How many events of its subject were lost before a live event of this segment.
    pub(super) fn lost_before(&self, id: u64, segment: u64) -> Option<u64> {
        self.events.get(&id).filter(|event| event.segment == segment).map(|event| event.lost)
    }

    /// Whether the value that this segment has for a key is the live one.
    pub(super) fn is_live(&self, key: &Key, segment: u64) -> bool {
        self.values.get(key).is_some_and(|value| value.segment == segment)
    }

    /// Whether a key has this value already.
    pub(super) fn has(&self, key: &Key, value: &[u8]) -> bool {
        self.values.get(key).is_some_and(|known| known.hash == hash_of(value))
    }

    pub(super) fn len_of(&self, segment: u64) -> u64 {
        self.segments.get(&segment).map_or(0, |segment| segment.len)
    }

    pub(super) fn oldest(&self) -> Option<(u64, Segment)> {
        self.segments.first_key_value().map(|(&number, &segment)| (number, segment))
    }

    pub(super) fn newest(&self) -> Option<u64> {
        self.segments.last_key_value().map(|(&number, _)| number)
    }

    pub(super) fn forget(&mut self, segment: u64) {
        self.segments.remove(&segment);
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = u64> + '_ {
        self.segments.keys().copied()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.len).sum()
    }

    pub(super) fn live_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.live_bytes).sum()
    }
}
