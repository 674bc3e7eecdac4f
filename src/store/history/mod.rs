//! The history: every recorded event in a SQLite database, for later queries.
//!
//! [`Database`] writes, on one thread; [`Reader`] answers queries in parallel. `docs/history.md`
//! has the schema for other readers.

mod block;
mod database;
mod error;
mod query;
mod reader;
mod schema;
mod spans;
#[cfg(test)]
mod tests;

pub(crate) use block::BLOCK_EVENTS_MAX;
pub use block::Totals;
pub use database::Database;
pub(crate) use database::is_removed_or_empty;
pub use error::Error;
pub use query::{EVENT_ID_MAX, EventFilter, EventGap, Missing, Order, Page};
pub use reader::Reader;
#[cfg(feature = "model")]
pub(crate) use reader::model;
pub(crate) use spans::Tracker;
pub use spans::{
    Observation, ObservedDevice, RowKey, Selection, Snapshot, Span, SpanState, Timeline,
    UnobservedReason,
};

use super::Event;

/// The file's name in `state_dir`.
pub const FILE_NAME: &str = "history.db";

/// A record of the log that the history follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogChange {
    /// A new event.
    Recorded(Event),
    /// The broker has acknowledged the event with this id.
    Delivered(u64),
    /// The event with this id will not be delivered.
    Dropped(u64),
    /// Events of the same subject were dropped before this one.
    Lost {
        /// The event's id.
        id: u64,
        /// How many were dropped.
        lost: u64,
    },
}
