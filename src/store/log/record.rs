//! The records of the log, in the order of the changes.
//!
//! They are encoded with postcard, which numbers the variants of an enum: new ones are added at the
//! end, so that later builds can read earlier logs.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::time::Instant;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::frame::{FRAME_HEAD_LEN, seal};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::Subject;

/// An event, from its recording to the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows with each event, and is never used again.
    pub id: u64,
    /// When it was recorded, by the bridge's wall clock.
    pub recorded_at: Moment,
    pub subject: Subject,
    /// Its type, as in the topic.
    pub event_type: Cow<'static, str>,
    /// A JSON object.
    #[serde(serialize_with = "as_bytes", deserialize_with = "from_bytes")]
    pub payload: Bytes,
    /// When this process has read it from a gateway's stream, to measure its way to the broker.
    #[serde(skip)]
    pub read_at: Option<Instant>,
}

/// Serializes in one piece, where serde would go byte by byte.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

fn from_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    <&[u8]>::deserialize(deserializer).map(Bytes::copy_from_slice)
}

/// One record. The last one about an event or a key is valid.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record<'a> {
    /// An event that has to reach the broker.
    Event(Cow<'a, Event>),
    /// The event was delivered, or will never be.
    Done { id: u64, delivered: bool },
    /// The value of a key.
    Put(Key, #[serde(borrow, serialize_with = "as_bytes")] Cow<'a, [u8]>),
    /// The key has no value.
    Remove(Key),
}

/// What a value is stored for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Key {
    /// A device's last state and its details.
    Device(GatewayName, DeviceId),
    /// How many events of a subject were dropped since its last one, which waits no more.
    Lost(Subject),
    /// What commands have registered at a gateway, to be registered again after its restart.
    Desired(GatewayName),
    /// A change that is running at a gateway.
    Intent(GatewayName),
    /// A gateway that has topics at the broker.
    Gateway(GatewayName),
    /// A topic that the broker has to clear.
    Clearing(String),
    /// Lost events of a subject that `events_lost` has not reported.
    UnreportedLoss(Subject),
    /// The broker's retained messages have to be searched for stale topics.
    StaleScan,
    /// How many events of its subject were dropped before the event of this ID.
    LostBefore(u64),
    /// No event has had this ID or a higher one.
    NextId,
    /// A gateway behind a master, by its ID there; the value is its name and, of a discovered one,
    /// for how long it is absent and whether it is forgotten.
    Discovered(GatewayName, String),
    /// A master that has a topic at the broker.
    Master(GatewayName),
    /// The number of the oldest segment; those before it are removed, or about to be.
    OldestSegment,
}

/// A value as the log stores it.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    // Fails only where a map's length is unknown, which no value of ours has.
    postcard::to_allocvec(value).unwrap_or_default()
}

/// A value that [`encode`] has made; `None` if it is another's.
pub(crate) fn decode<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    postcard::from_bytes(value).ok()
}

/// What records are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    Event(u64),
    Value(Key),
}

/// What a record of this length changes: it is the live one about its item, or that has none now.
#[derive(Debug)]
pub(crate) struct RecordChange {
    pub(crate) item: Item,
    pub(crate) live: Option<Live>,
}

/// A live record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    /// Its length in bytes.
    pub(crate) len: u32,
    /// The hash of its value.
    pub(crate) hash: ValueHash,
}

impl Record<'_> {
    /// What it changes; `len` is its length in bytes.
    pub(crate) fn change(&self, len: usize) -> RecordChange {
        let (item, hash) = match self {
            Self::Event(event) => (Item::Event(event.id), Some(ValueHash::default())),
            Self::Done { id, .. } => (Item::Event(*id), None),
            Self::Put(key, value) => (Item::Value(key.clone()), Some(hash_of(value))),
            Self::Remove(key) => (Item::Value(key.clone()), None),
        };
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        RecordChange { item, live: hash.map(|hash| Live { len, hash }) }
    }
}

/// 64 bits: with 32, one of the changes of some weeks would count as none. As bytes they need no
/// padding.
pub(crate) type ValueHash = [u8; 8];

pub(crate) fn hash_of(value: &[u8]) -> ValueHash {
    let mut hasher = DefaultHasher::new();
    hasher.write(value);
    hasher.finish().to_ne_bytes()
}

/// Records that are written together: after a crash all of them are there, or none.
#[derive(Debug)]
pub(crate) struct LogBatch {
    frame: Vec<u8>,
    changes: Vec<RecordChange>,
    delivered: usize,
}

/// A batch that was larger than this gives its memory back, in bytes and in records.
const FRAME_KEPT_MAX: usize = 1 << 20;
const CHANGES_KEPT_MAX: usize = 1 << 12;

impl Default for LogBatch {
    fn default() -> Self {
        Self { frame: vec![0; FRAME_HEAD_LEN], changes: Vec::new(), delivered: 0 }
    }
}

impl LogBatch {
    pub(crate) const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether it has nothing but acknowledgements. If a kill loses them, those events are sent
    /// once more.
    pub(crate) const fn is_acknowledgements(&self) -> bool {
        self.delivered == self.changes.len()
    }

    /// Its length in the file, in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.frame.len()
    }

    /// Removes all records.
    pub(crate) fn clear(&mut self) {
        self.frame.truncate(FRAME_HEAD_LEN);
        self.frame.shrink_to(FRAME_KEPT_MAX);
        self.changes.clear();
        self.changes.shrink_to(CHANGES_KEPT_MAX);
        self.delivered = 0;
    }

    /// Sets the value of a key.
    pub(crate) fn put(&mut self, key: Key, value: &[u8]) {
        self.add(&Record::Put(key, value.into()));
    }

    /// Removes the value of a key.
    pub(crate) fn remove(&mut self, key: Key) {
        self.add(&Record::Remove(key));
    }

    /// Adds a record.
    #[expect(clippy::expect_used, reason = "a vector takes all bytes, and all records have a form")]
    pub(crate) fn add(&mut self, record: &Record<'_>) {
        let offset = self.frame.len();
        let frame = std::mem::take(&mut self.frame);
        self.frame = postcard::to_extend(record, frame).expect("a record");
        self.changes.push(record.change(self.frame.len() - offset));
        self.delivered += usize::from(matches!(record, Record::Done { delivered: true, .. }));
    }

    /// The bytes to write.
    pub(crate) fn seal(&mut self) -> io::Result<&[u8]> {
        seal(&mut self.frame)?;
        Ok(&self.frame)
    }

    /// What they change.
    pub(crate) fn take_changes(&mut self) -> impl Iterator<Item = RecordChange> + '_ {
        self.changes.drain(..)
    }
}

/// The records of a batch, each with its length; `None` where the batch is no sequence of records.
pub(crate) fn records(mut batch: &[u8]) -> Option<Vec<(Record<'_>, usize)>> {
    let mut records = Vec::new();
    while !batch.is_empty() {
        let (record, rest) = postcard::take_from_bytes(batch).ok()?;
        records.push((record, batch.len() - rest.len()));
        batch = rest;
    }
    Some(records)
}
