//! Records: what the log says, in the order in which it happened.
//!
//! They are encoded with postcard, which numbers the variants of an enum: new ones are added at the
//! end, so that later builds read what earlier ones wrote.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

use super::frame::{FRAME_HEAD_LEN, seal};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::Subject;
use crate::store::Event;

/// One record. The last one about an event or a key is valid.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record<'a> {
    /// An event that has to reach the broker.
    Event(#[serde(borrow)] EventRecord<'a>),
    /// The event was delivered, or will never be.
    Done { id: u64, delivered: bool },
    /// The value of a key.
    Put(Key, #[serde(borrow, serialize_with = "as_bytes")] &'a [u8]),
    /// The key has no value.
    Remove(Key),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventRecord<'a> {
    pub(crate) id: u64,
    recorded_at: Moment,
    subject: Cow<'a, Subject>,
    #[serde(borrow)]
    event_type: &'a str,
    #[serde(borrow, serialize_with = "as_bytes")]
    payload: &'a [u8],
}

impl EventRecord<'_> {
    pub(crate) fn event(&self) -> Event {
        Event {
            id: self.id,
            recorded_at: self.recorded_at,
            subject: self.subject.clone().into_owned(),
            event_type: self.event_type.to_owned().into(),
            payload: Bytes::copy_from_slice(self.payload),
            read_at: None,
        }
    }
}

/// What a value is stored for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// A device's last state.
    Device(GatewayName, DeviceId),
    /// How many events of a subject were dropped since its last one, which waits no more.
    Lost(Subject),
    /// What commands have registered at a gateway, to be registered again after its restart.
    Desired(GatewayName),
    /// A command with several steps that is running at a gateway.
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
}

/// Lost events of one subject that no `events_lost` has reported yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreportedLoss {
    /// How many.
    pub count: u64,
    /// Some of them because the broker does not accept them.
    pub refused: bool,
}

/// Serializes in one piece, where serde would go byte by byte.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// A value as the log stores it.
#[must_use]
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    // Fails only where a map's length is unknown, which no value of ours has.
    postcard::to_allocvec(value).unwrap_or_default()
}

/// A value that [`encode`] has made; `None` if it is another's.
#[must_use]
pub fn decode<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    postcard::from_bytes(value).ok()
}

/// What records are about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    Event(u64),
    Value(Key),
}

impl Record<'_> {
    /// What it is about.
    pub(crate) fn item(&self) -> Item {
        match self {
            Self::Event(EventRecord { id, .. }) | Self::Done { id, .. } => Item::Event(*id),
            Self::Put(key, _) | Self::Remove(key) => Item::Value(key.clone()),
        }
    }
}

/// What a record changes in the index of what is live.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) item: Item,
    /// Its record, and the hash of the value; `None` where it is dead now.
    pub(crate) live: Option<(Place, u32)>,
}

/// Where a record lies in its frame, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Change {
    pub(crate) fn of(record: &Record<'_>, place: Place) -> Self {
        let hash = match record {
            Record::Event(_) => Some(0),
            Record::Put(_, value) => Some(hash_of(value)),
            Record::Done { .. } | Record::Remove(_) => None,
        };
        Self { item: record.item(), live: hash.map(|hash| (place, hash)) }
    }
}

/// Records that are written together: after a crash all of them are there, or none.
#[derive(Debug)]
pub struct Batch {
    frame: Vec<u8>,
    pub(crate) changes: Vec<Change>,
    delivered: usize,
}

/// A batch that was larger than this gives its memory back, in bytes and in records.
const FRAME_KEPT_MAX: usize = 1 << 20;
const CHANGES_KEPT_MAX: usize = 1 << 14;

impl Default for Batch {
    fn default() -> Self {
        Self { frame: vec![0; FRAME_HEAD_LEN], changes: Vec::new(), delivered: 0 }
    }
}

impl Batch {
    /// Whether it has no record.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether it has nothing but acknowledgements. If a kill loses them, those events are sent
    /// once more.
    #[must_use]
    pub const fn is_acknowledgements(&self) -> bool {
        self.delivered == self.changes.len()
    }

    /// Its length in the file, in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.frame.len()
    }

    /// Removes all records.
    pub fn clear(&mut self) {
        self.frame.truncate(FRAME_HEAD_LEN);
        self.frame.shrink_to(FRAME_KEPT_MAX);
        self.changes.clear();
        self.changes.shrink_to(CHANGES_KEPT_MAX);
        self.delivered = 0;
    }

    /// Adds an event.
    pub(crate) fn event(&mut self, event: &Event) {
        self.add(&Record::Event(EventRecord {
            id: event.id,
            recorded_at: event.recorded_at,
            subject: Cow::Borrowed(&event.subject),
            event_type: &event.event_type,
            payload: &event.payload,
        }));
    }

    /// The event was delivered, or will never be.
    pub(crate) fn done(&mut self, id: u64, delivered: bool) {
        self.add(&Record::Done { id, delivered });
        self.delivered += usize::from(delivered);
    }

    /// Sets the value of a key.
    pub fn put(&mut self, key: Key, value: &[u8]) {
        self.add(&Record::Put(key, value));
    }

    /// Removes the value of a key.
    pub fn remove(&mut self, key: Key) {
        self.add(&Record::Remove(key));
    }

    pub(crate) fn add(&mut self, record: &Record<'_>) {
        let offset = self.frame.len();
        // Writing to a vector fails as little as `encode` does.
        if let Ok(frame) = postcard::to_extend(record, std::mem::take(&mut self.frame)) {
            self.frame = frame;
        }
        let place = Place { offset: offset as u64, len: (self.frame.len() - offset) as u64 };
        self.changes.push(Change::of(record, place));
    }

    /// The bytes to write; `None` if a frame cannot hold them.
    pub(crate) fn sealed(&mut self) -> Option<&[u8]> {
        seal(&mut self.frame)?;
        Some(&self.frame)
    }
}

pub(crate) fn hash_of(value: &[u8]) -> u32 {
    crc32fast::hash(value)
}

/// The records of a batch; `None` where the batch is no sequence of records.
pub(crate) fn records(batch: &[u8]) -> Option<Vec<(Record<'_>, Place)>> {
    let (mut records, mut rest) = (Vec::new(), batch);
    while !rest.is_empty() {
        let offset = FRAME_HEAD_LEN + batch.len() - rest.len();
        let (record, behind) = postcard::take_from_bytes(rest).ok()?;
        let len = rest.len() - behind.len();
        records.push((record, Place { offset: offset as u64, len: len as u64 }));
        rest = behind;
    }
    Some(records)
}
