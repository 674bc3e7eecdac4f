//! What a batch is made of: events, what became of them, and values by key of which the last holds.
//!
//! May not touch files. A record says all that replaying it needs: the order in the log is the
//! order in time, so the last word on a number or a key is right.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use super::code::{Reader, Write};
use super::frame::{FRAME_HEAD_LEN, seal};
use crate::fleet::Remembered;
use crate::ids::{DeviceId, GatewayName};
use crate::payload::Subject;

const EVENT: u8 = 1;
const GONE: u8 = 2;
const LOST: u8 = 3;
const VALUE: u8 = 4;
const NO_VALUE: u8 = 5;

/// Of what a last value is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A device's last state.
    Device(GatewayName, DeviceId),
    /// How many events of a subject were dropped before its next, where none waits to tell it.
    Lost(Subject),
    /// What commands made at a gateway that is to be given to it again.
    Desired(GatewayName),
    /// A change with steps that is under way at a gateway.
    Intent(GatewayName),
    /// A gateway of which topics are at the broker.
    Gateway(GatewayName),
    /// A topic of something that is no more, until the broker has cleared it.
    Clearing(String),
    /// What of a subject was lost that `events_lost` has not told.
    Untold(Subject),
    /// What the broker keeps of earlier runs is still to be looked through.
    Leftovers,
}

/// Events of a subject that were lost and of which nobody was told yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Untold {
    /// How many.
    pub count: u64,
    /// Some of them because the broker does not accept them.
    pub refused: bool,
}

impl Untold {
    /// As it is kept.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_u64(self.count);
        bytes.put_flag(self.refused);
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(Self { count: reader.u64()?, refused: reader.flag()? })
    }
}

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number in the outbox: the order of all events.
    pub number: u64,
    /// How many of its subject were dropped before it.
    pub lost: u64,
    /// Whom it is about.
    pub subject: Subject,
    /// Its name in the topic.
    pub event_type: String,
    /// A JSON object.
    pub payload: Bytes,
}

/// One record, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    Event(Event),
    Gone(u64),
    Lost { number: u64, lost: u64 },
    Value { key: Key, value: &'a [u8] },
    NoValue(Key),
}

/// What a record changes in the books of what is live.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Event { number: u64, lost: u64, len: u64 },
    Gone(u64),
    Lost { number: u64, lost: u64 },
    Value { key: Key, len: u64, hash: u64 },
    NoValue(Key),
}

/// Records on their way to the disk: all of them arrive, or none.
#[derive(Debug)]
pub struct Batch {
    frame: Vec<u8>,
    pub(super) changes: Vec<Change>,
    pub(super) events: usize,
    gone: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self { frame: vec![0; FRAME_HEAD_LEN], changes: Vec::new(), events: 0, gone: 0 }
    }
}

impl Batch {
    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether nothing but what the broker has taken is in it: a kill before it is written makes
    /// that be sent again, no more.
    #[must_use]
    pub const fn can_wait(&self) -> bool {
        self.gone == self.changes.len()
    }

    /// How many bytes it will take.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.frame.len()
    }

    /// Empties it, keeping a usual batch's space.
    pub fn clear(&mut self) {
        self.frame.truncate(FRAME_HEAD_LEN);
        self.frame.shrink_to(1 << 20);
        self.changes.clear();
        self.gone = 0;
        self.changes.shrink_to(1 << 14);
        self.events = 0;
    }

    /// A new event.
    pub fn event(
        &mut self,
        number: u64,
        lost: u64,
        subject: &Subject,
        event_type: &str,
        payload: &[u8],
    ) {
        let from = self.frame.len();
        self.frame.put(&[EVENT]);
        self.frame.put_u64(number);
        self.frame.put_u64(lost);
        self.frame.put_subject(subject);
        self.frame.put_bytes(event_type.as_bytes());
        self.frame.put_bytes(payload);
        let len = (self.frame.len() - from) as u64;
        self.changes.push(Change::Event { number, lost, len });
        self.events += 1;
    }

    /// The event was acknowledged or dropped.
    pub fn gone(&mut self, number: u64) {
        self.frame.put(&[GONE]);
        self.frame.put_u64(number);
        self.changes.push(Change::Gone(number));
        self.gone += 1;
    }

    /// So many were dropped before the event.
    pub fn lost(&mut self, number: u64, lost: u64) {
        self.frame.put(&[LOST]);
        self.frame.put_u64(number);
        self.frame.put_u64(lost);
        self.changes.push(Change::Lost { number, lost });
    }

    /// So many events of a subject of which none waits were dropped; 0: that has been told.
    pub fn lost_before_next(&mut self, subject: &Subject, lost: u64) {
        let key = Key::Lost(subject.clone());
        if lost == 0 {
            self.no_value(key);
        } else {
            self.value(key, &lost.to_le_bytes());
        }
    }

    /// A device's last state as it is kept.
    pub(in crate::outbox) fn device_value(device: &Remembered) -> Vec<u8> {
        let mut value = Vec::with_capacity(80);
        value.put_remembered(device);
        value
    }

    /// A device's last state.
    #[cfg(test)]
    pub(super) fn device(
        &mut self,
        gateway: &GatewayName,
        device_id: DeviceId,
        device: &Remembered,
    ) {
        self.value(Key::Device(gateway.clone(), device_id), &Self::device_value(device));
    }

    /// A device that is no more.
    pub fn device_gone(&mut self, gateway: &GatewayName, device_id: DeviceId) {
        self.no_value(Key::Device(gateway.clone(), device_id));
    }

    pub(in crate::outbox) fn value(&mut self, key: Key, value: &[u8]) {
        let from = self.frame.len();
        self.frame.put(&[VALUE]);
        put_key(&mut self.frame, &key);
        self.frame.put_bytes(value);
        let len = (self.frame.len() - from) as u64;
        self.changes.push(Change::Value { key, len, hash: hash_of(value) });
    }

    pub(in crate::outbox) fn no_value(&mut self, key: Key) {
        self.frame.put(&[NO_VALUE]);
        put_key(&mut self.frame, &key);
        self.changes.push(Change::NoValue(key));
    }

    /// The bytes to write; `None` if they are more than a frame holds.
    pub(super) fn sealed(&mut self) -> Option<&[u8]> {
        seal(&mut self.frame)?;
        Some(&self.frame)
    }
}

