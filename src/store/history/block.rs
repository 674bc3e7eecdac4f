//! Blocks: consecutive events that retention removes in one step, with their times; and what all
//! of them hold.

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::Serialize;

use super::Event;
use super::error::Error;
use crate::ids::Moment;

/// The most events of a block. Retention removes a block in one step.
pub(crate) const BLOCK_EVENTS_MAX: usize = 256;
/// The longest time that a block spans: how much longer than `keep` an event may stay.
const BLOCK_SPAN_MAX_MS: i64 = 3_600_000;

/// Consecutive events, and the times between which they were recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    first_id: u64,
    last_id: u64,
    events: u64,
    oldest_at: i64,
    newest_at: i64,
}

/// What the database holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// How many events.
    pub events: u64,
    /// When the oldest was recorded, to the block of events that it is in.
    pub oldest_at: Option<Moment>,
}

impl Totals {
    pub(crate) fn read(connection: &Connection) -> Result<Self, Error> {
        let mut query = connection.prepare_cached("SELECT ifnull(sum(events), 0) FROM blocks")?;
        let events = query.query_row((), |row| row.get(0))?;
        let oldest_at = Block::oldest(connection)?.map(|block| block.oldest_at());
        Ok(Self { events, oldest_at })
    }
}

impl Block {
    pub(crate) const fn of(event: &Event) -> Self {
        let (id, at) = (event.id, event.recorded_at.millis());
        Self { first_id: id, last_id: id, events: 1, oldest_at: at, newest_at: at }
    }

    pub(crate) const fn oldest_at(&self) -> Moment {
        Moment::from_millis(self.oldest_at)
    }

    pub(crate) const fn newest_at(&self) -> Moment {
        Moment::from_millis(self.newest_at)
    }

    pub(crate) const fn is_same_as(&self, other: &Self) -> bool {
        self.first_id == other.first_id
    }

    fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            first_id: row.get("first_id")?,
            last_id: row.get("last_id")?,
            events: row.get("events")?,
            oldest_at: row.get("oldest_at")?,
            newest_at: row.get("newest_at")?,
        })
    }

    pub(crate) fn oldest(connection: &Connection) -> Result<Option<Self>, Error> {
        let mut query =
            connection.prepare_cached("SELECT * FROM blocks ORDER BY first_id LIMIT 1")?;
        Ok(query.query_row((), Self::of_row).optional()?)
    }

    pub(crate) fn newest(connection: &Connection) -> Result<Option<Self>, Error> {
        let mut query =
            connection.prepare_cached("SELECT * FROM blocks ORDER BY first_id DESC LIMIT 1")?;
        Ok(query.query_row((), Self::of_row).optional()?)
    }

    /// Whether the event may extend it.
    pub(crate) fn takes(&self, event: &Event) -> bool {
        let at = event.recorded_at.millis();
        let (oldest, newest) = (self.oldest_at.min(at), self.newest_at.max(at));
        self.events < BLOCK_EVENTS_MAX as u64 && newest.saturating_sub(oldest) <= BLOCK_SPAN_MAX_MS
    }

    pub(crate) fn extend(&mut self, event: &Event) {
        let at = event.recorded_at.millis();
        self.last_id = event.id;
        self.events += 1;
        self.oldest_at = self.oldest_at.min(at);
        self.newest_at = self.newest_at.max(at);
    }

    pub(crate) fn write(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO blocks VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                self.first_id,
                self.last_id,
                self.events,
                self.oldest_at,
                self.newest_at
            ])?;
        Ok(())
    }

    /// Removes it with its events, and the gaps before its end: the range counts as removed.
    pub(crate) fn remove(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let Self { first_id, last_id, newest_at, .. } = *self;
        transaction
            .execute("DELETE FROM events WHERE id BETWEEN ?1 AND ?2", [first_id, last_id])?;
        transaction.execute("DELETE FROM blocks WHERE first_id = ?1", [first_id])?;
        transaction.execute("DELETE FROM gaps WHERE after_id < ?1", [last_id])?;
        transaction.execute(
            "UPDATE progress SET removed_through = ?1,
             removed_until = max(ifnull(removed_until, ?2), ?2)",
            params![last_id, newest_at.saturating_add(1)],
        )?;
        Ok(())
    }
}
