//! One task for each master that connects, logs in, reads, and connects again until it is stopped.
//! It serves the links of all gateways behind the master.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryFutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::behind_master::{BehindMaster, SessionGateways};
use super::connection::{Connector, RpcObserver};
use super::disconnect::Disconnect;
use super::error::LinkError;
use super::link::Link;
use super::link_output::{LinkOutput, ListRequests};
use super::master_client::MasterClient;
use super::master_session::MasterSession;
use super::options::GatewayOptions;
use super::reports::{LinkReportSender, MasterReport, MasterReportSender, MasterSink};
use super::supervisor::{self, AttemptState, Supervised};
use crate::fleet::GatewayIndex;
use crate::ids::GatewayName;
use crate::net::Peer;

/// A handle to a master's task.
#[derive(Debug)]
pub struct MasterLink {
    /// Its gateways. More are added while its link is up, too.
    behind: watch::Sender<Vec<BehindMaster>>,
    list_requests: Arc<ListRequests>,
    reports: LinkReportSender,
    task: JoinHandle<()>,
}

impl MasterLink {
    /// Starts the task. It ends when `stop` becomes true, or when its sender or the receiver of
    /// the reports is gone. `reports` are those of its gateways.
    #[must_use]
    pub fn start(
        name: GatewayName,
        options: GatewayOptions,
        reports: LinkReportSender,
        master_reports: MasterReportSender,
        observer: RpcObserver,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let (behind, list_requests) = (watch::Sender::default(), Arc::<ListRequests>::default());
        let task = MasterTask {
            behind: behind.subscribe(),
            list_requests: list_requests.clone(),
            reports: MasterSink::new(name, options.peer.clone(), master_reports),
        };
        let task = supervisor::start(task, Connector::new(options, observer), stop);
        Self { behind, list_requests, reports, task }
    }

    /// Adds a gateway behind the master, with an index of its own; returns its link.
    #[must_use]
    pub fn add(&self, index: GatewayIndex, name: GatewayName, gateway_id: &str) -> Link {
        let (reports, list_requests) = (self.reports.clone(), self.list_requests.clone());
        let output = LinkOutput::new(index, Peer::Gateway(name), reports, list_requests);
        let link = Link::new(&output, None);
        let gateway = BehindMaster { id: gateway_id.into(), output };
        self.behind.send_modify(|gateways| gateways.push(gateway));
        link
    }

    /// Waits until the task has ended.
    pub async fn ended(self) {
        let _ = self.task.await;
    }
}

/// The task of a link to a master.
struct MasterTask {
    behind: watch::Receiver<Vec<BehindMaster>>,
    list_requests: Arc<ListRequests>,
    reports: MasterSink,
}

impl Supervised for MasterTask {
    async fn attempt(&self, state: &mut AttemptState) -> Result<Infallible, Disconnect> {
        let master = MasterClient::open(&state.connector).await?;
        state.connector.api_version = master.version();
        let mut streams = master.subscribe();
        let gateways = {
            let refused = |error| Disconnect::from_stream(master.connection(), error);
            let mut responses = pin!(streams.responses().map_err(refused));
            let grace = state.connector.options.timing.subscribe_grace;
            let mut reading = pin!(master.gateways());
            match timeout(grace, &mut responses).await {
                Ok(response) => {
                    response?;
                    reading.await?
                }
                // A master that does not serve a stream would have refused it before it answers.
                Err(_) => tokio::select! {
                    biased;
                    Err(disconnect) = &mut responses => return Err(disconnect),
                    gateways = &mut reading => gateways?,
                },
            }
        };
        let certificate_expires_at = master.certificate().map(|shown| shown.not_after);
        self.reports.try_send(MasterReport::Up { certificate_expires_at })?;
        state.connected(master.connection(), master.package());
        let own =
            SessionGateways::new(master.clone(), self.behind.clone(), self.list_requests.clone());
        let reports = self.reports.clone();
        MasterSession::start(master, streams, gateways, own, reports)?.run().await
    }

    async fn ended(&self, error: &LinkError, last_activity: Option<Instant>) -> bool {
        // The certificate is the master's.
        let of_gateway = LinkError { certificate_expires_at: None, ..error.clone() };
        let gateways = self.behind.borrow().clone();
        for gateway in gateways {
            if !gateway.output.connection_ended(of_gateway.clone(), last_activity).await {
                return false;
            }
        }
        let (error, last_activity) = (error.clone(), last_activity.map(Instant::into_std));
        self.reports.send(MasterReport::Down { error, last_activity }).await
    }
}
