//! What outlives the process: events until the broker has acknowledged them, the last states of
//! devices and what else a restart needs, in the log; every event for later questions, in the
//! history.

mod error;
mod follower;
pub mod history;
mod log;
mod outbox;
mod recorder;
mod start;
mod state_dir;

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;

pub use error::StoreError;
pub use follower::HistoryStatus;
#[cfg(feature = "model")]
pub use log::head::set_boot_id;
pub use log::{Batch, Content, Key, Log, Opened, Position, Recovery, SyncMode, Tail};
pub use log::{UnreportedLoss, create as create_log, decode, encode};
pub use outbox::{Limits, Outbox};
pub use recorder::Recorder;
pub use start::{Settings, Started, start};
pub use state_dir::StateDir;

use crate::ids::Moment;
use crate::payload::Subject;

/// An event on its way to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Grows with each event, and is never used again.
    pub id: u64,
    /// When it was recorded, by the bridge's wall clock.
    pub recorded_at: Moment,
    /// What it is about.
    pub subject: Subject,
    /// Its type, as in the topic.
    pub event_type: Cow<'static, str>,
    /// A JSON object.
    pub payload: Bytes,
    /// When this process has read it from a gateway's stream, to measure its way to the broker.
    pub read_at: Option<Instant>,
}
