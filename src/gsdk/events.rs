//! What a gateway's task reports, in the order in which it happened, and the queue that takes it.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::disconnect::Disconnect;
use super::error::{Error, ErrorCode};
use super::rpc::ApiVersion;
use crate::fleet::{AcceptFilter, GatewayIndex, Listed, Status};
use crate::ids::{DeviceId, GatewayName, Moment};

#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// The subscription is active: every status change is reported until `LinkDown`.
    LinkUp { api_version: ApiVersion, certificate_expires_at: Option<Moment> },
    /// A status change from the stream.
    Status {
        device_id: DeviceId,
        status: Status,
        /// The gateway's clock, in Unix seconds.
        timestamp_s: u32,
        /// When it was read from the stream.
        received: Instant,
    },
    /// The device list was requested: it may or may not contain later status changes.
    ListAsked,
    /// The device list, ordered by ID, each device once.
    List(Vec<Listed>),
    /// The device list could not be read; the link is still up.
    ListFailed(LinkError),
    /// The accept filter, read after each list.
    AcceptFilter(Box<AcceptFilter>),
    /// The link is down. Follows each `LinkUp` exactly once.
    LinkDown {
        /// When the last byte came from the gateway.
        last_activity: Instant,
        error: LinkError,
    },
    /// An attempt to connect failed.
    AttemptFailed(LinkError),
}

/// Why a link is down or a list failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkError {
    pub code: ErrorCode,
    /// What failed and what to do, in one line that names the gateway.
    pub message: Arc<str>,
}

impl LinkError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<Arc<str>>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<&Error> for LinkError {
    fn from(error: &Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The queue of all gateways' events.
pub type LinkEventSender = mpsc::Sender<(GatewayIndex, LinkEvent)>;

/// One gateway's end of the queue.
#[derive(Clone, Debug)]
pub(crate) struct EventSink {
    gateway: GatewayIndex,
    name: GatewayName,
    queue: LinkEventSender,
}

impl EventSink {
    pub(crate) const fn new(
        gateway: GatewayIndex,
        name: GatewayName,
        queue: LinkEventSender,
    ) -> Self {
        Self { gateway, name, queue }
    }

    /// Reports an event of a link that is up. Never waits: a full queue ends the link.
    pub(crate) fn try_send(&self, event: LinkEvent) -> Result<(), Disconnect> {
        let sent = self.queue.try_send((self.gateway, event));
        sent.map_err(|_| Disconnect::from_overflow(&self.name))
    }

    /// Reports an event while no link is up, waiting for room; false if the receiver is gone.
    pub(crate) async fn send(&self, event: LinkEvent) -> bool {
        self.queue.send((self.gateway, event)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million may wait in the queue.
    #[test]
    fn an_event_is_small() {
        assert!(size_of::<(GatewayIndex, LinkEvent)>() <= 72);
    }
}
