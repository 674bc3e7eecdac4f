//! The gateways of one link to a master: which are up, and whose lists are waiting or being read.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::behind_master::BehindMaster;
use super::client::GatewayClient;
use super::disconnect::Disconnect;
use super::list_requests::ListRequests;
use super::master_client::MasterClient;
use super::reports::LinkReport;
use crate::fleet::{GatewayIndex, LinkEvent};

/// Lists that are read at the same time.
const LISTS_MAX: usize = 16;

struct Place {
    gateway: BehindMaster,
    /// `None` until the master's list was read.
    is_listed: Option<bool>,
    /// Counts the gateway's links: a list of an earlier one is ignored.
    link: u64,
    list: ListReading,
    /// How many statuses of gateways had been read at the last one of this gateway.
    changed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListReading {
    Idle,
    Waiting,
    Reading,
    /// Being read, and to be read again afterwards.
    Outdated,
}

pub(crate) struct Places {
    master: Arc<MasterClient>,
    list_requests: Arc<ListRequests>,
    places: Vec<Place>,
    /// The places whose lists wait.
    waiting: VecDeque<usize>,
    /// Lists that are being read.
    reading: usize,
}

impl Places {
    pub(crate) fn new(master: Arc<MasterClient>, list_requests: Arc<ListRequests>) -> Self {
        let (places, waiting) = (Vec::new(), VecDeque::new());
        Self { master, list_requests, places, waiting, reading: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Adds a gateway; returns its place.
    pub(crate) fn add(&mut self, gateway: BehindMaster) -> usize {
        self.places.push(Place {
            gateway,
            is_listed: None,
            link: 0,
            list: ListReading::Idle,
            changed: 0,
        });
        self.places.len() - 1
    }

    pub(crate) fn id(&self, at: usize) -> Option<Arc<str>> {
        self.places.get(at).map(|place| place.gateway.id.clone())
    }

    /// The gateway, if its link is still the one of this number.
    pub(crate) fn current(&self, at: usize, link: u64) -> Option<&BehindMaster> {
        let place = self.places.get(at).filter(|place| place.link == link)?;
        Some(&place.gateway).filter(|gateway| gateway.output.is_up())
    }

    /// Reports the status of a device. A gateway whose link is down gets none: its next list shows
    /// what is true.
    pub(crate) fn report(&self, at: usize, event: LinkEvent) -> Result<(), Disconnect> {
        match self.places.get(at).filter(|place| place.gateway.output.is_up()) {
            Some(place) => place.gateway.output.reports.try_send(event),
            None => Ok(()),
        }
    }

    /// Applies the master's status of a gateway, unless a later status of it has been read;
    /// `changes`: how many statuses of gateways had been read by then.
    pub(crate) fn set_status(
        &mut self,
        at: usize,
        changes: u64,
        is_listed: bool,
        is_connected: bool,
    ) -> Result<(), Disconnect> {
        let Some(place) = self.places.get_mut(at).filter(|place| place.changed <= changes) else {
            return Ok(());
        };
        place.changed = changes;
        let gateway = &place.gateway;
        let was_listed = place.is_listed.replace(is_listed);
        if was_listed != Some(is_listed) {
            gateway.output.reports.try_send(LinkReport::Listed(is_listed))?;
        }
        if is_connected == gateway.output.is_up() && was_listed == Some(is_listed) {
            return Ok(());
        }
        place.list = ListReading::Idle;
        place.link += 1;
        if is_connected {
            self.list_requests.discard(gateway.output.gateway);
            return gateway.up(&self.master);
        }
        gateway.absent(is_listed, &self.master.connection().options().peer)
    }

    pub(crate) fn want_lists(&mut self, requested: &BTreeSet<GatewayIndex>) {
        for at in 0..self.places.len() {
            if self.places.get(at).is_some_and(|it| requested.contains(&it.gateway.output.gateway))
            {
                self.want_list(at);
            }
        }
    }

    /// Requests a list; again if it is being read.
    pub(crate) fn want_list(&mut self, at: usize) {
        let Some(place) = self.places.get_mut(at).filter(|place| place.gateway.output.is_up())
        else {
            return;
        };
        match place.list {
            ListReading::Idle => {
                place.list = ListReading::Waiting;
                self.waiting.push_back(at);
            }
            ListReading::Waiting | ListReading::Outdated => {}
            ListReading::Reading => place.list = ListReading::Outdated,
        }
    }

    /// The next list to be read, which is reported as requested: the place of its gateway, and the
    /// number of the gateway's link.
    pub(crate) fn next_list(&mut self) -> Result<Option<(usize, u64, GatewayClient)>, Disconnect> {
        while self.reading < LISTS_MAX {
            let Some(at) = self.waiting.pop_front() else { break };
            let place = self.places.get_mut(at).filter(|place| place.list == ListReading::Waiting);
            let Some(place) = place else { continue };
            let Some(client) = place.gateway.output.client() else { continue };
            place.list = ListReading::Reading;
            place.gateway.output.reports.try_send(LinkEvent::ListRequested)?;
            self.reading += 1;
            return Ok(Some((at, place.link, client)));
        }
        Ok(None)
    }

    /// A list was read, or has failed; returns its gateway, unless that has another link now.
    pub(crate) fn list_ended(&mut self, at: usize, link: u64) -> Option<BehindMaster> {
        self.reading = self.reading.saturating_sub(1);
        let gateway = self.current(at, link)?.clone();
        let place = self.places.get_mut(at)?;
        if std::mem::replace(&mut place.list, ListReading::Idle) == ListReading::Outdated {
            self.want_list(at);
        }
        Some(gateway)
    }
}