pub(super) fn hash_of(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn put_key(bytes: &mut Vec<u8>, key: &Key) {
    match key {
        Key::Device(gateway, device_id) => {
            bytes.put(&[1]);
            bytes.put_subject(&Subject::Device(gateway.clone(), *device_id));
        }
        Key::Lost(subject) => {
            bytes.put(&[2]);
            bytes.put_subject(subject);
        }
        Key::Desired(gateway) => {
            bytes.put(&[3]);
            bytes.put_subject(&Subject::Gateway(gateway.clone()));
        }
        Key::Intent(gateway) => {
            bytes.put(&[4]);
            bytes.put_subject(&Subject::Gateway(gateway.clone()));
        }
        Key::Gateway(gateway) => {
            bytes.put(&[5]);
            bytes.put_subject(&Subject::Gateway(gateway.clone()));
        }
        Key::Clearing(topic) => {
            bytes.put(&[CLEARING]);
            bytes.put_bytes(topic.as_bytes());
        }
        Key::Untold(subject) => {
            bytes.put(&[7]);
            bytes.put_subject(subject);
        }
        Key::Leftovers => bytes.put(&[LEFTOVERS]),
    }
}

/// The two kinds of key that are of no subject.
const CLEARING: u8 = 6;
const LEFTOVERS: u8 = 8;

fn key(reader: &mut Reader) -> Option<Key> {
    let kind = reader.u8()?;
    match kind {
        CLEARING => return Some(Key::Clearing(reader.text()?.to_owned())),
        LEFTOVERS => return Some(Key::Leftovers),
        _ => {}
    }
    match (kind, reader.subject()?) {
        (1, Subject::Device(gateway, device_id)) => Some(Key::Device(gateway, device_id)),
        (2, subject) => Some(Key::Lost(subject)),
        (3, Subject::Gateway(gateway)) => Some(Key::Desired(gateway)),
        (4, Subject::Gateway(gateway)) => Some(Key::Intent(gateway)),
        (5, Subject::Gateway(gateway)) => Some(Key::Gateway(gateway)),
        (7, subject) => Some(Key::Untold(subject)),
        _ => None,
    }
}

/// The records of a batch, each with its length; `None` where one makes no sense.
pub(super) fn entries(batch: &[u8]) -> impl Iterator<Item = Option<(Entry<'_>, u64)>> {
    let mut reader = Reader(batch);
    std::iter::from_fn(move || {
        if reader.is_empty() {
            return None;
        }
        let before = reader.0.len();
        let entry = entry(&mut reader);
        let len = (before - reader.0.len()) as u64;
        if entry.is_none() {
            reader.0 = &[];
        }
        Some(entry.map(|entry| (entry, len)))
    })
}

fn entry<'a>(reader: &mut Reader<'a>) -> Option<Entry<'a>> {
    Some(match reader.u8()? {
        EVENT => Entry::Event(Event {
            number: reader.u64()?,
            lost: reader.u64()?,
            subject: reader.subject()?,
            event_type: reader.text()?.to_owned(),
            payload: Bytes::copy_from_slice(reader.bytes()?),
        }),
        GONE => Entry::Gone(reader.u64()?),
        LOST => Entry::Lost { number: reader.u64()?, lost: reader.u64()? },
        VALUE => Entry::Value { key: key(reader)?, value: reader.bytes()? },
        NO_VALUE => Entry::NoValue(key(reader)?),
        _ => return None,
    })
}
