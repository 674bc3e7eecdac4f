//! What a gateway's task reports, in the order in which it happened, and the queue that takes it.

use tokio::sync::mpsc;

use super::disconnect::Disconnect;
use super::error::LinkError;
use super::rpc::ApiVersion;
use crate::fleet::{AcceptFilter, GatewayIndex, LinkEvent};
use crate::ids::{GatewayName, Moment};

#[derive(Clone, Debug)]
pub enum LinkReport {
    /// An event for the core.
    Event(LinkEvent),
    /// About the connection of the `LinkUp` that follows.
    Connected { api_version: ApiVersion, certificate_expires_at: Option<Moment> },
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
    name: GatewayName,
    queue: LinkReportSender,
}

impl ReportSink {
    pub(crate) const fn new(
        gateway: GatewayIndex,
        name: GatewayName,
        queue: LinkReportSender,
    ) -> Self {
        Self { gateway, name, queue }
    }

    /// Reports of a link that is up. Never waits: a full queue ends the link.
    pub(crate) fn try_send(&self, report: impl Into<LinkReport>) -> Result<(), Disconnect> {
        let sent = self.queue.try_send((self.gateway, report.into()));
        sent.map_err(|_| Disconnect::from_overflow(&self.name))
    }

    /// Reports while no link is up, waiting for room; false if the receiver is gone.
    pub(crate) async fn send(&self, report: impl Into<LinkReport>) -> bool {
        self.queue.send((self.gateway, report.into())).await.is_ok()
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
