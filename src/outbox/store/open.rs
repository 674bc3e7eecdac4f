//! Opening the store: what is there, whether the chain may go on, and beginning anew.
//!
//! May not choose a chain's name: its caller does.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::code::Reader;
use super::error::StoreError;
use super::head::{Head, NAME, boot_id, same_boot};
use super::load::{Log, free_name, segment_numbers, segment_path};
use super::record::{Batch, Event, Key, hash_of};
use super::sync::Syncer;
use super::{LiveEvent, LiveValue, SEGMENT_MAX, Segment, StateDir, Store, SyncMode, new_segment};
use crate::fleet::Remembered;
use crate::ids::{DeviceId, GatewayName};
use crate::payload::Subject;

/// What an earlier process left.
#[derive(Debug, Default)]
pub struct Content {
    /// Events that wait, in their order.
    pub events: Vec<Event>,
    /// Last states.
    pub devices: Vec<(GatewayName, DeviceId, Remembered)>,
    /// Subjects of which events were dropped that nothing tells yet.
    pub lost: Vec<(Subject, u64)>,
    /// What commands made at gateways, as it was given to be kept.
    pub desired: Vec<(GatewayName, Vec<u8>)>,
    /// Changes that were under way, likewise.
    pub intents: Vec<(GatewayName, Vec<u8>)>,
}

/// Whether the chain goes on.
#[derive(Debug)]
pub enum Verdict {
    /// It does, in this store.
    GoesOn(String, Box<Store>),
    /// It cannot be proven that all is remembered: a new one begins, with [`Store::fresh`].
    Ends {
        /// The chain that ends; `None` where none is known.
        from: Option<String>,
        /// Why; `None` where there was nothing.
        reason: Option<String>,
    },
    /// Nothing can be written: a new one begins, in memory.
    Unwritable {
        /// The chain that ends; `None` where none is known.
        from: Option<String>,
        /// Why.
        error: StoreError,
    },
}

/// What an earlier process left, and what it proves.
struct Left {
    log: Log,
    head: Option<Head>,
    head_damaged: bool,
    content: Content,
    from: Option<String>,
    unproven: Option<String>,
}

impl Left {
    fn read(dir: &Path, boot: &str) -> Result<Self, StoreError> {
        let (head, head_fault) = match Head::read(dir) {
            Ok(head) => (head, None),
            Err(fault) => (None, Some(fault)),
        };
        let clean = head.as_ref().is_some_and(|head| head.clean);
        let same_boot = head.as_ref().is_some_and(|head| same_boot(&head.boot, boot));
        let first = head.as_ref().map_or(0, |head| head.first);
        let log = Log::read(dir, first, !clean, !clean && !same_boot)?;
        let head_damaged = head_fault.is_some();
        let mut unproven = head_fault.or_else(|| log.damage.clone());
        let from = match &head {
            Some(head) => Some(head.chain.clone()),
            None => log.chains.last().cloned(),
        };
        let content = log.content(&mut unproven);
        let unproven = unproven.or_else(|| unproven_by(head.as_ref(), &log, same_boot));
        Ok(Self { log, head, head_damaged, content, from, unproven })
    }

    fn verdict(self, dir: &Path, mode: SyncMode, boot: &str) -> Result<Verdict, StoreError> {
        let Self { mut log, head, head_damaged, from, unproven: reason, .. } = self;
        log.mend(dir)?;
        if head_damaged {
            let path = dir.join(NAME);
            let aside = free_name(dir, &path);
            fs::rename(&path, &aside).map_err(StoreError::io("setting aside", &path))?;
        }
        let Some(head) = head.filter(|_| reason.is_none()) else {
            return Ok(Verdict::Ends { from, reason });
        };
        let always = mode == SyncMode::Always;
        let head = Head { boot: boot.to_owned(), clean: false, always, ..head };
        let chain = head.chain.clone();
        Ok(Verdict::GoesOn(chain, Box::new(Store::go_on(dir, head, log)?)))
    }
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// What an earlier process left.
    pub content: Content,
    /// Whether its chain goes on.
    pub verdict: Verdict,
}

impl Store {
    /// Opens what is in the directory. Damage ends the chain; so does a directory that cannot be
    /// written, but what is in it is read all the same.
    #[must_use]
    pub fn open(dir: &StateDir, mode: SyncMode) -> Found {
        Self::open_at(&dir.path, mode, &boot_id())
    }

    /// Reads what is in a directory that cannot be held, for this reason.
    #[must_use]
    pub fn look(dir: &Path, error: StoreError) -> Found {
        let (content, from) = match Left::read(dir, &boot_id()) {
            Ok(left) => (left.content, left.from),
            // There may be nothing at all.
            Err(_) => (Content::default(), None),
        };
        Found { content, verdict: Verdict::Unwritable { from, error } }
    }

