//! Reports of a gateway's task, in order, and their queue.

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::disconnect::Disconnect;
use super::error::LinkError;
use crate::fleet::{AcceptFilter, GatewayIndex, LinkEvent};
use crate::ids::Moment;
use crate::net::Peer;

#[derive(Clone, Debug)]
pub enum LinkReport {
    /// An event for the core.
    Event(LinkEvent),
    /// About the connection of the `LinkUp` that follows: the package in which the gateway, or its
    /// master, answers.
    Connected { package: &'static str, certificate_expires_at: Option<Moment> },
    /// Whether the gateway's master lists it; true until something else is reported.
    Listed(bool),
    /// The accept filter, read after each list.
    AcceptFilter(Box<AcceptFilter>),
    /// Why an attempt to connect failed.
    AttemptFailed(LinkError),
    /// The reason for the `ListFailed` that follows.
    ListFailed(LinkError),
    /// The reason for the `LinkDown` that follows.
    Disconnected(LinkError),
}

impl From<LinkEvent> for LinkReport {
    fn from(event: LinkEvent) -> Self {
        Self::Event(event)
    }
}

/// The queue of all gateways' reports.
pub type LinkReportSender = mpsc::Sender<(GatewayIndex, LinkReport)>;

/// One gateway's end of the queue.
#[derive(Clone, Debug)]
pub(crate) struct ReportSink {
    gateway: GatewayIndex,
    /// Whose link it is in messages.
    peer: Peer,
    queue: LinkReportSender,
}

impl ReportSink {
    pub(crate) const fn new(gateway: GatewayIndex, peer: Peer, queue: LinkReportSender) -> Self {
        Self { gateway, peer, queue }
    }

    pub(crate) const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Reports of a link that is up. Never waits: a full queue ends the link.
    pub(crate) fn try_send(&self, report: impl Into<LinkReport>) -> Result<(), Disconnect> {
        let sent = self.queue.try_send((self.gateway, report.into()));
        sent.map_err(|_| Disconnect::from_overflow(&self.peer))
    }

    /// Reports while no link is up. Waits while the queue is full; returns false if the receiver
    /// was dropped.
    pub(crate) async fn send(&self, report: impl Into<LinkReport>) -> bool {
        self.queue.send((self.gateway, report.into())).await.is_ok()
    }

    /// The link is down, or an attempt failed (no `last_activity`); false if the receiver was
    /// dropped.
    pub(crate) async fn link_ended(
        &self,
        error: &LinkError,
        last_activity: Option<Instant>,
    ) -> bool {
        let Some(last_activity) = last_activity.map(Instant::into_std) else {
            return self.send(LinkReport::AttemptFailed(error.clone())).await;
        };
        self.send(LinkReport::Disconnected(error.clone())).await
            && self.send(LinkEvent::LinkDown { last_activity }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million may wait in the queue.
    #[test]
    fn a_report_is_small() {
        assert!(size_of::<(GatewayIndex, LinkReport)>() <= 72);
    }
}
