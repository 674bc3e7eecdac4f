//! Reading the log at start: what it holds, and whether the chain may continue.
//!
//! What stands before a damaged place is true and is used; the file with the damage is set aside,
//! and a new chain begins.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use super::frame::{self, Next};
use super::head::{self, Head};
use super::record::{Key, Record, UnreportedLoss, records};
use super::segment::{Opening, segment_numbers, segment_path};
use super::{Log, Position};
use crate::fleet::Remembered;
use crate::ids::{DeviceId, GatewayName};
use crate::payload::Subject;
use crate::store::state_dir::free_name;
use crate::store::{Event, StoreError};

/// What an earlier process has stored.
#[derive(Debug, Default)]
pub struct Content {
    /// Events that wait for the broker, in their order, each with the number of events of its
    /// subject that were dropped before it.
    pub events: Vec<(Event, u64)>,
    /// Last states.
    pub devices: Vec<(GatewayName, DeviceId, Remembered)>,
    /// Subjects whose last events were dropped, and how many.
    pub lost: Vec<(Subject, u64)>,
    /// What commands have registered at gateways, as it was stored.
    pub desired: Vec<(GatewayName, Vec<u8>)>,
    /// Commands that were running, as they were stored.
    pub intents: Vec<(GatewayName, Vec<u8>)>,
    /// Gateways that have topics at the broker.
    pub gateways: Vec<GatewayName>,
    /// Topics that the broker has not confirmed to have cleared.
    pub clearing: Vec<String>,
    /// Losses that `events_lost` has not reported.
    pub unreported: Vec<(Subject, UnreportedLoss)>,
    /// The broker's retained messages have to be searched for stale topics.
    pub stale_scan: bool,
}

/// Whether the chain of an earlier process may continue.
#[derive(Debug)]
pub enum Recovery {
    /// It may, in this log.
    Continue {
        /// Its name.
        chain: String,
        /// Its log.
        log: Box<Log>,
    },
    /// It is not proven that the log holds everything: a new chain has to begin.
    NewChain {
        /// The chain that ends; `None` if it is unknown.
        from: Option<String>,
        /// Why; `None` if the folder was empty.
        reason: Option<String>,
    },
}

/// What a start has found.
#[derive(Debug)]
pub struct Opened {
    /// What is stored.
    pub content: Content,
    /// No event has had this ID or a higher one.
    pub next_id: u64,
    /// The end of the newest segment; 0 if there is none.
    pub end: Position,
    /// Whether the chain continues.
    pub recovery: Recovery,
}

/// An event or a value, and where it lies.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) segment: u64,
    pub(super) len: u64,
}

/// Everything that was read. Reading changes nothing; [`Scan::repair`] does.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) head: Option<Head>,
    /// Events by ID, with the number lost before each.
    pub(super) events: BTreeMap<u64, Found<(Event, u64)>>,
    /// Events that were delivered or dropped.
    pub(super) done: BTreeSet<u64>,
    pub(super) values: BTreeMap<Key, Found<Vec<u8>>>,
    /// The segments and their lengths.
    pub(super) segments: BTreeMap<u64, u64>,
    /// The lowest ID that no event has had.
    pub(super) next_id: u64,
    /// The chain of the newest segment.
    pub(super) chain: Option<String>,
    /// Why the chain cannot continue, if it cannot.
    pub(super) unproven: Option<String>,
    repairs: Vec<Repair>,
}

/// What has to be done to a file before the log may be appended to.
#[derive(Debug)]
enum Repair {
    /// It belongs to a log that was replaced, or holds nothing.
    Remove(PathBuf),
    /// It ends in a batch that was not written whole.
    Cut(PathBuf, u64),
    /// It is damaged.
    SetAside(PathBuf),
}

/// How far a segment could be read.
enum Rest {
    Nothing,
    Torn,
    Damaged,
}

