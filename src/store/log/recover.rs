//! Reading the log at start: what it holds, and whether the chain may continue.
//!
//! What stands before a damaged place is true and is used; the file with the damage is set aside,
//! and a new chain begins.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

use super::frame::{self, Next};
use super::head::{self, Head};
use super::index::Index;
use super::record::{Change, Key, Record, decode, records};
use super::segment::{Opening, segment_numbers, segment_path};
use super::tail::Position;
use crate::store::state_dir::free_name;
use crate::store::{Event, StoreError};

/// What an earlier process has stored.
#[derive(Debug, Default)]
pub struct Content {
    /// Events that wait for the broker, in their order.
    pub events: Vec<Event>,
    /// The values of keys; see [`decode`].
    pub values: BTreeMap<Key, Vec<u8>>,
}

/// Whether the chain of an earlier process may continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It may.
    Continue {
        /// Its name.
        chain: String,
    },
    /// It is not proven that the log holds everything: a new chain has to begin.
    NewChain {
        /// The chain that ends; `None` if it is unknown.
        from: Option<String>,
        /// Why; `None` if the folder was empty.
        reason: Option<String>,
    },
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) head: Option<Head>,
    events: BTreeMap<u64, Event>,
    /// Events that were delivered or dropped.
    done: BTreeSet<u64>,
    values: BTreeMap<Key, Vec<u8>>,
    pub(crate) index: Index,
    /// The lowest ID that no event has had.
    pub(crate) next_id: u64,
    /// The chain of the newest segment.
    pub(crate) chain: Option<String>,
    /// Why the chain cannot continue, if it cannot.
    pub(crate) unproven: Option<String>,
}

/// What follows the part of a segment that could be read.
enum Rest {
    Nothing,
    Torn,
    Damaged,
}

impl Scan {
    /// Reads the folder of a log, and repairs it such that it can be appended to, or replaced.
    pub(crate) fn read(dir: &Path, boot: &str) -> Result<Self, StoreError> {
        let mut scan = Self::default();
        match Head::read(dir)? {
            Some(Ok(head)) => scan.head = Some(head),
            Some(Err(why)) => {
                set_aside(&dir.join(head::NAME))?;
                scan.unproven = Some(why);
            }
            None => {}
        }
        let first = scan.head.as_ref().map_or(0, |head| head.first);
        let clean = scan.head.as_ref().is_some_and(|head| head.clean);
        let restarted = scan.head.as_ref().and_then(|head| head.unproven(boot));
        let numbers = segment_numbers(dir)?;
        let last = numbers.last().copied();
        let mut before = None;
        for number in numbers {
            let path = segment_path(dir, number);
            if number < first {
                // Of a log that this one has replaced.
                remove(&path)?;
                continue;
            }
            if before.replace(number).is_some_and(|before| before + 1 != number) {
                scan.damaged(dir, format!("the segment before {} is missing", path.display()))?;
            }
            let (end, rest) = match fs::read(&path) {
                Ok(bytes) => {
                    let (end, rest) = scan.segment(number, &bytes);
                    match rest {
                        // After a power cut the end of the file may be anything.
                        Rest::Damaged
                            if restarted.is_some() && !frame::any_whole_after(&bytes, end) =>
                        {
                            (end, Rest::Torn)
                        }
                        rest => (end, rest),
                    }
                }
                // A folder in its place, for instance.
                Err(_) => (0, Rest::Damaged),
            };
            let is_last = Some(number) == last;
            match rest {
                Rest::Nothing => {}
                // Its first frame is synced before anything follows, so the segment was empty.
                Rest::Torn if end == 0 && is_last => remove(&path)?,
                Rest::Torn if is_last && !clean => {
                    scan.index.grow(number, end as u64);
                    cut(&path, end as u64).map_err(StoreError::io("cutting", &path))?;
                }
                Rest::Torn | Rest::Damaged => {
                    scan.damaged(dir, format!("{} is damaged at byte {end}", path.display()))?;
                    scan.index.forget(number);
                    set_aside(&path)?;
                }
            }
        }
        let why = scan.contradiction().or(restarted);
        scan.unproven = scan.unproven.take().or(why);
        scan.next_id = scan.next_id.max(scan.next_id_stored());
        Ok(scan)
    }

