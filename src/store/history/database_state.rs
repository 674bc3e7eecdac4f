//! What the history's database holds, known without a query.

use rusqlite::{Connection, Transaction};
use serde::Serialize;

use super::block::Block;
use super::error::Error;
use crate::ids::Moment;
use crate::store::{Event, Position};

/// What the database holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// How many events.
    pub events: u64,
    /// When the oldest was recorded, to the block of events that it is in.
    pub oldest_at: Option<Moment>,
}

/// What is known without asking the file. Replaced when a transaction has been committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DatabaseState {
    pub(crate) position: Position,
    pub(crate) last_id: u64,
    pub(crate) totals: Totals,
    /// The one that the next event may extend.
    pub(crate) newest_block: Option<Block>,
}

impl DatabaseState {
    pub(crate) fn read(connection: &Connection) -> Result<Self, Error> {
        let mut state = connection.query_row(
            "SELECT segment, log_offset, last_id,
             (SELECT ifnull(sum(events), 0) FROM blocks) FROM progress",
            (),
            |row| {
                let position = Position { segment: row.get(0)?, offset: row.get(1)? };
                let totals = Totals { events: row.get(3)?, oldest_at: None };
                Ok(Self { position, last_id: row.get(2)?, totals, newest_block: None })
            },
        )?;
        let oldest = Block::oldest(connection)?;
        state.totals.oldest_at = oldest.map(|block| block.oldest_at());
        state.newest_block = Block::newest(connection)?;
        Ok(state)
    }

    /// Counts an event that was inserted.
    pub(crate) fn record(
        &mut self,
        transaction: &Transaction<'_>,
        event: &Event,
    ) -> Result<(), Error> {
        if self.last_id == 0 {
            transaction.execute(
                "UPDATE progress SET removed_through = ?1",
                [event.id.saturating_sub(1)],
            )?;
        }
        self.last_id = event.id;
        self.totals.events += 1;
        self.totals.oldest_at.get_or_insert(event.recorded_at);
        match &mut self.newest_block {
            Some(block) if block.takes(event) => block.extend(event),
            block => {
                if let Some(full) = block {
                    full.write(transaction)?;
                }
                *block = Some(Block::of(event));
            }
        }
        Ok(())
    }

    pub(crate) fn write(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        transaction
            .prepare_cached("UPDATE progress SET segment = ?1, log_offset = ?2, last_id = ?3")?
            .execute([self.position.segment.into(), self.position.offset, self.last_id])?;
        Ok(())
    }
}
