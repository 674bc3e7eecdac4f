//! Data that survives the process. The log holds events until the broker has acknowledged them, the
//! last states of devices, and what else a restart needs; the outbox has the waiting events in
//! memory; the recorder's thread copies all events from the log to the history, with availability.

mod disk_probe;
mod error;
mod event;
pub mod history;
mod history_writer;
mod log;
mod log_reader;
mod outbox;
mod ready;
mod recorder;
mod span_writer;
mod start;
mod state_dir;
mod waiting;

pub use error::StoreError;
pub use event::Event;
pub(crate) use history_writer::HistoryStatus;
pub use log::Position;
pub(crate) use log::{Key, Log, LogContent, Record, Recovery, decode, encode};
pub use log_reader::LogReader;
pub(crate) use outbox::{Outbox, OutboxLimits};
pub(crate) use recorder::Recorder;
pub(crate) use start::{StartedStore, StoreSettings, start};
pub(crate) use state_dir::StateDir;
