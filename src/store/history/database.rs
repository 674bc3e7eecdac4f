//! Writes the history: batches of events and their delivery, gaps, and retention.
//!
//! Every call blocks on the disk and every failure leaves the database unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, Transaction, params};

use super::block::{Block, Totals};
use super::error::Error;
use super::spans::SpanTables;
use super::{Event, LogChange, schema};
use crate::config::HistoryConfig;
use crate::ids::{DeviceId, Moment};
use crate::payload::Subject;
use crate::store::Position;
use crate::store::error::StoreError;

/// The one writer of the history.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    /// Device and inode of the open files: database, write-ahead log, and the index of that log.
    files: [(u64, u64); 3],
    retention: HistoryConfig,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    delivered: bool,
    dropped: bool,
    lost: u64,
}

impl Database {
    /// Opens `history.db`; creates it where there is none. A file that is foreign, or damaged
    /// where it is read first, is replaced.
    pub fn open(path: &Path, retention: HistoryConfig, now: Moment) -> Result<Self, Error> {
        match Self::load(path, retention, None) {
            Err(Error::Damaged(_) | Error::Foreign { .. }) => Self::replace(path, retention, now),
            loaded => loaded,
        }
    }

    /// Sets the file aside, if it is there, and creates an empty one, in which everything from
    /// before `now` counts as missing: for a database that was opened and has failed with
    /// [`Error::Damaged`] or was removed.
    pub fn replace(path: &Path, retention: HistoryConfig, now: Moment) -> Result<Self, Error> {
        if path.exists() {
            let file = schema::set_aside(path)?;
            tracing::error!(file = %file.display(), "history: damaged; set aside and replaced");
        }
        Self::load(path, retention, Some(now))
    }

    fn load(
        path: &Path,
        retention: HistoryConfig,
        replaced_at: Option<Moment>,
    ) -> Result<Self, Error> {
        let connection = schema::open(path, replaced_at)?;
        // Opens the files beside it, and finds damage.
        last_id(&connection)?;
        let files = file_ids(path).map_err(StoreError::io("opening", path))?;
        Ok(Self { connection, files, retention })
    }

    /// Device and inode of the database.
    pub(crate) const fn file(&self) -> (u64, u64) {
        self.files[0]
    }

