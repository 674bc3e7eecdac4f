//! The gateways behind one master: each with its output, and for one link to the master which are
//! up, and whose lists are being read.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch::{self, error::RecvError};

use super::client::GatewayClient;
use super::device_routes::DeviceRoutes;
use super::disconnect::Disconnect;
use super::error::{ErrorCode, LinkError};
use super::link_output::{LinkOutput, ListRequests};
use super::master_client::MasterClient;
use super::master_timers::Check;
use super::reports::LinkReport;
use crate::fleet::GatewayIndex;
use crate::net::Peer;

/// One gateway behind a master. Clones are the same gateway.
#[derive(Clone, Debug)]
pub(crate) struct BehindMaster {
    /// Its ID at the master.
    pub(crate) id: Arc<str>,
    pub(crate) output: LinkOutput,
}

impl BehindMaster {
    /// Why its link is down: the master has no connection to it, or does not list it.
    fn absence(&self, is_listed: bool, master: &Peer) -> LinkError {
        let (peer, id) = (self.output.reports.peer(), &self.id);
        match is_listed {
            true => LinkError::new(
                ErrorCode::GatewayNotConnected,
                format!(
                    "{peer}: {master} has no connection to its gateway {id:?}; see that this \
                     gateway runs and reaches the master"
                ),
            ),
            false => LinkError::new(
                ErrorCode::GatewayNotListed,
                format!(
                    "{peer}: {master} lists no gateway {id:?} for this tenant; correct its \
                     gateway_id, or add the gateway at the master"
                ),
            ),
        }
    }
}

/// Lists that are read at the same time.
const LISTS_MAX: usize = 16;

/// What the master says of one of its gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtMaster {
    NotListed,
    Disconnected,
    Connected,
}

impl AtMaster {
    pub(crate) const fn listed(is_connected: bool) -> Self {
        if is_connected { Self::Connected } else { Self::Disconnected }
    }
}

struct SessionGateway {
    gateway: BehindMaster,
    /// `None` until the master's list was read.
    is_listed: Option<bool>,
    /// Counts the gateway's links: a list of an earlier one is ignored.
    link: u64,
    /// Whether the list of this link is being read.
    is_reading: bool,
    /// The number of the gateway's last status.
    status_seq: u64,
}

pub(crate) struct SessionGateways {
    master: Arc<MasterClient>,
    /// All that there are, also those that were added meanwhile.
    behind: watch::Receiver<Vec<BehindMaster>>,
    pub(crate) list_requests: Arc<ListRequests>,
    gateways: BTreeMap<GatewayIndex, SessionGateway>,
    /// Lists that are being read.
    reading: usize,
}

impl SessionGateways {
    pub(crate) fn new(
        master: Arc<MasterClient>,
        behind: watch::Receiver<Vec<BehindMaster>>,
        list_requests: Arc<ListRequests>,
    ) -> Self {
        Self { master, behind, list_requests, gateways: BTreeMap::new(), reading: 0 }
    }

    /// Waits until gateways were added behind the master; an error if none can be any more. Cancel
    /// safe.
    pub(crate) async fn added(&mut self) -> Result<(), RecvError> {
        self.behind.changed().await
    }

    /// Takes over the gateways that were added; returns them.
    pub(crate) fn take_added(&mut self) -> Vec<BehindMaster> {
        let behind = self.behind.borrow_and_update();
        let added = behind.get(self.gateways.len()..).unwrap_or_default().to_vec();
        for gateway in added.iter().cloned() {
            let index = gateway.output.gateway;
            let (is_listed, link, is_reading, status_seq) = (None, 0, false, 0);
            let entry = SessionGateway { gateway, is_listed, link, is_reading, status_seq };
            self.gateways.insert(index, entry);
        }
        added
    }

    /// All of them, with their IDs at the master.
    pub(crate) fn ids(&self) -> Vec<(GatewayIndex, Arc<str>)> {
        self.gateways.iter().map(|(index, entry)| (*index, entry.gateway.id.clone())).collect()
    }

