//! One task for each master that connects, logs in, reads, and connects again until it is stopped.
//! It serves the links of all gateways behind the master.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::behind_master::{BehindMaster, GatewaysBehind};
use super::channel::KeepAlive;
use super::connection::RpcObserver;
use super::disconnect::Disconnect;
use super::error::{ErrorCode, LinkError};
use super::failure_log::LinkFailureLog;
use super::link::Link;
use super::master_connection::MasterConnection;
use super::master_reports::{MasterReport, MasterReportSender, MasterSink};
use super::master_session::MasterSession;
use super::master_streams::{MasterStreams, read_gateways};
use super::options::GatewayOptions;
use super::reports::{LinkReportSender, ReportSink};
use super::rpc::ApiVersion;
use crate::fleet::GatewayIndex;
use crate::ids::GatewayName;
use crate::net::{Backoff, Peer};
use crate::task::catch_panic;

/// A handle to a master's task.
#[derive(Debug)]
pub struct MasterLink {
    behind: Arc<GatewaysBehind>,
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
        mut stop: watch::Receiver<bool>,
    ) -> Self {
        let behind = Arc::new(GatewaysBehind::default());
        let task = MasterTask {
            options,
            behind: behind.clone(),
            reports: MasterSink::new(name, master_reports),
            observer,
            up_since: watch::Sender::new(None),
            api_version: ApiVersion::V1_5,
            keep_alive: KeepAlive::Pings,
            failures: LinkFailureLog::default(),
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                () = task.supervise() => {}
            }
        });
        Self { behind, reports, task }
    }

    /// Adds a gateway behind the master; returns its link.
    #[must_use]
    pub fn add(&self, index: GatewayIndex, name: GatewayName, gateway_id: &str) -> Link {
        let sink = ReportSink::new(index, Peer::Gateway(name), self.reports.clone());
        let gateway = BehindMaster::new(index, gateway_id.into(), sink);
        let link = Link::behind_master(&gateway, self.behind.list_requests.clone());
        self.behind.add(gateway);
        link
    }

    /// Waits until the task has ended.
    pub async fn ended(self) {
        let _ = self.task.await;
    }
}

#[derive(Clone)]
struct MasterTask {
    options: GatewayOptions,
    behind: Arc<GatewaysBehind>,
    reports: MasterSink,
    observer: RpcObserver,
    /// Since when the link is up, and its connection; shared by clones.
    up_since: watch::Sender<Option<(Instant, Arc<MasterConnection>)>>,
    /// Those below are learned from the master, and reset by a panic.
    api_version: ApiVersion,
    keep_alive: KeepAlive,
    failures: LinkFailureLog,
}

impl MasterTask {
    /// Runs until the receiver of the reports is gone. A panic ends the link, not the task.
    async fn supervise(self) {
        loop {
            let Err(panic) = catch_panic(self.clone().run()).await else { return };
            let (master, peer) = (self.options.peer.name(), &self.options.peer);
            tracing::error!(master, panic, "internal error: master task panicked; restarting");
            let message = format!(
                "{peer}: internal error: its task panicked and was restarted; please report this: \
                 {panic}"
            );
            if !self.ended(&LinkError::new(ErrorCode::Internal, message)).await {
                return;
            }
            sleep(self.options.timing.retry.first).await;
        }
    }

    async fn run(mut self) {
        let mut backoff = Backoff::new(self.options.timing.retry);
        loop {
            let disconnect = self.attempt().await;
            let up = self.up_since.borrow().clone();
            let lasted = up.map(|(since, master)| {
                master.connection().activity().last_activity().saturating_duration_since(since)
            });
            let (master, error) = (self.options.peer.name(), disconnect.error());
            let code = error.code.as_str();
            let retry_at_once = disconnect.pings_rejected() && self.keep_alive == KeepAlive::Pings;
            if retry_at_once {
                self.keep_alive = KeepAlive::Calls;
                tracing::info!(master, "master rejects HTTP/2 pings; keep-alive by calls");
            } else if self.failures.is_new(error) {
                match lasted {
                    Some(_) => {
                        let message = "disconnected from the master; retrying";
                        tracing::warn!(master, code, %error, message);
                    }
                    None => {
                        let message = "cannot connect to the master; retrying";
                        tracing::warn!(master, code, %error, message);
                    }
                }
            }
            if !self.ended(error).await {
                return;
            }
            if !retry_at_once {
                sleep(backoff.next(disconnect.is_absence(lasted), lasted)).await;
            }
        }
    }

    /// Reports that the link is down, or that an attempt failed; false if the receiver is gone.
    async fn ended(&self, error: &LinkError) -> bool {
        let up = self.up_since.send_replace(None);
        let last_activity = up.map(|(_, master)| master.connection().activity().last_activity());
        for gateway in self.behind.after(0) {
            let last_activity = last_activity.unwrap_or_else(Instant::now);
            if !gateway.master_lost(error, last_activity).await {
                return false;
            }
        }
        let error = error.clone();
        self.reports
            .send(match last_activity {
                Some(at) => MasterReport::Down { error, last_activity: at.into_std() },
                None => MasterReport::AttemptFailed(error),
            })
            .await
    }

    /// Connects and reads until the link ends.
    async fn attempt(&mut self) -> Disconnect {
        match self.connect().await {
            Ok(session) => session.run(self.keep_alive).await,
            Err(disconnect) => disconnect,
        }
    }

    async fn connect(&mut self) -> Result<MasterSession, Disconnect> {
        let observer = self.observer.clone();
        let master =
            MasterConnection::open(&self.options, self.keep_alive, self.api_version, observer);
        let master = Arc::new(master.await?);
        self.api_version = master.version();
        let mut streams = MasterStreams::request(&master);
        let gateways = {
            let mut responses = pin!(streams.responses());
            let grace = self.options.timing.subscribe_grace;
            let mut reading = pin!(read_gateways(&master));
            match timeout(grace, &mut responses).await {
                Ok(Ok(())) => reading.await?,
                Ok(Err(status)) => {
                    return Err(Disconnect::from_stream_end(master.connection(), Err(status)));
                }
                // A master that does not serve a stream would have refused it before it answers.
                Err(_) => tokio::select! {
                    biased;
                    Err(status) = &mut responses => {
                        return Err(Disconnect::from_stream_end(master.connection(), Err(status)));
                    }
                    gateways = &mut reading => gateways?,
                },
            }
        };
        self.up_since.send_replace(Some((Instant::now(), master.clone())));
        let certificate = master.connection().certificate();
        let certificate_expires_at = certificate.map(|shown| shown.not_after);
        self.reports.try_send(MasterReport::Up { certificate_expires_at })?;
        let (package, failures) = (self.api_version.master_package(), self.failures.connected());
        let name = self.options.peer.name();
        tracing::info!(master = name, package, failures, "connected to the master");
        let (behind, reports) = (self.behind.clone(), self.reports.clone());
        MasterSession::start(master, streams, gateways, behind, reports)
    }
}
