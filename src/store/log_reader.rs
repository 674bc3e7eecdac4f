//! Reads the log after its writer, for the history.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::StoreError;
use super::history::LogChange;
use super::log::{
    Key, LogHead, Position, Record, decode, frames, records, segment_numbers, segment_path,
};

/// How much is read at once, in bytes, if no frame is larger.
const CHUNK: usize = 256 << 10;

/// A reader of the log.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    position: Position,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl LogReader {
    /// Reads from this position on.
    pub fn new(dir: PathBuf, position: Position) -> Self {
        Self { dir, position, file: None, buffer: Vec::new() }
    }

    /// Everything before this has been read.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Moves to the next segment, or the oldest, if the one to read is not there; returns whether
    /// something was skipped.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn skip_removed(&mut self) -> Result<bool, StoreError> {
        let mut numbers = segment_numbers(&self.dir)?;
        if numbers.contains(&self.position.segment) {
            return Ok(false);
        }
        // Lower ones are of a log that was replaced, and could not be removed.
        let first = LogHead::read(&self.dir)?.map_or(0, |head| head.first);
        numbers.retain(|number| *number >= first);
        let next = numbers.iter().find(|&&number| number > self.position.segment);
        let Some(&segment) = next.or(numbers.first()) else { return Ok(false) };
        let skipped = self.position != Position::default();
        (self.position, self.file) = (Position { segment, offset: 0 }, None);
        Ok(skipped)
    }

    /// Reads the next changes, up to the end of the segment `current`, which is written to; none if
    /// there are none yet.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn read(&mut self, current: u32, changes: &mut Vec<LogChange>) -> Result<(), StoreError> {
        while changes.is_empty() && self.position.segment <= current {
            if self.read_chunk(changes)? {
                continue;
            }
            if self.position.segment == current {
                return Ok(());
            }
            // Numbers are missing where a damaged segment was set aside.
            let numbers = segment_numbers(&self.dir)?;
            let next = numbers.into_iter().find(|&number| number > self.position.segment);
            let segment = next.unwrap_or(current).min(current);
            (self.position, self.file) = (Position { segment, offset: 0 }, None);
        }
        Ok(())
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
