//! The stored part of a device's state.

use serde::{Deserialize, Serialize};

use super::listed::DeviceInfo;
use super::retries::RetrySet;
use super::status::Status;
use crate::ids::Moment;

/// A known value of `connected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub connected: bool,
    /// When the value began, or when the device was first seen.
    pub since: Moment,
    /// Whether its beginning was seen on the stream.
    pub exact: bool,
    /// The last known status within it.
    pub status: Status,
}

/// What is persisted of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The last event's number; 0 before the first.
    pub seq: u64,
    /// The status of the last event, or the first one seen.
    pub status: Option<Status>,
    /// The last known value of `connected`.
    pub known: Option<Known>,
    /// The retry statuses reported since `connected` last changed.
    pub reported_retries: RetrySet,
    /// Whether it is in the gateway's list.
    pub managed: bool,
    /// Its last row in the list.
    pub info: Option<DeviceInfo>,
    /// For how long lists lacked it while it was not expected, in milliseconds; only observed time
    /// counts.
    pub absent_ms: i64,
    /// Whether only its last `seq` is kept, in case it is listed again.
    pub forgotten: bool,
}

impl Remembered {
    /// What is kept of a device that is forgotten.
    #[must_use]
    pub fn forget(&self) -> Self {
        Self {
            seq: self.seq,
            status: self.status,
            known: None,
            reported_retries: RetrySet::default(),
            managed: false,
            info: None,
            absent_ms: 0,
            forgotten: true,
        }
    }
}
