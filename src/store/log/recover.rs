//! Reads the log at the start: its content, and whether the chain may continue.
//!
//! Records before a damaged place are valid and used; the damaged file is set aside, and a new
//! chain begins.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use super::frame::{BrokenFrame, FORMAT, FRAME_HEAD_LEN, frames, split_frame};
use super::head::LogHead;
use super::index::Index;
use super::record::{Key, Record, decode, records};
use super::segment::{
    Opening, Position, remove, remove_replaced, segment_numbers, segment_path, set_aside,
};
use crate::payload::Subject;
use crate::store::state_dir::read_regular;
use crate::store::{Event, StoreError};

/// What an earlier process has stored.
#[derive(Debug, Default)]
pub(crate) struct LogContent {
    /// Events that wait for the broker, by ID.
    pub(crate) events: BTreeMap<u64, Event>,
    /// The subject of each event that waits by the history alone.
    pub(crate) lost: Vec<Subject>,
    /// The values of keys; see [`decode`].
    pub(crate) values: BTreeMap<Key, Vec<u8>>,
    /// No event has had this ID or a higher one.
    pub(crate) next_id: u64,
    /// The end of the newest segment; 0 if there is none.
    pub(crate) end: Position,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) content: LogContent,
    pub(crate) index: Index,
    pub(crate) head: Option<LogHead>,
    /// The chain of the newest segment.
    pub(crate) chain: Option<String>,
    /// Why the chain cannot continue, if it cannot.
    pub(crate) unproven: Option<String>,
}

impl Recovered {
    /// Reads the folder of a log, and sets damaged files aside.
    pub(crate) fn read(dir: &Path) -> Result<Self, StoreError> {
        let mut scan = Self { head: LogHead::read(dir)?, ..Self::default() };
        let first = scan.head.as_ref().map_or(0, |head| head.first);
        remove_replaced(dir, first);
        let restarted = scan.head.as_ref().and_then(LogHead::unproven);
        // After a clean stop nothing is torn.
        let clean = scan.head.as_ref().is_some_and(|head| head.clean);
        let may_be_cut = |rest: &[u8]| !clean && is_torn(rest, restarted.is_some());

        let mut numbers = segment_numbers(dir)?;
        numbers.retain(|&number| number >= first);
        // Segments that were created ahead of their use.
        while let Some(path) = numbers.last().map(|&last| segment_path(dir, last))
            && read_regular(&path).is_ok_and(|bytes| holds_no_batch(&bytes, may_be_cut))
        {
            remove(&path)?;
            numbers.pop();
        }
        let (oldest, last) = (numbers.first().copied(), numbers.last().copied());
        let (mut before, mut damaged) = (None, Vec::new());
        for number in numbers {
            let path = segment_path(dir, number);
            if before.replace(number).is_some_and(|before| before + 1 != number) {
                scan.missing_before(dir, number);
            }
            let bytes = match read_regular(&path) {
                // A folder is in its place.
                Err(cause) if cause.kind() == ErrorKind::IsADirectory => Vec::new(),
                read => read.map_err(StoreError::io("reading", &path))?,
            };
            let end = scan.segment(number, &bytes);
            let rest = &bytes[end..];
            if end > 0 && (rest.is_empty() || Some(number) == last && may_be_cut(rest)) {
                scan.content.end = Position { segment: number, offset: end as u64 };
            } else {
                scan.damaged(format!("{} is damaged at byte {end}", path.display()));
                damaged.push(path);
            }
        }
        // It is of this log's files alone, and of none that an earlier build has written.
        let stored = scan.content.values.remove(&Key::OldestSegment);
        let stored = stored.and_then(|value| decode::<u32>(&value));
        if let Some(oldest) = oldest.filter(|&oldest| stored.is_some_and(|stored| oldest > stored))
        {
            scan.missing_before(dir, oldest);
        }
        // Nothing is changed where a segment cannot be read. The proof goes first: a start that is
        // killed from here on may not take the rest for everything.
        if scan.unproven.is_some() {
            LogHead::remove(dir)?;
        }
        for path in damaged {
            set_aside(&path)?;
        }
        let why = restarted.or_else(|| scan.contradiction());
        scan.unproven = scan.unproven.or(why.map(str::to_owned));
        let stored = scan.content.values.get(&Key::NextId).and_then(|value| decode(value));
        scan.index.skip_ids(stored.unwrap_or(0));
        scan.content.next_id = scan.index.next_id();
        Ok(scan)
    }

    /// The segment before this one is missing.
    fn missing_before(&mut self, dir: &Path, number: u32) {
        let path = segment_path(dir, number);
        self.damaged(format!("the segment before {} is missing", path.display()));
    }

    /// Why head and segments do not belong together, if they do not.
    fn contradiction(&self) -> Option<&'static str> {
        let is_empty = self.content.end == Position::default();
        match &self.head {
            None if is_empty => None,
            None => Some(
                "it could not be written when the last process ended, or its head is missing or \
                 damaged",
            ),
            Some(_) if is_empty => Some("its segments are missing"),
            Some(head) if self.chain.as_ref() != Some(&head.chain) => {
                Some("its head is of another chain than its segments")
            }
            Some(_) => None,
        }
    }

    /// The chain cannot continue.
    fn damaged(&mut self, what: String) {
        self.unproven.get_or_insert(what);
    }

    /// Reads a segment; returns how far it is whole.
    fn segment(&mut self, number: u32, bytes: &[u8]) -> usize {
        let mut end = 0;
        for (next, frame) in frames(bytes) {
            let read = if end == 0 { self.opening(frame) } else { self.batch(number, frame) };
            if read.is_none() {
                break;
            }
            end = next;
        }
        end
    }

    fn opening(&mut self, frame: &[u8]) -> Option<()> {
        let opening: Opening = serde_json::from_slice(frame).ok()?;
        (opening.format <= FORMAT).then_some(())?;
        self.chain = Some(opening.chain);
        Some(())
    }

    fn batch(&mut self, segment: u32, batch: &[u8]) -> Option<()> {
        let records = records(batch)?;
        let changes = records.iter().map(|(record, len)| record.change(*len));
        self.index.add(segment, FRAME_HEAD_LEN + batch.len(), changes);
        let LogContent { events, values, .. } = &mut self.content;
        for (record, _) in records {
            match record {
                Record::Event(event) => _ = events.insert(event.id, event.into_owned()),
                Record::Done { id, .. } => _ = events.remove(&id),
                Record::Put(key, value) => _ = values.insert(key, value.into_owned()),
                Record::Remove(key) => _ = values.remove(&key),
            }
        }
        Some(())
    }
}

/// Whether a kill may have left these bytes of a frame, or a power cut if the machine was
/// `restarted`.
fn is_torn(bytes: &[u8], restarted: bool) -> bool {
    match split_frame(bytes) {
        Ok(_) => false,
        Err(BrokenFrame::Torn) => true,
        Err(BrokenFrame::Damaged) => {
            restarted && (1..bytes.len()).all(|at| split_frame(&bytes[at..]).is_err())
        }
    }
}

/// Whether a segment has only the frame that identifies its log.
fn holds_no_batch(bytes: &[u8], may_be_cut: impl Fn(&[u8]) -> bool) -> bool {
    let rest = &bytes[frames(bytes).next().map_or(0, |(end, _)| end)..];
    rest.is_empty() || may_be_cut(rest)
}
