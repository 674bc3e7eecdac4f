//! The retry statuses of one device that were reported since `connected` last changed: each makes
//! one event, repeats make none.

use serde::{Deserialize, Serialize};

use super::status::Status;

/// A set of retry statuses. Serialized as a sequence of statuses.
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
