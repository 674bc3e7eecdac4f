//! A link to a master that is up: reads both streams and the gateways' lists, and reports each
//! gateway's part in order, without waiting for the reader of the reports.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::OptionFuture;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::behind_master::{AtMaster, SessionGateways};
use super::convert::{self, ListedGateway};
use super::device_routes::{DeviceRoutes, Reported, StatusRoute};
use super::disconnect::Disconnect;
use super::error::{Error, LinkError};
use super::master_client::{CallResult, MasterClient, MasterStreams, next_result};
use super::master_timers::{Check, Renewal};
use super::reports::{LinkReport, MasterReport, MasterSink};
use super::rpc::SUBSCRIBE_STATUS;
use super::subscription::BATCH_LEN_MAX;
use super::supervisor::keep_alive_by_calls;
use crate::fleet::{GatewayIndex, Listed};
use crate::proto::connect::StatusChange;
use crate::proto::gateway::{self, GetListRequest};

pub(crate) struct MasterSession {
    master: Arc<MasterClient>,
    streams: MasterStreams,
    reports: MasterSink,
    gateways: SessionGateways,
    routes: DeviceRoutes,
    /// Whether the master is connected to each gateway that it lists.
    connected: BTreeMap<String, bool>,
    calls: JoinSet<CallResult>,
    check: Check,
    renewal: Renewal,
    /// Counts the statuses of gateways that were read.
    status_seq: u64,
}

impl MasterSession {
    /// A link with the master's list of gateways, read after the streams were open.
    pub(crate) fn start(
        master: Arc<MasterClient>,
        streams: MasterStreams,
        listed: Vec<ListedGateway>,
        gateways: SessionGateways,
        reports: MasterSink,
    ) -> Result<Self, Disconnect> {
        let mut session = Self {
            master,
            streams,
            reports,
            gateways,
            routes: DeviceRoutes::default(),
            connected: BTreeMap::new(),
            calls: JoinSet::new(),
            check: Check::new(),
            renewal: Renewal::default(),
            status_seq: 0,
        };
        session.report_token()?;
        session.routes.requested();
        session.add_gateways()?;
        session.check = Check::new();
        session.gateways_read(0, listed)?;
        Ok(session)
    }

    /// Reads until the link ends.
    pub(crate) async fn run(mut self) -> Result<Infallible, Disconnect> {
        let master = self.master.clone();
        let probe = |deadline| master.call(GetListRequest {}, deadline);
        tokio::select! {
            end = self.read() => end,
            disconnect = keep_alive_by_calls(master.connection(), probe) => Err(disconnect),
        }
    }

    async fn read(&mut self) -> Result<Infallible, Disconnect> {
        let mut batch = Vec::with_capacity(BATCH_LEN_MAX);
        let (mut gateways, list_requests) = (Vec::new(), self.gateways.list_requests.clone());
        loop {
            self.start_lists()?;
            let check = OptionFuture::from(self.check.due().map(sleep_until));
            let renewal = OptionFuture::from(self.renewal.due().map(sleep_until));
            tokio::select! {
                end = self.streams.devices.read(&mut batch) => {
                    let full = batch.len() >= BATCH_LEN_MAX;
                    self.route(&mut batch)?;
                    end?;
                    if full {
                        // A stream that is always ready must not starve the other tasks.
                        tokio::task::yield_now().await;
                    }
                }
                end = self.streams.gateways.read(&mut gateways) => {
                    self.gateways_changed(&mut gateways)?;
                    end?;
                }
                Some(result) = next_result(&mut self.calls) => {
                    // Changes that came before the result are reported before it.
                    let end = loop {
                        let end = self.streams.read_ready(&mut batch, &mut gateways);
                        let full = batch.len().max(gateways.len()) >= BATCH_LEN_MAX;
                        self.route(&mut batch)?;
                        self.gateways_changed(&mut gateways)?;
                        if end.is_err() || !full {
                            break end;
                        }
                        tokio::task::yield_now().await;
                    };
                    self.call_ended(result)?;
                    end?;
                }
                () = list_requests.requested() => {}
                Ok(()) = self.gateways.added() => self.add_gateways()?,
                Some(()) = check => self.start_check(),
                Some(()) = renewal => self.start_renewal(),
            }
        }
    }

