//! What a gateway's task hands on.
//!
//! May not hold wire types: the reader of the queue is the loop in front of the core.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::fleet::{Listed, Status};
use crate::ids::{DeviceId, Moment};

use super::package::Package;
use super::types::AcceptFilter;

/// What was seen of a gateway, in the order in which it was seen.
#[derive(Clone, Debug)]
pub enum Observation {
    /// The subscription stands; everything that happens from now on will be told, until `LinkDown`.
    LinkUp {
        /// The gateway's age.
        package: Package,
        /// When its certificate expires, where that could be read.
        certificate_expires_at: Option<Moment>,
    },
    /// The stream told of a device.
    Status {
        /// Which device.
        device_id: DeviceId,
        /// Its status now.
        status: Status,
        /// When, by the gateway's clock, in Unix seconds.
        timestamp_s: u32,
        /// When it was read from the stream.
        received: Instant,
    },
    /// The list is being asked for: what the stream tells after this may or may not be in it.
    ListAsked,
    /// The list, in the order of its IDs, each once.
    List(Vec<Listed>),
    /// The list could not be had; the link still stands.
    ListFailed(LinkError),
    /// Which devices that dial the gateway are let in, read after each list.
    AcceptFilter(Box<AcceptFilter>),
    /// The link is lost. Comes after each `LinkUp` once, and only then.
    LinkDown {
        /// When the last byte came from the gateway.
        last_sign_of_life: Instant,
        /// Why.
        error: LinkError,
    },
    /// An attempt failed before a link stood.
    AttemptFailed(LinkError),
}

/// What failed, for people and for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkError {
    /// A stable word in snake_case.
    pub code: &'static str,
    /// What is wrong and what mends it, in one line that names the gateway.
    pub message: Arc<str>,
}

impl LinkError {
    /// An error of these words.
    pub(super) fn new(code: &'static str, message: impl Into<Arc<str>>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<&super::error::Error> for LinkError {
    fn from(error: &super::error::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::GatewayIndex;

    /// A million may wait in the queue.
    #[test]
    fn an_observation_is_small() {
        assert!(size_of::<(GatewayIndex, Observation)>() <= 72);
    }
}