    pub(super) fn open_at(dir: &Path, mode: SyncMode, boot: &str) -> Found {
        let mut left = match Left::read(dir, boot) {
            Ok(left) => left,
            Err(error) => {
                let verdict = Verdict::Unwritable { from: None, error };
                return Found { content: Content::default(), verdict };
            }
        };
        let content = std::mem::take(&mut left.content);
        let from = left.from.clone();
        let verdict = left.verdict(dir, mode, boot);
        let verdict = verdict.unwrap_or_else(|error| Verdict::Unwritable { from, error });
        Found { content, verdict }
    }

    fn go_on(dir: &Path, head: Head, log: Log) -> Result<Self, StoreError> {
        let current = log.segments.last_key_value().map_or(0, |(&last, _)| last) + 1;
        let (file, len) = new_segment(dir, current, &head.chain)?;
        head.write(dir)?;
        let mut segments: BTreeMap<u64, Segment> = log
            .segments
            .iter()
            .map(|(&number, &len)| (number, Segment { len, ..Segment::default() }))
            .collect();
        segments.insert(current, Segment { len, ..Segment::default() });
        let (mut events, mut values) = (HashMap::new(), HashMap::new());
        let mut count = |segment: u64, len: u64| {
            let segment = segments.entry(segment).or_default();
            segment.live += 1;
            segment.live_bytes += len;
        };
        for (number, (event, segment, len)) in log.events {
            count(segment, len);
            events.insert(number, LiveEvent { segment, len, lost: event.lost });
        }
        for (key, (value, segment, len)) in log.values {
            count(segment, len);
            values.insert(key, LiveValue { segment, len, hash: hash_of(&value) });
        }
        let syncer = Syncer::start().map_err(StoreError::io("starting a thread for", dir))?;
        Ok(Self {
            dir: dir.to_owned(),
            head,
            file: Arc::new(file),
            current,
            segments,
            events,
            values,
            syncer,
            segment_max: SEGMENT_MAX,
        })
    }

    /// Begins anew under this chain, in fresh files, with what these batches hold; synced, and what
    /// was there before is gone.
    ///
    /// # Errors
    /// When it cannot be written; then what was there before still is.
    pub fn fresh(
        dir: &StateDir,
        mode: SyncMode,
        chain: &str,
        batches: impl IntoIterator<Item = Batch>,
    ) -> Result<Self, StoreError> {
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
        let (file, len) = new_segment(dir, head.first, &head.chain)?;
        let syncer = Syncer::start().map_err(StoreError::io("starting a thread for", dir))?;
        let mut store = Self {
            dir: dir.to_owned(),
            head: Head { always: false, ..head.clone() },
            file: Arc::new(file),
            current: head.first,
            segments: BTreeMap::from([(head.first, Segment { len, ..Segment::default() })]),
            events: HashMap::new(),
            values: HashMap::new(),
            syncer,
            segment_max: SEGMENT_MAX,
        };
        for mut batch in batches {
            store.write(&mut batch)?;
        }
        for &number in store.segments.keys() {
            let path = segment_path(dir, number);
            let synced = fs::File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(StoreError::io("syncing", &path))?;
        }
        store.head.always = head.always;
        store.head.write(dir)?;
        Ok(store)
    }
}

/// Why the log does not prove that the chain can go on, if it does not.
fn unproven_by(head: Option<&Head>, log: &Log, same_boot: bool) -> Option<String> {
    let Some(head) = head else {
        return (!log.chains.is_empty()).then(|| "the store's head is missing".to_owned());
    };
    if log.segments.is_empty() {
        return Some("the store's log is missing".to_owned());
    }
    if log.chains.iter().any(|chain| *chain != head.chain) {
        return Some("the process ended while it began a new chain".to_owned());
    }
    let proven = head.clean || same_boot || head.always;
    let reason = "the machine was restarted, and what was published last may not be on the disk";
    (!proven).then(|| reason.to_owned())
}

impl Log {
    fn content(&self, unproven: &mut Option<String>) -> Content {
        let mut content = Content {
            events: self.events.values().map(|(event, ..)| event.clone()).collect(),
            ..Content::default()
        };
        for (key, (value, ..)) in &self.values {
            match key {
                Key::Device(gateway, device_id) => match Reader(value).remembered() {
                    Some(device) => content.devices.push((gateway.clone(), *device_id, device)),
                    None => {
                        unproven.get_or_insert_with(|| format!("the last state of {key:?} is odd"));
                    }
                },
                Key::Lost(subject) => {
                    content.lost.push((subject.clone(), Reader(value).u64().unwrap_or(1)));
                }
                Key::Desired(gateway) => content.desired.push((gateway.clone(), value.clone())),
                Key::Intent(gateway) => content.intents.push((gateway.clone(), value.clone())),
            }
        }
        content
    }
}
