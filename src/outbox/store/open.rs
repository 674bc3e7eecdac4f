//! Opening the store: what is there, and whether the chain may go on.
//!
//! May not begin anew: `fresh` does, once its caller has chosen a chain's name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use super::code::Reader;
use super::end::{End, EndFile};
use super::error::StoreError;
use super::head::{Head, NAME, boot_id, same_boot};
use super::load::{Log, set_aside};
use super::record::{Event, Key, Untold, hash_of};
use super::segment::LogFile;
use super::sync::Syncer;
use super::{LiveEvent, LiveValue, SEGMENT_MAX, Segment, StateDir, Store, SyncMode, end_of};
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
    /// Gateways of which topics are at the broker.
    pub gateways: Vec<GatewayName>,
    /// Topics of what is no more, not known to be cleared.
    pub clearing: Vec<String>,
    /// What of whom was lost that `events_lost` has not told.
    pub untold: Vec<(Subject, Untold)>,
    /// What the broker keeps of earlier runs is still to be looked through.
    pub leftovers: bool,
}

/// What of a directory has been read: only that may be written over.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Which directory, by the file system's numbers: its path may come to name another.
    dir: Option<(u64, u64)>,
    /// Segments that were not taken in whole.
    pub(super) faulty: BTreeSet<u64>,
}

impl Seen {
    /// Whether it is of this directory.
    #[must_use]
    pub fn is_of(&self, dir: &StateDir) -> bool {
        self.dir.is_some() && self.dir == identity(&dir.path)
    }
}

fn identity(dir: &Path) -> Option<(u64, u64)> {
    dir.metadata().ok().map(|found| (found.dev(), found.ino()))
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
    seen: Seen,
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
        // After a power cut it may be ahead of the log, unless that was always synced before it.
        let holds = |head: &&Head| head.has_end && (same_boot || head.clean || head.always);
        let (end, end_fault) = match head.as_ref().filter(holds).map(|_| End::read(dir)) {
            Some(Ok(end)) => (Some(end), None),
            Some(Err(fault)) => (None, Some(fault)),
            None => (None, None),
        };
        let log = Log::read(dir, first, !clean, !clean && !same_boot, end)?;
        let head_damaged = head_fault.is_some();
        let mut unproven = head_fault.or_else(|| log.damage.clone()).or(end_fault);
        let from = match &head {
            Some(head) => Some(head.chain.clone()),
            None => log.chains.last().cloned(),
        };
        let content = log.content(&mut unproven);
        let unproven = unproven.or_else(|| unproven_by(head.as_ref(), &log, same_boot));
        let seen = Seen { dir: identity(dir), faulty: log.faulty.clone() };
        Ok(Self { log, head, head_damaged, content, from, unproven, seen })
    }

    /// Makes the files such that the log may be written on, or begun anew.
    fn mend(&mut self, dir: &Path) -> Result<(), StoreError> {
        self.log.mend(dir)?;
        if std::mem::take(&mut self.head_damaged) {
            set_aside(dir, &dir.join(NAME))?;
        }
        Ok(())
    }

    fn verdict(mut self, dir: &Path, mode: SyncMode, boot: &str) -> Result<Verdict, StoreError> {
        self.mend(dir)?;
        let Self { log, head, from, unproven: reason, .. } = self;
        let Some(head) = head.filter(|_| reason.is_none()) else {
            return Ok(Verdict::Ends { from, reason });
        };
        let always = mode == SyncMode::Always;
        let head = Head { boot: boot.to_owned(), clean: false, always, has_end: true, ..head };
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
    /// What has been read; `None` where nothing could be.
    pub seen: Option<Seen>,
}

/// What was found where nothing could be read before.
#[derive(Debug)]
pub struct Late {
    /// What an earlier process left.
    pub content: Content,
    /// Its chain; `None` where none is known.
    pub from: Option<String>,
    /// What has been read.
    pub seen: Seen,
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
        let (content, from, seen) = match Left::read(dir, &boot_id()) {
            Ok(left) => (left.content, left.from, Some(left.seen)),
            // There may be nothing at all.
            Err(_) => (Content::default(), None, None),
        };
        Found { content, verdict: Verdict::Unwritable { from, error }, seen }
    }

    /// Reads what is in a directory that could not be read before. Its chain has ended; what is
    /// damaged is set aside.
    ///
    /// # Errors
    /// When it still cannot be read; then nothing was touched, or only what is damaged.
    pub fn late(dir: &StateDir) -> Result<Late, StoreError> {
        let mut left = Left::read(&dir.path, &boot_id())?;
        left.mend(&dir.path)?;
        Ok(Late { content: left.content, from: left.from, seen: left.seen })
    }

    pub(super) fn open_at(dir: &Path, mode: SyncMode, boot: &str) -> Found {
        let mut left = match Left::read(dir, boot) {
            Ok(left) => left,
            Err(error) => {
                let verdict = Verdict::Unwritable { from: None, error };
                return Found { content: Content::default(), verdict, seen: None };
            }
        };
        let (content, seen) = (std::mem::take(&mut left.content), Some(left.seen.clone()));
        let from = left.from.clone();
        let verdict = left.verdict(dir, mode, boot);
        let verdict = verdict.unwrap_or_else(|error| Verdict::Unwritable { from, error });
        Found { content, verdict, seen }
    }

    fn go_on(dir: &Path, head: Head, log: Log) -> Result<Self, StoreError> {
        let current = log.segments.last_key_value().map_or(0, |(&last, _)| last) + 1;
        let (file, len) = LogFile::make(dir, current, &head.chain)?;
        let mut segments: BTreeMap<u64, Segment> = log
            .segments
            .iter()
            .map(|(&number, &len)| (number, Segment { len, ..Segment::default() }))
            .collect();
        segments.insert(current, Segment { len, ..Segment::default() });
        // First, so that what the head says of it is true.
        let end = EndFile::begin(dir, end_of(&segments))?;
        head.write(dir)?;
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
        let file = Arc::new(file);
        let syncer = Syncer::start(&file).map_err(StoreError::io("starting a thread for", dir))?;
        Ok(Self {
            dir: dir.to_owned(),
            beside: !head.always,
            head,
            end,
            file,
            current,
            segments,
            events,
            values,
            syncer,
            segment_max: SEGMENT_MAX,
        })
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
                Key::Gateway(gateway) => content.gateways.push(gateway.clone()),
                Key::Clearing(topic) => content.clearing.push(topic.clone()),
                Key::Untold(subject) => {
                    content.untold.extend(Untold::read(value).map(|it| (subject.clone(), it)));
                }
                Key::Leftovers => content.leftovers = true,
            }
        }
        content
    }
}
