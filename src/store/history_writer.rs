//! Copies events from the log into the history. It replaces a database that is damaged or removed,
//! and continues when the log is replaced.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::history::{BLOCK_EVENTS_MAX, Database, Error, Reader, Totals, is_removed_or_empty};
use super::log::Position;
use super::log_reader::LogReader;
use super::span_writer::{Backlog, SpanWriter};
use crate::config::HistoryConfig;
use crate::ids::Moment;
use crate::payload::Subject;

/// Blocks of old events that are removed after a batch, besides as many as it has added.
const TRIM_STEPS: usize = 32;
/// Changes of the log from which on a batch is committed.
const BATCH_CHANGES_MIN: usize = 32 << 10;
/// After this time the log is cleaned without the history.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// For [`HistoryStatus::keep_from_segment`]: every segment of the log may be removed.
const KEEP_NONE: u32 = u32::MAX;

/// The state of the history.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistoryStatus {
    /// The log may remove the segments before this one.
    pub(crate) keep_from_segment: u32,
    /// Why it cannot be written, is damaged, or gets no availability.
    pub(crate) fault: Option<String>,
    /// What it holds.
    pub(crate) totals: Totals,
    /// The ID of the newest event that it has had.
    pub(crate) last_id: u64,
    /// How far it has read the log.
    pub(crate) position: Position,
}

impl HistoryStatus {
    fn update(&mut self, database: &Database) -> Result<(), Error> {
        self.totals = database.totals()?;
        self.last_id = database.last_id()?;
        self.position = database.position()?;
        Ok(())
    }
}

/// How far the log can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogEnd {
    /// No log continues, and none was created.
    #[default]
    Unknown,
    /// To the end of this segment.
    Segment(u32),
    /// It has failed: events are in no log.
    Failed,
}

/// A log that another has replaced.
#[derive(Debug)]
pub(crate) struct ReplacedLog {
    /// Up to where it can be read.
    pub(crate) end: LogEnd,
    /// The events that wait in the other one.
    pub(crate) waiting: BTreeSet<u64>,
}

/// Reads the log and writes the history.
#[derive(Debug)]
pub(crate) struct HistoryWriter {
    log: PathBuf,
    /// Has the path, and the damage that queries have found.
    reader: Reader,
    retention: HistoryConfig,
    /// Whether there was a database, so that one that is not there is lost.
    existed: bool,
    open: Option<(Database, LogReader)>,
    /// Until the history has noted it.
    replaced: Option<ReplacedLog>,
    /// The subject of each event that waited by the history, and in none of the two logs.
    lost: Vec<Subject>,
    /// Since when.
    failing: Option<Instant>,
    /// When everything was recorded last.
    recorded_at: Moment,
    span_writer: SpanWriter,
}

impl HistoryWriter {
    /// Reads the log in this folder, and writes to the database of this reader. `existed`: an
    /// earlier process has written it.
    pub(crate) fn new(
        log: PathBuf,
        reader: Reader,
        retention: HistoryConfig,
        existed: bool,
    ) -> Self {
        let (span_writer, recorded_at) = (SpanWriter::new(), Moment::from_millis(i64::MIN));
        let (open, replaced, lost, failing) = (None, None, Vec::new(), None);
        Self {
            log,
            reader,
            retention,
            existed,
            open,
            replaced,
            lost,
            failing,
            recorded_at,
            span_writer,
        }
    }

    /// Whether the last attempt to write has failed.
    pub(crate) const fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// What was observed by `now`, to be written by [`Self::try_record`].
    pub(crate) fn observe(&mut self, backlog: &mut Backlog, now: Moment) {
        self.span_writer.observe(backlog, now);
    }

    /// The process ends after the next [`Self::try_record`].
    pub(crate) const fn end(&mut self) {
        self.span_writer.end();
    }

    /// Records everything up to this end of the log, and what was observed, and removes what is too
    /// old.
    pub(crate) fn try_record(&mut self, end: LogEnd, now: Moment, status: &mut HistoryStatus) {
        let in_place = self.replace_if_removed(now);
        let mut recorded = in_place.and_then(|()| self.record(end, now, status));
        if let Err(Error::Damaged(_)) = recorded {
            recorded = self.replace(now).and_then(|()| self.record(end, now, status));
        }
        match recorded {
            Ok(()) => {
                if self.failing.take().is_some() {
                    tracing::info!("history: writing again");
                }
                self.recorded_at = now;
                self.reader.set_recorded_to(Moment::from_millis(i64::MAX));
                status.fault = self.damage().or_else(|| self.span_writer.clock_fault());
            }
            Err(error) => self.failed(&error, status),
        }
    }

    /// What queries have found. The writer replaces a database that it cannot write; of this one,
    /// the rest can still be read.
    fn damage(&self) -> Option<String> {
        let file = self.reader.path().display();
        let (database, _) = self.open.as_ref()?;
        let (_, inode) = database.file();
        self.reader.found_damage_in(inode).then(|| {
            format!(
                "{file} is damaged, and a part of it cannot be read; move the file away to begin \
                 an empty one, and read the moved file with SQLite's recovery tools"
            )
        })
    }

    fn failed(&mut self, error: &Error, status: &mut HistoryStatus) {
        self.open = None;
        self.reader.set_recorded_to(self.recorded_at);
        let since = *self.failing.get_or_insert_with(|| {
            let error = error.with_cause();
            tracing::error!(%error, "history: cannot be written; events are still delivered");
            Instant::now()
        });
        status.fault = Some(error.with_cause());
        if since.elapsed() >= GIVE_UP_AFTER {
            status.keep_from_segment = KEEP_NONE;
            self.span_writer.give_up();
        }
    }