    /// Its tables of spans.
    pub(crate) const fn spans(&mut self) -> SpanTables<'_> {
        SpanTables::new(&mut self.connection, self.retention.keep_availability)
    }

    /// Whether the files at this path are still the open ones, and not emptied. SQLite would
    /// continue to write, and readers would not find it.
    pub fn is_at(&self, path: &Path) -> bool {
        file_ids(path).is_ok_and(|found| found == self.files) && !is_removed_or_empty(path)
    }

    /// Where reading of the log continues.
    pub fn position(&self) -> Result<Position, Error> {
        let mut query =
            self.connection.prepare_cached("SELECT segment, log_offset FROM progress")?;
        Ok(query.query_row((), |row| Ok(Position { segment: row.get(0)?, offset: row.get(1)? }))?)
    }

    /// The chain of that log; `None` if it is unknown.
    pub fn chain(&self) -> Result<Option<String>, Error> {
        let mut query = self.connection.prepare_cached("SELECT chain FROM progress")?;
        Ok(query.query_row((), |row| row.get(0))?)
    }

    /// The id of the newest event ever recorded; 0 where there was none.
    pub fn last_id(&self) -> Result<u64, Error> {
        last_id(&self.connection)
    }

    /// How much it holds.
    pub fn totals(&self) -> Result<Totals, Error> {
        Totals::read(&self.connection)
    }

    /// Starts a batch of changes that are committed as one.
    pub fn batch(&mut self) -> Result<HistoryBatch<'_>, Error> {
        // Read before: a transaction that began with a read would not wait for another's lock.
        let (last_id, block) = (last_id(&self.connection)?, Block::newest(&self.connection)?);
        let transaction = self.connection.transaction()?;
        Ok(HistoryBatch { transaction, last_id, block })
    }

    /// Notes that events recorded up to `to` were not written: those since the newest one, or since
    /// the last proven instant of the spans, which are written after the events; `unnoticed`: they
    /// may be of before that instant. `position` is where reading of the log continues behind them.
    pub fn mark_gap(
        &mut self,
        to: Moment,
        position: Position,
        unnoticed: bool,
    ) -> Result<(), Error> {
        let transaction = self.connection.transaction()?;
        // Nothing was written before: then nothing says since when events are missing.
        transaction.execute(
            "INSERT INTO gaps SELECT last_id, min(complete_to, ?1), ?1 FROM progress,
             (SELECT max(at) AS complete_to FROM
              (SELECT proven_at AS at FROM observation WHERE NOT ?2 UNION ALL
               SELECT newest_at FROM blocks WHERE first_id = (SELECT max(first_id) FROM blocks)))
             WHERE complete_to IS NOT NULL
             ON CONFLICT DO UPDATE SET
             from_at = min(from_at, excluded.from_at), to_at = max(to_at, excluded.to_at)",
            params![to.millis(), unnoticed],
        )?;
        let Position { segment, offset } = position;
        let read_to = "UPDATE progress SET segment = ?1, log_offset = ?2, chain = NULL";
        transaction.execute(read_to, [segment.into(), offset])?;
        transaction.commit()?;
        Ok(())
    }

    /// Marks as dropped the events that wait here but are not among these: no log has what became
    /// of them, so none will deliver them. Returns the subject of each.
    pub fn drop_unknown(&mut self, waiting: &BTreeSet<u64>) -> Result<Vec<Subject>, Error> {
        let transaction = self.connection.transaction()?;
        let mut query = transaction.prepare(
            "SELECT id, gateway, device_id FROM events WHERE delivered = 0 AND dropped = 0",
        )?;
        let rows = query.query_map((), |row| Ok((row.get::<_, u64>(0)?, subject(row)?)))?;
        let mut unknown = rows.collect::<Result<Vec<_>, _>>()?;
        unknown.retain(|(id, _)| !waiting.contains(id));
        drop(query);
        for (id, _) in &unknown {
            transaction.execute("UPDATE events SET dropped = 1 WHERE id = ?1", [id])?;
        }
        transaction.commit()?;
        Ok(unknown.into_iter().map(|(_, subject)| subject).collect())
    }

    /// Makes everything that was committed survive a power cut.
    pub fn sync(&self) -> Result<(), Error> {
        schema::sync_log(&self.connection)
    }

    /// Removes the oldest block of events if it is older than `keep`, unless the time is not known,
    /// or the database is larger than `max_bytes`. Returns whether it did: then call it again, for
    /// there may be more.
    pub fn trim(&mut self, now: Option<Moment>) -> Result<bool, Error> {
        let Some(oldest) = Block::oldest(&self.connection)? else { return Ok(false) };
        let keep = i64::try_from(self.retention.keep.as_millis()).unwrap_or(i64::MAX);
        let too_old = now.is_some_and(|now| oldest.newest_at() < now.plus(keep.saturating_neg()));
        let newest = Block::newest(&self.connection)?;
        let is_newest = newest.is_some_and(|newest| newest.is_same_as(&oldest));
        let too_large = !is_newest && self.bytes()? > self.retention.max_bytes;
        if !too_old && !too_large {
            return Ok(false);
        }
        let transaction = self.connection.transaction()?;
        oldest.remove(&transaction)?;
        transaction.commit()?;
        Ok(true)
    }

    /// Bytes of the pages in use; removed events leave pages for the next ones.
    fn bytes(&self) -> Result<u64, Error> {
        let mut query = self.connection.prepare_cached(
            "SELECT (page_count - freelist_count) * page_size
             FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
        )?;
        Ok(query.query_row((), |row| row.get(0))?)
    }
}

/// Changes of the log that are committed as one; dropped, none of them is made.
#[derive(Debug)]
pub struct HistoryBatch<'a> {
    transaction: Transaction<'a>,
    /// The newest event ever recorded.
    last_id: u64,
    /// The block that the next event may extend, written when it is full or with the commit.
    block: Option<Block>,
}

