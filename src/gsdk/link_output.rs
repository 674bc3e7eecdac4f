//! What the task of a gateway's link gives to others: its reports, and a client while it is up.

use tokio::sync::watch;
use tokio::time::Instant;

use super::client::GatewayClient;
use super::disconnect::Disconnect;
use super::error::LinkError;
use super::reports::{GatewaySink, LinkReport, LinkReportSender};
use crate::fleet::{GatewayIndex, LinkEvent};
use crate::ids::Moment;
use crate::net::Peer;

/// Clones belong to the same link.
#[derive(Clone, Debug)]
pub(crate) struct LinkOutput {
    pub(crate) gateway: GatewayIndex,
    pub(crate) reports: GatewaySink,
    /// For calls beside the stream, while the link is up.
    client: watch::Sender<Option<GatewayClient>>,
}

impl LinkOutput {
    pub(crate) fn new(gateway: GatewayIndex, peer: Peer, queue: LinkReportSender) -> Self {
        let reports = GatewaySink::new(gateway, peer, queue);
        Self { gateway, reports, client: watch::Sender::new(None) }
    }

    pub(crate) fn clients(&self) -> watch::Receiver<Option<GatewayClient>> {
        self.client.subscribe()
    }

    pub(crate) fn client(&self) -> Option<GatewayClient> {
        self.client.borrow().clone()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.client.borrow().is_some()
    }

    /// The link is up.
    pub(crate) fn up(
        &self,
        client: GatewayClient,
        package: &'static str,
        certificate_expires_at: Option<Moment>,
    ) -> Result<(), Disconnect> {
        self.client.send_replace(Some(client));
        let connected = LinkReport::Connected { package, certificate_expires_at };
        let reported = self.reports.try_send(connected);
        let reported = reported.and_then(|()| self.reports.try_send(LinkEvent::LinkUp));
        // Without `LinkUp` there will be no `LinkDown`.
        reported.inspect_err(|_| _ = self.client.send_replace(None))
    }

    /// The link is down, or an attempt failed, while the connection to its master stands.
    pub(crate) fn absent(&self, error: LinkError) -> Result<(), Disconnect> {
        let client = self.client();
        let mut reports = self.end(error, Instant::now()).into_iter();
        let reported = reports.try_for_each(|report| self.reports.try_send(report));
        // With a full queue the connection to the master ends, and with it this link.
        reported.inspect_err(|_| _ = self.client.send_replace(client))
    }

    /// The link is down, or an attempt failed; false if the receiver of the reports is gone.
    pub(crate) async fn ended(&self, error: LinkError, last_activity: Option<Instant>) -> bool {
        let last_activity = last_activity.unwrap_or_else(Instant::now);
        for report in self.end(error, last_activity) {
            if !self.reports.send(report).await {
                return false;
            }
        }
        true
    }

    fn end(&self, error: LinkError, last_activity: Instant) -> Vec<LinkReport> {
        let last_activity = last_activity.into_std();
        match self.client.send_replace(None) {
            Some(_) => {
                vec![LinkReport::Disconnected(error), LinkEvent::LinkDown { last_activity }.into()]
            }
            None => vec![LinkReport::AttemptFailed(error)],
        }
    }
}
