//! Reads the log after its writer, for the history.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::StoreError;
use super::history::LogChange;
use super::log::{
    Key, LogHead, Opening, Position, Record, decode, frames, records, segment_numbers, segment_path,
};

/// How much is read at once, in bytes, if no frame is larger.
const CHUNK: usize = 256 << 10;

/// A reader of the log.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    position: Position,
    /// The log's; `None` if it is unknown.
    chain: Option<String>,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl LogReader {
    /// Reads from this position on, which is one in the log of this chain.
    pub fn new(dir: PathBuf, position: Position, chain: Option<String>) -> Self {
        Self { dir, position, chain, file: None, buffer: Vec::new() }
    }

    /// Everything before this has been read.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The chain of the log that has this position; `None` if it is unknown.
    pub fn chain(&self) -> Option<&str> {
        self.chain.as_deref()
    }

    /// Moves to the oldest segment if the position is one in another log, and to the next one if
    /// the segment to read is not there; returns whether something was skipped.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn skip_missing(&mut self) -> Result<bool, StoreError> {
        let head = LogHead::read(&self.dir)?;
        let first = head.as_ref().map_or(0, |head| head.first);
        let chain = head.map(|head| head.chain);
        let is_known = chain.is_some() && self.chain.is_some();
        let (is_same, is_other) =
            (is_known && chain == self.chain, is_known && chain != self.chain);
        self.chain = chain.or(self.chain.take());
        let mut numbers = segment_numbers(&self.dir)?;
        // Lower ones are of a log that was replaced, and could not be removed.
        numbers.retain(|number| *number >= first);
        if !is_other && numbers.contains(&self.position.segment) {
            return Ok(false);
        }
        let next = numbers.iter().find(|&&number| !is_other && number > self.position.segment);
        // Of its own log, the newest segment is missing.
        let oldest = numbers.first().filter(|_| !is_same);
        let Some(&segment) = next.or(oldest) else { return Ok(false) };
        let skipped = self.position != Position::default();
        (self.position, self.file) = (Position { segment, offset: 0 }, None);
        Ok(skipped)
    }

    /// Reads the next changes, up to the end of the segment `current`, which is written to; none if
    /// there are none yet. Returns whether something before them was skipped, as it is missing or
    /// damaged.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn read(&mut self, current: u32, changes: &mut Vec<LogChange>) -> Result<bool, StoreError> {
        while changes.is_empty() && self.position.segment <= current {
            if self.read_chunk(changes)? {
                continue;
            }
            let Position { segment: last, offset } = self.position;
            if last == current {
                break;
            }
            // Numbers are missing where a damaged segment was set aside.
            let numbers = segment_numbers(&self.dir)?;
            let next = numbers.into_iter().find(|&number| number > last);
            let segment = next.unwrap_or(current).min(current);
            let file = self.file.take().and_then(|file| file.metadata().ok());
            let is_whole = segment == last + 1 && file.is_some_and(|file| file.len() == offset);
            let skipped = self.position != Position::default() && !is_whole;
            self.position = Position { segment, offset: 0 };
            if skipped {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads from one segment; returns whether there was a whole frame.
    fn read_chunk(&mut self, changes: &mut Vec<LogChange>) -> Result<bool, StoreError> {
        let Position { segment, offset } = self.position;
        let path = segment_path(&self.dir, segment);
        let error = || StoreError::io("reading", &path);
        let file = match &self.file {
            Some(file) => file,
            None => match File::open(&path) {
                Ok(file) => self.file.insert(file),
                // There is no log yet.
                Err(cause) if cause.kind() == ErrorKind::NotFound && offset == 0 => {
                    return Ok(false);
                }
                Err(cause) => return Err(error()(cause)),
            },
        };
        let mut size = CHUNK;
        loop {
            self.buffer.resize(size, 0);
            let len = file.read_at(&mut self.buffer, offset).map_err(error())?;
            let bytes = self.buffer.get(..len).unwrap_or_default();
            let mut read = 0;
            for (end, batch) in frames(bytes) {
                // The first frame identifies the log of the segment.
                if offset > 0 || read > 0 {
                    add_changes(batch, changes);
                } else {
                    let opening = serde_json::from_slice::<Opening>(batch);
                    self.chain = opening.ok().map(|opening| opening.chain);
                }
                read = end;
            }
            if read > 0 {
                self.position.offset += read as u64;
                self.buffer.truncate(CHUNK);
                self.buffer.shrink_to(CHUNK);
                return Ok(true);
            }
            if len < size {
                return Ok(false);
            }
            size *= 2;
        }
    }
}

fn add_changes(batch: &[u8], changes: &mut Vec<LogChange>) {
    changes.extend(records(batch).unwrap_or_default().into_iter().filter_map(|(record, _)| {
        match record {
            Record::Event(event) => Some(LogChange::Recorded(event.into_owned())),
            Record::Done { id, delivered: true } => Some(LogChange::Delivered(id)),
            Record::Done { id, delivered: false } => Some(LogChange::Dropped(id)),
            Record::Put(Key::LostBefore(id), lost) => {
                decode(&lost).map(|lost| LogChange::Lost { id, lost })
            }
            Record::Put(..) | Record::Remove(_) => None,
        }
    }));
}