    fn next_id_stored(&self) -> u64 {
        self.values.get(&Key::NextId).and_then(|value| decode(value)).unwrap_or(0)
    }

    /// Why head and segments do not belong together, if they do not.
    fn contradiction(&self) -> Option<String> {
        let why = match (&self.head, self.index.newest()) {
            (None, None) => return None,
            (None, Some(_)) => "its head is missing",
            (Some(_), None) => "its segments are missing",
            (Some(head), Some(_)) if self.chain.as_ref() != Some(&head.chain) => {
                "its head is of another chain than its segments"
            }
            (Some(_), Some(_)) => return None,
        };
        Some(why.to_owned())
    }

    /// The chain cannot continue. First the proof goes: a start that is killed from here on may not
    /// take the rest for everything.
    fn damaged(&mut self, dir: &Path, what: String) -> Result<(), StoreError> {
        if self.unproven.is_none() {
            remove(&dir.join(head::NAME))?;
        }
        self.unproven.get_or_insert(what);
        Ok(())
    }

    /// Reads a segment as far as it is whole; returns how far that is.
    fn segment(&mut self, number: u64, bytes: &[u8]) -> (usize, Rest) {
        let mut at = 0;
        loop {
            let (frame, next) = match frame::next(bytes, at) {
                Next::Whole(frame, next) => (frame, next),
                Next::End if at == 0 => return (0, Rest::Torn),
                Next::End => {
                    self.index.grow(number, at as u64);
                    return (at, Rest::Nothing);
                }
                Next::Torn => return (at, Rest::Torn),
                Next::Damaged => return (at, Rest::Damaged),
            };
            let read = match at {
                0 => self.opening(frame),
                at => self.batch(number, at as u64, frame),
            };
            if read.is_none() {
                return (at, Rest::Damaged);
            }
            at = next;
        }
    }

    fn opening(&mut self, frame: &[u8]) -> Option<()> {
        let opening: Opening = serde_json::from_slice(frame).ok()?;
        (opening.format <= head::FORMAT).then_some(())?;
        self.chain = Some(opening.chain);
        Some(())
    }

    fn batch(&mut self, segment: u64, at: u64, batch: &[u8]) -> Option<()> {
        for (record, place) in records(batch)? {
            self.index.apply(segment, at, Change::of(&record, place));
            match record {
                Record::Event(event) => {
                    self.next_id = self.next_id.max(event.id + 1);
                    self.events.insert(event.id, event.event());
                }
                Record::Done { id, .. } => _ = self.done.insert(id),
                Record::Put(key, value) => _ = self.values.insert(key, value.to_vec()),
                Record::Remove(key) => _ = self.values.remove(&key),
            }
        }
        Some(())
    }

    /// The end of the newest segment.
    pub(crate) fn end(&self) -> Position {
        let newest = self.index.newest();
        newest.map(|(segment, offset)| Position { segment, offset }).unwrap_or_default()
    }

    /// What is stored.
    pub(crate) fn content(&mut self) -> Content {
        let (mut events, done) = (std::mem::take(&mut self.events), &self.done);
        events.retain(|id, _| !done.contains(id));
        Content { events: events.into_values().collect(), values: std::mem::take(&mut self.values) }
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => {
            Err(StoreError::io("removing", path)(cause))
        }
        _ => Ok(()),
    }
}

fn cut(path: &Path, len: u64) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(len)?;
    file.sync_all()
}

fn set_aside(path: &Path) -> Result<(), StoreError> {
    let aside = free_name(&path.with_extension("damaged"));
    fs::rename(path, &aside).map_err(StoreError::io("setting aside", path))?;
    tracing::error!(file = %aside.display(), "set aside a damaged file of the log");
    Ok(())
}