    fn record(
        &mut self,
        end: LogEnd,
        now: Moment,
        status: &mut HistoryStatus,
    ) -> Result<(), Error> {
        self.open(now)?;
        let Some((database, log_reader)) = &mut self.open else { return Ok(()) };
        if let Some(ReplacedLog { end, waiting }) = &self.replaced {
            while write_batch(database, log_reader, *end, now)? > 0 {}
            // The next reader starts with the other log.
            database.mark_gap(now, Position::default(), false)?;
            self.lost = database.drop_unknown(waiting)?;
            database.sync()?;
            *log_reader = LogReader::new(self.log.clone(), Position::default(), None);
            self.replaced = None;
        }
        if end == LogEnd::Failed {
            database.mark_gap(now, log_reader.position(), false)?;
        }
        loop {
            let written = write_batch(database, log_reader, end, now)?;
            for _ in 0..TRIM_STEPS + written / BLOCK_EVENTS_MAX {
                if !database.trim(self.span_writer.trusted(now))? {
                    break;
                }
            }
            let segment = log_reader.position().segment;
            if status.keep_from_segment != segment {
                // Only then may the log remove what comes before it.
                database.sync()?;
                status.keep_from_segment = segment;
            }
            if written < BATCH_CHANGES_MIN {
                break;
            }
        }
        // What it proves includes the events.
        self.span_writer.write(database, now)?;
        status.update(database)
    }

    /// Opens the database.
    pub(crate) fn try_open(&mut self, now: Moment, status: &mut HistoryStatus) {
        let opened = self.open(now).and_then(|(database, _)| status.update(database));
        if let Err(error) = opened {
            self.failed(&error, status);
        }
    }

    /// Another log is read after this one.
    pub(crate) fn log_replaced(&mut self, replaced: ReplacedLog) {
        // The directory may be another one too.
        self.open = None;
        self.replaced = Some(replaced);
    }

    /// What the log that was replaced last has lost: the subject of each event.
    pub(crate) fn take_lost(&mut self) -> Vec<Subject> {
        std::mem::take(&mut self.lost)
    }

    /// Continues in an empty file where the open one was removed or emptied, or in the one that is
    /// there where it was replaced or has lost the files beside it.
    fn replace_if_removed(&mut self, now: Moment) -> Result<(), Error> {
        let (Some((database, _)), path) = (&self.open, self.reader.path()) else { return Ok(()) };
        if database.is_at(path) {
            return Ok(());
        }
        let file = path.display();
        tracing::error!(%file, "history: removed or replaced while in use; events may be missing");
        // Closing it may write to the file.
        let is_lost = is_removed_or_empty(path);
        self.open = None;
        // What was written last may be lost.
        self.span_writer.give_up();
        if is_lost { self.replace(now) } else { Ok(()) }
    }

    fn replace(&mut self, now: Moment) -> Result<(), Error> {
        let reader = self.reader.clone();
        let _queries = reader.exclude_queries();
        self.open = None;
        let database = Database::replace(reader.path(), self.retention, now)?;
        self.follow(database, now).map(|_| ())
    }

    /// The open database, opened first where necessary.
    fn open(&mut self, now: Moment) -> Result<&mut (Database, LogReader), Error> {
        if let Some(open) = self.open.take() {
            return Ok(self.open.insert(open));
        }
        let reader = self.reader.clone();
        let _queries = reader.exclude_queries();
        let is_lost = self.existed && is_removed_or_empty(reader.path());
        let open = if is_lost { Database::replace } else { Database::open };
        let database = open(reader.path(), self.retention, now)?;
        self.existed = true;
        self.follow(database, now)
    }

    /// Continues to read the log where this database has stopped.
    fn follow(
        &mut self,
        mut database: Database,
        now: Moment,
    ) -> Result<&mut (Database, LogReader), Error> {
        let (position, chain) = (database.position()?, database.chain()?);
        let mut log_reader = LogReader::new(self.log.clone(), position, chain);
        if log_reader.skip_missing()? {
            database.mark_gap(now, log_reader.position(), false)?;
        }
        Ok(self.open.insert((database, log_reader)))
    }
}

/// Writes the next part of the log as one batch; returns the number of its changes. One for a whole
/// second costs less than several: most of its cost is the index pages that it changes.
fn write_batch(
    database: &mut Database,
    log_reader: &mut LogReader,
    end: LogEnd,
    now: Moment,
) -> Result<usize, Error> {
    let LogEnd::Segment(current) = end else { return Ok(0) };
    let (start, mut written) = (log_reader.position(), 0);
    let mut batch = database.batch()?;
    let mut changes = Vec::new();
    while written < BATCH_CHANGES_MIN {
        changes.clear();
        let before = log_reader.position();
        if log_reader.read(current, &mut changes)? {
            // The gap moves the position: without it, what was skipped would be skipped in silence.
            batch.commit(before, log_reader.chain())?;
            database.mark_gap(now, log_reader.position(), true)?;
            batch = database.batch()?;
        } else if changes.is_empty() {
            break;
        }
        batch.apply(&changes)?;
        written += changes.len();
    }
    if log_reader.position() != start {
        batch.commit(log_reader.position(), log_reader.chain())?;
    }
    Ok(written)
}