impl Scan {
    /// Reads the folder of a log.
    pub(super) fn read(dir: &Path, boot: &str) -> Result<Self, StoreError> {
        let mut scan = Self::default();
        match Head::read(dir)? {
            Some(Ok(head)) => scan.head = Some(head),
            Some(Err(why)) => {
                scan.repairs.push(Repair::SetAside(dir.join(head::NAME)));
                scan.unproven = Some(why);
            }
            None => {}
        }
        let first = scan.head.as_ref().map_or(0, |head| head.first);
        let clean = scan.head.as_ref().is_some_and(|head| head.clean);
        let boot_unproven = scan.head.as_ref().and_then(|head| head.unproven(boot));
        let numbers = segment_numbers(dir)?;
        let last = numbers.last().copied();
        let mut before = None;
        for number in numbers {
            let path = segment_path(dir, number);
            if number < first {
                scan.repairs.push(Repair::Remove(path));
                continue;
            }
            if before.replace(number).is_some_and(|before| before + 1 != number) {
                scan.damaged(format!("the segment before {} is missing", path.display()));
            }
            // A folder in its place, say: damage of this one file.
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    scan.damaged(format!("{} cannot be read: {error}", path.display()));
                    scan.repairs.push(Repair::SetAside(path));
                    continue;
                }
            };
            let (end, rest) = scan.segment(number, &bytes);
            let is_last = Some(number) == last;
            let torn = match rest {
                Rest::Nothing => continue,
                // Its first frame is synced before anything follows, so it was empty.
                Rest::Torn if end == 0 && is_last => true,
                Rest::Torn => is_last && !clean,
                // After a power cut the end of the file may be anything.
                Rest::Damaged => {
                    is_last && boot_unproven.is_some() && !frame::any_whole_after(&bytes, end)
                }
            };
            if !torn {
                scan.damaged(format!("{} is damaged at byte {end}", path.display()));
                scan.segments.remove(&number);
                scan.repairs.push(Repair::SetAside(path));
            } else if end == 0 {
                scan.repairs.push(Repair::Remove(path));
            } else {
                scan.segments.insert(number, end as u64);
                scan.repairs.push(Repair::Cut(path, end as u64));
            }
        }
        scan.check(first, boot_unproven);
        Ok(scan)
    }

    /// Whether head and segments belong together.
    fn check(&mut self, first: u64, boot_unproven: Option<String>) {
        let lowest = self.segments.keys().next().copied();
        let newest = self.chain.as_ref();
        let why = match &self.head {
            None if lowest.is_some() => Some("its head is missing".to_owned()),
            None => None,
            Some(_) if lowest.is_none() => Some("its segments are missing".to_owned()),
            Some(head) if newest != Some(&head.chain) => {
                Some("its head is of another chain than its segments".to_owned())
            }
            Some(_) => boot_unproven,
        };
        debug_assert!(lowest.is_none_or(|lowest| lowest >= first));
        self.unproven = self.unproven.take().or(why);
    }

    fn damaged(&mut self, what: String) {
        self.unproven.get_or_insert(what);
    }

    /// Reads a segment as far as it is whole; returns how far that is.
    fn segment(&mut self, number: u64, bytes: &[u8]) -> (usize, Rest) {
        let mut at = 0;
        loop {
            let (frame, next) = match frame::next(bytes, at) {
                Next::Whole(frame, next) => (frame, next),
                Next::End if at == 0 => return (0, Rest::Torn),
                Next::End => {
                    self.segments.insert(number, at as u64);
                    return (at, Rest::Nothing);
                }
                Next::Torn => return (at, Rest::Torn),
                Next::Damaged => return (at, Rest::Damaged),
            };
            let read = if at == 0 { self.opening(frame) } else { self.batch(number, frame) };
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

    fn batch(&mut self, segment: u64, batch: &[u8]) -> Option<()> {
        for (record, len) in records(batch)? {
            match record {
                Record::Event(event) => {
                    self.next_id = self.next_id.max(event.id + 1);
                    let value = (event.event(), event.lost);
                    self.events.insert(event.id, Found { value, segment, len });
                }
                Record::Delivered(id) | Record::Dropped(id) => _ = self.done.insert(id),
                Record::Lost { id, lost } => {
                    if let Some(found) = self.events.get_mut(&id) {
                        found.value.1 = lost;
                    }
                }
                Record::Put(key, value) => {
                    self.values.insert(key, Found { value: value.to_vec(), segment, len });
                }
                Record::Remove(key) => _ = self.values.remove(&key),
                Record::NextId(id) => self.next_id = self.next_id.max(id),
            }
        }
        Some(())
    }

    /// Makes the files such that the log can be appended to, or replaced.
    pub(super) fn repair(&mut self, dir: &Path) -> Result<(), StoreError> {
        if self.unproven.is_some() {
            // First the proof goes: a start that is killed from here on may not take the rest for
            // everything.
            let head = dir.join(head::NAME);
            if self.head.is_some() {
                fs::remove_file(&head).map_err(StoreError::io("removing", &head))?;
            }
        }
        for repair in self.repairs.drain(..) {
            match repair {
                Repair::Remove(path) => {
                    fs::remove_file(&path).map_err(StoreError::io("removing", &path))?;
                }
                Repair::Cut(path, end) => {
                    let file = OpenOptions::new().write(true).open(&path);
                    let cut =
                        file.and_then(|file| file.set_len(end).and_then(|()| file.sync_all()));
                    cut.map_err(StoreError::io("cutting", &path))?;
                }
                Repair::SetAside(path) => {
                    let mut aside = path.as_os_str().to_owned();
                    aside.push(".damaged");
                    let aside = free_name(Path::new(&aside));
                    fs::rename(&path, &aside).map_err(StoreError::io("setting aside", &path))?;
                    tracing::error!(file = %aside.display(), "set aside a damaged file of the log");
                }
            }
        }
        Ok(())
    }

    /// What is stored, by kind.
    pub(super) fn content(&mut self) -> Content {
        let mut content = Content::default();
        for (id, found) in &self.events {
            if !self.done.contains(id) {
                content.events.push(found.value.clone());
            }
        }
        let mut odd = false;
        for (key, Found { value, .. }) in &self.values {
            match key.clone() {
                Key::Device(gateway, device_id) => match postcard::from_bytes(value) {
                    Ok(device) => content.devices.push((gateway, device_id, device)),
                    Err(_) => odd = true,
                },
                Key::Lost(subject) => match postcard::from_bytes(value) {
                    Ok(lost) => content.lost.push((subject, lost)),
                    Err(_) => odd = true,
                },
                Key::UnreportedLoss(subject) => match postcard::from_bytes(value) {
                    Ok(loss) => content.unreported.push((subject, loss)),
                    Err(_) => odd = true,
                },
                Key::Desired(gateway) => content.desired.push((gateway, value.clone())),
                Key::Intent(gateway) => content.intents.push((gateway, value.clone())),
                Key::Gateway(gateway) => content.gateways.push(gateway),
                Key::Clearing(topic) => content.clearing.push(topic),
                Key::StaleScan => content.stale_scan = true,
            }
        }
        if odd {
            self.damaged("a value in it cannot be read".to_owned());
        }
        content
    }
}