    /// Gives each status to the gateway that has its device.
    fn route(&mut self, batch: &mut Vec<StatusChange>) -> Result<(), Disconnect> {
        let now = Instant::now();
        for change in batch.drain(..) {
            let Some(status) = convert::status_change(change, now.into_std()) else {
                self.master.connection().warn_about_id_0(SUBSCRIBE_STATUS, 1);
                continue;
            };
            match self.routes.route(status.device_id, status.status, now) {
                StatusRoute::Gateway(index) => {
                    self.gateways.report(index, LinkReport::Status(status))?;
                }
                StatusRoute::InDoubt => {
                    for owner in self.routes.owners(status.device_id) {
                        self.gateways.report(owner, LinkReport::ListNeeded)?;
                    }
                }
                StatusRoute::Unknown => self.check.want(self.routes.hold(status)),
                StatusRoute::Elsewhere => {}
            }
        }
        Ok(())
    }

    fn gateways_changed(
        &mut self,
        changes: &mut Vec<gateway::StatusChange>,
    ) -> Result<(), Disconnect> {
        for change in changes.drain(..) {
            let is_connected = convert::gateway_is_connected(&change);
            let gateway::StatusChange { gateway_id, timestamp, .. } = change;
            let received = Instant::now().into_std();
            self.reports.try_send(MasterReport::Clock { timestamp_s: timestamp, received })?;
            self.status_seq += 1;
            let ours = self.routes.gateway(&gateway_id);
            if let Some(index) = ours {
                let (routes, status) = (&mut self.routes, AtMaster::listed(is_connected));
                self.gateways.set_status(routes, index, self.status_seq, status)?;
            }
            let is_new = self.connected.insert(gateway_id, is_connected).is_none();
            let is_other_absent = ours.is_none() && !is_connected;
            if is_other_absent {
                self.routes.other_gateway_absent();
            }
            self.check.want(is_new || is_other_absent);
        }
        Ok(())
    }

    /// Compares with the master's list of all gateways; `status_seq`: how many statuses of gateways
    /// had been read when it was requested.
    fn gateways_read(
        &mut self,
        status_seq: u64,
        gateways: Vec<ListedGateway>,
    ) -> Result<(), Disconnect> {
        self.connected = gateways.iter().map(|it| (it.id.clone(), it.is_connected)).collect();
        self.reports.try_send(MasterReport::Gateways(self.connected.keys().cloned().collect()))?;
        for (index, id) in self.gateways.ids() {
            let listed = self.connected.get(id.as_ref());
            let status = listed.map_or(AtMaster::NotListed, |&it| AtMaster::listed(it));
            let is_lost = self.gateways.set_status(&mut self.routes, index, status_seq, status)?;
            if is_lost {
                self.check.lost();
            }
        }
        // A status can only be of a gateway that is connected.
        let is_connected = |it: &ListedGateway| match self.routes.gateway(&it.id) {
            Some(index) => self.gateways.is_up(index),
            None => it.is_connected,
        };
        let connected: Vec<_> = gateways.into_iter().filter(is_connected).collect();
        let devices = connected.into_iter().map(|it| (it.id, it.device_ids));
        let Reported { found, outdated, unassigned } =
            self.routes.reported(devices, Instant::now());
        if unassigned > 0 {
            let master = self.master.connection().options().peer.name();
            tracing::debug!(master, devices = unassigned, "status of unknown devices");
        }
        for (index, status) in found {
            self.gateways.report(index, LinkReport::Status(status))?;
        }
        for index in outdated {
            self.gateways.report(index, LinkReport::ListNeeded)?;
        }
        self.check.want(self.routes.is_waiting());
        Ok(())
    }