    /// The gateway, if its link is still the one of this number.
    pub(crate) fn current(&self, index: GatewayIndex, link: u64) -> Option<&BehindMaster> {
        let entry = self.gateways.get(&index).filter(|entry| entry.link == link)?;
        Some(&entry.gateway).filter(|gateway| gateway.output.is_up())
    }

    /// Reports about a gateway, unless its link is down: its next list shows what is true.
    pub(crate) fn report(&self, index: GatewayIndex, report: LinkReport) -> Result<(), Disconnect> {
        match self.gateways.get(&index).filter(|entry| entry.gateway.output.is_up()) {
            Some(entry) => entry.gateway.output.reports.try_send(report),
            None => Ok(()),
        }
    }

    pub(crate) fn is_up(&self, index: GatewayIndex) -> bool {
        self.gateways.get(&index).is_some_and(|entry| entry.gateway.output.is_up())
    }

    /// Applies the master's status of a gateway, unless a later one of it has been read.
    /// `status_seq`: how many statuses of gateways had been read when the master reported this one.
    /// Returns whether it is absent now and was not, or not known to be.
    pub(crate) fn set_status(
        &mut self,
        routes: &mut DeviceRoutes,
        index: GatewayIndex,
        status_seq: u64,
        status: AtMaster,
    ) -> Result<bool, Disconnect> {
        let (is_listed, is_connected) =
            (status != AtMaster::NotListed, status == AtMaster::Connected);
        let entry = self.gateways.get_mut(&index);
        let Some(entry) = entry.filter(|entry| entry.status_seq <= status_seq) else {
            return Ok(false);
        };
        entry.status_seq = status_seq;
        let gateway = &entry.gateway;
        let was_listed = entry.is_listed.replace(is_listed);
        if was_listed != Some(is_listed) {
            gateway.output.reports.try_send(LinkReport::ListedByMaster(is_listed))?;
        }
        if is_connected == gateway.output.is_up() && was_listed == Some(is_listed) {
            return Ok(false);
        }
        self.list_requests.discard(index);
        entry.is_reading = false;
        entry.link += 1;
        if is_connected {
            let client = GatewayClient::through(self.master.clone(), gateway.id.clone());
            return gateway.output.up(client, self.master.package(), None).map(|()| false);
        }
        routes.gateway_absent(index);
        let error = gateway.absence(is_listed, &self.master.connection().options().peer);
        gateway.output.down_at_master(error).map(|()| true)
    }

    /// The next list to be read, which is reported as requested: its gateway, and the number of the
    /// gateway's link. A gateway that is not up is skipped: the master's list shows whether it is.
    pub(crate) fn next_list(
        &mut self,
        check: &mut Check,
    ) -> Result<Option<(GatewayIndex, u64, GatewayClient)>, Disconnect> {
        let Self { gateways, list_requests, .. } = self;
        while self.reading < LISTS_MAX
            && let Some(index) = list_requests
                .take(|index| gateways.get(&index).is_none_or(|entry| !entry.is_reading))
        {
            if let Some(entry) = gateways.get_mut(&index)
                && let Some(client) = entry.gateway.output.client()
            {
                entry.is_reading = true;
                entry.gateway.output.reports.try_send(LinkReport::ListRequested)?;
                self.reading += 1;
                return Ok(Some((index, entry.link, client)));
            }
            check.want(true);
        }
        Ok(None)
    }

    /// A list was read, or has failed; returns its gateway, unless that has another link now.
    pub(crate) fn list_ended(&mut self, index: GatewayIndex, link: u64) -> Option<BehindMaster> {
        self.reading = self.reading.saturating_sub(1);
        let gateway = self.current(index, link)?.clone();
        self.gateways.get_mut(&index)?.is_reading = false;
        Some(gateway)
    }
}
