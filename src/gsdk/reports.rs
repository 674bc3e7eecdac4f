//! What the tasks of gateways and masters report, in order, and their queues.

use std::time::Instant;

use tokio::sync::mpsc;

use super::disconnect::Disconnect;
use super::error::LinkError;
use crate::fleet::{AcceptFilter, GatewayIndex, Listed, StreamedStatus};
use crate::ids::{GatewayName, Moment};
use crate::net::Peer;

/// A report about a gateway.
#[derive(Clone, Debug)]
pub enum LinkReport {
    /// The link is up, in the package in which the gateway, or its master, answers.
    Up { package: &'static str, certificate_expires_at: Option<Moment> },
    /// The link is down, or an attempt to connect failed. `last_activity`: when the last byte came,
    /// if the link was up.
    Down { error: LinkError, last_activity: Option<Instant> },
    /// A status change from the stream.
    Status(StreamedStatus),
    /// The device list was requested.
    ListRequested,
    /// The device list, ordered by ID, each device once.
    List(Vec<Listed>),
    /// The list has to be read, because it is not clear which gateway has a device.
    ListNeeded,
    /// The list could not be read; the link is still up.
    ListFailed(LinkError),
    /// Whether the gateway's master lists it; true until something else is reported.
    ListedByMaster(bool),
    /// The accept filter, read after each list.
    AcceptFilter(Box<AcceptFilter>),
}

/// A report about a master, apart from those about its gateways.
#[derive(Clone, Debug)]
pub enum MasterReport {
    /// The link is up.
    Up { certificate_expires_at: Option<Moment> },
    /// When the present token expires, by the master's clock.
    Token { expires_at: Option<Moment> },
    /// The master refuses the login that would replace the token, which is still valid.
    RenewalRefused(LinkError),
    /// The IDs of the gateways that the master lists.
    Gateways(Vec<String>),
    /// A time by the master's clock, in Unix seconds, and when it was received.
    Clock { timestamp_s: u32, received: Instant },
    /// The link is down, or an attempt to connect failed. `last_activity`: when the last byte came,
    /// if the link was up.
    Down { error: LinkError, last_activity: Option<Instant> },
}

/// The queue of all gateways' reports.
pub type LinkReportSender = mpsc::Sender<(GatewayIndex, LinkReport)>;

/// The queue of all masters' reports.
pub type MasterReportSender = mpsc::Sender<(GatewayName, MasterReport)>;

/// One gateway's or master's end of a queue.
#[derive(Clone, Debug)]
pub(crate) struct ReportSink<Id, Report> {
    id: Id,
    /// Whose link it is in messages.
    peer: Peer,
    queue: mpsc::Sender<(Id, Report)>,
}

pub(crate) type GatewaySink = ReportSink<GatewayIndex, LinkReport>;
pub(crate) type MasterSink = ReportSink<GatewayName, MasterReport>;

impl<Id: Clone, Report> ReportSink<Id, Report> {
    pub(crate) const fn new(id: Id, peer: Peer, queue: mpsc::Sender<(Id, Report)>) -> Self {
        Self { id, peer, queue }
    }

    pub(crate) const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Reports of a link that is up. Never waits: a full queue ends the link.
    pub(crate) fn try_send(&self, report: Report) -> Result<(), Disconnect> {
        let sent = self.queue.try_send((self.id.clone(), report));
        sent.map_err(|_| Disconnect::from_overflow(&self.peer))
    }

    /// Reports while no link is up. Waits while the queue is full; returns false if the receiver
    /// was dropped.
    pub(crate) async fn send(&self, report: Report) -> bool {
        self.queue.send((self.id.clone(), report)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million may wait, in the queue and sorted by gateway.
    #[test]
    fn a_report_is_small() {
        assert!(size_of::<(GatewayIndex, LinkReport)>() <= 72);
    }
}
