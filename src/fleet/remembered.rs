//! What is stored of a device: its place in the event chain, the last known value of `connected`
//! with the retries reported since, and its details.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::listed::DeviceInfo;
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

/// What is persisted of a device: the log has these fields in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Its details, if they were read.
    pub details: Option<Arc<DeviceDetails>>,
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
            details: None,
        }
    }
}

/// The retry statuses that were reported since `connected` last changed: each makes one event,
/// repeats make none. Serialized as a sequence of statuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Status>", into = "Vec<Status>")]
pub struct RetrySet(u8);

/// The bit of a status of a device that tries to connect; 0 for all others.
const fn bit(status: Status) -> u8 {
    match status {
        Status::TryToConnect => 1,
        Status::TcpCannotConnect => 1 << 1,
        Status::TcpNotAllowed => 1 << 2,
        Status::TlsCannotConnect => 1 << 3,
        Status::TlsNotAllowed => 1 << 4,
        Status::Disconnected | Status::TcpConnected | Status::TlsConnected | Status::Unknown(_) => {
            0
        }
    }
}

impl RetrySet {
    /// The set with this status, if it is of a retry.
    #[must_use]
    pub fn with(self, status: Status) -> Self {
        Self(self.0 | bit(status))
    }

    pub fn contains(self, status: Status) -> bool {
        self.0 & bit(status) != 0
    }
}

impl From<Vec<Status>> for RetrySet {
    fn from(statuses: Vec<Status>) -> Self {
        statuses.into_iter().fold(Self::default(), Self::with)
    }
}

impl From<RetrySet> for Vec<Status> {
    fn from(set: RetrySet) -> Self {
        Status::KNOWN.into_iter().filter(|status| set.contains(*status)).collect()
    }
}

/// Model, firmware and MAC address of a device; `None` for missing ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceDetails {
    pub model: Option<String>,
    pub firmware: Option<String>,
    pub mac: Option<String>,
}

impl DeviceDetails {
    /// These, with earlier values for missing ones.
    pub(crate) fn or(self, known: Option<&Self>) -> Self {
        let Some(known) = known else { return self };
        Self {
            model: self.model.or_else(|| known.model.clone()),
            firmware: self.firmware.or_else(|| known.firmware.clone()),
            mac: self.mac.or_else(|| known.mac.clone()),
        }
    }
}