    /// Takes over gateways that were added.
    fn add_gateways(&mut self) -> Result<(), Disconnect> {
        for gateway in self.gateways.take_added() {
            let (id, index) = (gateway.id, gateway.output.gateway);
            let status = self.connected.get(id.as_ref()).map(|&it| AtMaster::listed(it));
            self.routes.add_gateway(id, index);
            if let Some(status) = status {
                self.gateways.set_status(&mut self.routes, index, self.status_seq, status)?;
            } else {
                self.check.want(true);
            }
        }
        Ok(())
    }

    /// Reads the lists that wait.
    fn start_lists(&mut self) -> Result<(), Disconnect> {
        while let Some((index, link, client)) = self.gateways.next_list(&mut self.check)? {
            self.calls
                .spawn(async move { CallResult::List(index, link, client.device_list().await) });
        }
        Ok(())
    }

    fn start_check(&mut self) {
        self.check.start();
        self.routes.requested();
        let (master, seq) = (self.master.clone(), self.status_seq);
        self.calls.spawn(async move { CallResult::Gateways(seq, master.gateways().await) });
    }

    fn start_renewal(&mut self) {
        self.renewal.start();
        let master = self.master.clone();
        self.calls.spawn(async move { CallResult::Renewed(master.replace(&master.token()).await) });
    }

    fn call_ended(&mut self, result: CallResult) -> Result<(), Disconnect> {
        let failed = match result {
            CallResult::List(index, link, list) => self.list_read(index, link, list)?,
            CallResult::Filter(index, link, filter) => {
                // A filter that cannot be read is no failure of the link.
                if let (Some(gateway), Ok(filter)) = (self.gateways.current(index, link), filter) {
                    gateway.output.reports.try_send(LinkReport::AcceptFilter(Box::new(filter)))?;
                }
                None
            }
            CallResult::Gateways(status_seq, infos) => {
                self.check.end(infos.is_ok());
                match infos {
                    Ok(infos) => self.gateways_read(status_seq, infos).map(|()| None)?,
                    Err(error) => {
                        for (index, status) in self.routes.not_reported() {
                            self.gateways.report(index, LinkReport::Status(status))?;
                        }
                        Some(error)
                    }
                }
            }
            CallResult::Renewed(renewed) => {
                self.renewal.end(renewed, &self.master.token(), &self.reports)?
            }
        };
        self.report_token()?;
        match failed {
            // A stopping server (GOAWAY) may leave the streams open and accept no more calls.
            Some(error @ (Error::Broken { .. } | Error::LoginRefused { .. })) => {
                Err(Disconnect::from_call(self.master.connection(), error))
            }
            Some(error) => {
                tracing::debug!(%error, "call to the master failed");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Reports a list and requests the accept filter after it; returns the error of a failed one.
    fn list_read(
        &mut self,
        index: GatewayIndex,
        link: u64,
        list: Result<Vec<Listed>, Error>,
    ) -> Result<Option<Error>, Disconnect> {
        let Some(gateway) = self.gateways.list_ended(index, link) else { return Ok(None) };
        match list {
            Ok(rows) => {
                let devices = rows.iter().map(|row| (row.device_id, row.status));
                for status in self.routes.listed(index, devices) {
                    self.gateways.report(index, LinkReport::Status(status))?;
                }
                gateway.output.reports.try_send(LinkReport::List(rows))?;
                if let Some(client) = gateway.output.client() {
                    self.calls.spawn(async move {
                        CallResult::Filter(index, link, client.accept_filter().await)
                    });
                }
                Ok(None)
            }
            Err(error) => {
                gateway.output.reports.try_send(LinkReport::ListFailed(LinkError::from(&error)))?;
                // The master may have lost the gateway without reporting it.
                self.check.want(true);
                Ok(Some(error))
            }
        }
    }

    /// Reports the end of the token, if it is another one.
    fn report_token(&mut self) -> Result<(), Disconnect> {
        match self.renewal.changed(&self.master.token()) {
            Some(expires_at) => self.reports.try_send(MasterReport::Token { expires_at }),
            None => Ok(()),
        }
    }
}
