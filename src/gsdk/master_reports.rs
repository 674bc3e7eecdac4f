//! Reports of a link to a master, apart from those of its gateways.

use tokio::sync::mpsc;

use super::disconnect::Disconnect;
use super::error::LinkError;
use crate::ids::{GatewayName, Moment};
use crate::net::Peer;

#[derive(Clone, Debug)]
pub enum MasterReport {
    /// The link is up.
    Up { certificate_expires_at: Option<Moment> },
    /// When the present token expires, by the master's clock.
    Token { expires_at: Option<Moment> },
    /// The IDs of the gateways that the master lists.
    Gateways(Vec<String>),
    /// A time by the master's clock, in Unix seconds, and when it was received.
    Clock { timestamp_s: u32, received: std::time::Instant },
    /// An attempt to connect failed.
    AttemptFailed(LinkError),
    /// The link is down; follows each `Up` exactly once.
    Down { error: LinkError, last_activity: std::time::Instant },
}

/// The queue of all masters' reports.
pub type MasterReportSender = mpsc::Sender<(GatewayName, MasterReport)>;

/// A master's end of the queue of masters' reports.
#[derive(Clone, Debug)]
pub(crate) struct MasterSink {
    name: GatewayName,
    queue: MasterReportSender,
}

impl MasterSink {
    pub(crate) const fn new(name: GatewayName, queue: MasterReportSender) -> Self {
        Self { name, queue }
    }

    /// Reports of a link that is up. Never waits: a full queue ends the link.
    pub(crate) fn try_send(&self, report: MasterReport) -> Result<(), Disconnect> {
        let sent = self.queue.try_send((self.name.clone(), report));
        sent.map_err(|_| Disconnect::from_overflow(&Peer::Master(self.name.clone())))
    }

    /// Reports while no link is up. Waits while the queue is full; returns false if the receiver
    /// was dropped.
    pub(crate) async fn send(&self, report: MasterReport) -> bool {
        self.queue.send((self.name.clone(), report)).await.is_ok()
    }
}