impl HistoryBatch<'_> {
    /// Adds the changes of a part of the log. Events up to [`Database::last_id`] are ignored, so a
    /// part may be applied again.
    pub fn apply(&mut self, changes: &[LogChange]) -> Result<(), Error> {
        let marks = marks(changes);
        let mut update = self.transaction.prepare_cached(
            "UPDATE events SET delivered = delivered OR ?2, dropped = dropped OR ?3,
             lost = max(lost, ?4) WHERE id = ?1",
        )?;
        for (id, Marks { delivered, dropped, lost }) in marks.range(..=self.last_id) {
            update.execute(params![id, delivered, dropped, lost])?;
        }
        drop(update);
        for change in changes {
            let LogChange::Recorded(event) = change else { continue };
            if event.id > self.last_id {
                self.insert(event, marks.get(&event.id).copied().unwrap_or_default())?;
            }
        }
        Ok(())
    }

    fn insert(&mut self, event: &Event, marks: Marks) -> Result<(), Error> {
        let (gateway, device_id) = match &event.subject {
            Subject::Bridge => (None, None),
            Subject::Gateway(gateway) => (Some(gateway), None),
            Subject::Device(gateway, device_id) => (Some(gateway), Some(device_id.get())),
        };
        let sql = "INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        self.transaction.prepare_cached(sql)?.execute(params![
            event.id,
            event.recorded_at.millis(),
            gateway.map(|gateway| gateway.as_str()),
            device_id,
            event.event_type.as_ref(),
            marks.delivered,
            marks.dropped,
            marks.lost,
            // JSON, so it is valid UTF-8.
            ToSqlOutput::Borrowed(ValueRef::Text(&event.payload)),
        ])?;
        if self.last_id == 0 {
            let first = "UPDATE progress SET removed_through = ?1";
            self.transaction.execute(first, [event.id.saturating_sub(1)])?;
        }
        self.last_id = event.id;
        match &mut self.block {
            Some(block) if block.takes(event) => block.extend(event),
            block => {
                if let Some(full) = block.replace(Block::of(event)) {
                    full.write(&self.transaction)?;
                }
            }
        }
        Ok(())
    }

    /// Commits what was applied, which is the log of this chain up to this position.
    pub fn commit(self, position: Position, chain: Option<&str>) -> Result<(), Error> {
        let Self { transaction, last_id, block } = self;
        if let Some(block) = block {
            block.write(&transaction)?;
        }
        transaction
            .prepare_cached(
                "UPDATE progress SET segment = ?1, log_offset = ?2, chain = ?3, last_id = ?4",
            )?
            .execute(params![position.segment, position.offset, chain, last_id])?;
        transaction.commit()?;
        Ok(())
    }
}

/// The ID of the newest event that was ever recorded; 0 where there was none.
fn last_id(connection: &Connection) -> Result<u64, Error> {
    let mut query = connection.prepare_cached("SELECT last_id FROM progress")?;
    Ok(query.query_row((), |row| row.get(0))?)
}

/// Whether nothing of the database is left at this path.
pub(crate) fn is_removed_or_empty(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |metadata| metadata.is_file() && metadata.len() == 0)
}

/// Device and inode of the database and the files beside it. They are not opened for it: closing
/// them would end the locks of SQLite.
fn file_ids(path: &Path) -> io::Result<[(u64, u64); 3]> {
    // SQLite puts them beside the file that a link leads to.
    let path = fs::canonicalize(path)?;
    let id = |suffix| {
        let metadata = fs::metadata(schema::with_suffix(&path, suffix))?;
        Ok::<_, io::Error>((metadata.dev(), metadata.ino()))
    };
    Ok([id("")?, id("-wal")?, id("-shm")?])
}

/// The subject of a row with `gateway` and `device_id`.
fn subject(row: &Row<'_>) -> rusqlite::Result<Subject> {
    let gateway: Option<String> = row.get("gateway")?;
    let device_id: Option<u32> = row.get("device_id")?;
    let gateway = gateway.and_then(|name| name.parse().ok());
    Ok(match (gateway, device_id.and_then(DeviceId::new)) {
        (None, _) => Subject::Bridge,
        (Some(gateway), None) => Subject::Gateway(gateway),
        (Some(gateway), Some(device_id)) => Subject::Device(gateway, device_id),
    })
}

/// What became of events, by ID.
fn marks(changes: &[LogChange]) -> BTreeMap<u64, Marks> {
    let mut marks: BTreeMap<u64, Marks> = BTreeMap::new();
    for change in changes {
        match change {
            LogChange::Recorded(_) => {}
            LogChange::Delivered(id) => marks.entry(*id).or_default().delivered = true,
            LogChange::Dropped(id) => marks.entry(*id).or_default().dropped = true,
            LogChange::Lost { id, lost } => marks.entry(*id).or_default().lost = *lost,
        }
    }
    marks
}
