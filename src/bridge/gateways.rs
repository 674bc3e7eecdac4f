//! The gateways' links and the provisioning of what is missing at them: applies what they report.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::access::GatewayAccess;
use super::details::{DetailsRead, DetailsReader};
use super::discovered::add_gateway;
use super::masters::{self, Masters};
use super::provisioner::{Provisioner, TaskResult};
use super::settings::settings;
use super::state::State;
use crate::config;
use crate::desired::DesiredState;
use crate::fleet::{AcceptFilter, GatewayIndex, LinkEvent};
use crate::gsdk::{GatewayOptions, GatewayTarget, Link, LinkError, LinkReport, RpcObserver};
use crate::ids::{GatewayName, discovered_name};
use crate::payload::{AcceptFilterInfo, GatewayEntry, LastError, MasterRef};

/// Reports that may wait for the loop (design, decision 1). When full, the stream of a gateway that
/// reports more is closed, and its list is read again.
const REPORTS_MAX: usize = 1_000_000;
/// Reports handled in one iteration: enough that a burst pays for few wake-ups.
const REPORTS_TAKEN_MAX: usize = 1_024;
/// Results that may wait for the loop. A full queue makes only the provisioning tasks wait.
const RESULTS_MAX: usize = 64;

/// Gateways of one master that are discovered.
const DISCOVERED_MAX: usize = 1_000;

/// All gateways, in the order of the configuration, then as they are discovered.
#[derive(Debug)]
pub(crate) struct Gateways {
    gateways: Vec<Gateway>,
    masters: Masters,
    /// Gateways that the loop has not taken yet.
    discovered: Vec<Discovered>,
    /// The settings of discovered gateways.
    forget_after: Option<Duration>,
    /// The senders keep the queues open when the last task has ended.
    reports: Queue<(GatewayIndex, LinkReport)>,
    results: Queue<TaskResult>,
    details: Queue<DetailsRead>,
    /// Whether devices are asked what they are.
    reads_details: bool,
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
struct Gateway {
    link: Link,
    access: GatewayAccess,
    provisioner: Provisioner,
    details: Option<DetailsReader>,
}

/// A gateway that its master lists and the configuration does not name.
#[derive(Debug)]
pub(crate) struct Discovered {
    pub(crate) name: GatewayName,
    pub(crate) gateway: config::Gateway,
    pub(crate) access: GatewayAccess,
}

/// What has come from the gateways.
#[derive(Debug)]
pub(crate) enum GatewayInput {
    Reports(Vec<(GatewayIndex, LinkReport)>),
    Master(masters::Report),
    Provisioned(TaskResult),
    Details(DetailsRead),
}

type Queue<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);

impl Gateways {
    pub(crate) fn new(reads_details: bool, forget_after: Option<Duration>) -> Self {
        Self {
            gateways: Vec::new(),
            masters: Masters::new(),
            discovered: Vec::new(),
            forget_after,
            reports: mpsc::channel(REPORTS_MAX),
            results: mpsc::channel(RESULTS_MAX),
            details: mpsc::channel(RESULTS_MAX),
            reads_details,
            stop: watch::Sender::new(false),
        }
    }

    /// Starts the link to a master, before those of its gateways.
    pub(crate) fn start_master(
        &mut self,
        name: &GatewayName,
        options: GatewayOptions,
        discovers: bool,
        observer: RpcObserver,
    ) {
        let (reports, stop) = (self.reports.0.clone(), self.stop.subscribe());
        self.masters.start(name, options, discovers, reports, observer, stop);
    }

    /// Starts the link of the next gateway; `None` if it is behind a master that does not exist.
    pub(crate) fn start(
        &mut self,
        name: GatewayName,
        target: GatewayTarget,
        observer: RpcObserver,
        declared: DesiredState,
    ) -> Option<GatewayAccess> {
        let index = GatewayIndex(self.gateways.len());
        let link = match target {
            GatewayTarget::Direct(options) => {
                let reports = self.reports.0.clone();
                Link::start(index, options, reports, observer, self.stop.subscribe())
            }
            GatewayTarget::Master { name: master, gateway_id, .. } => {
                self.masters.link(&master)?.add(index, name.clone(), &gateway_id)
            }
        };
        Some(self.add(name, link, declared))
    }

    fn add(&mut self, name: GatewayName, link: Link, declared: DesiredState) -> GatewayAccess {
        let (index, results) = (GatewayIndex(self.gateways.len()), self.results.0.clone());
        let access = GatewayAccess::new(&link);
        let provisioner = Provisioner::new(index, name, access.clone(), declared, results);
        let reader = || DetailsReader::new(index, access.clone(), self.details.0.clone());
        let details = self.reads_details.then(reader);
        self.gateways.push(Gateway { link, access: access.clone(), provisioner, details });
        access
    }

    /// Takes those gateways that a master lists and that are not known yet.
    fn discover(&mut self, state: &mut State, master: &GatewayName, ids: Vec<String>) {
        for id in ids {
            let behind = state.directory.behind(master).map(|(_, entry)| entry);
            let has_id = |it: &MasterRef| it.gateway_id == id;
            if behind.clone().any(|entry| entry.master.as_ref().is_some_and(has_id)) {
                continue;
            }
            if behind.count() >= DISCOVERED_MAX {
                tracing::warn!(%master, gateway = id, "too many gateways; not discovered");
                return;
            }
            let directory = &state.directory;
            let is_taken = |name: &GatewayName| {
                directory.masters.contains_key(name) || directory.find(name).is_some()
            };
            let name = discovered_name(master, &id, is_taken);
            let gateway = config::Gateway::discovered(master.clone(), id.clone());
            let settings = settings(&gateway, self.forget_after);
            let address = state.directory.masters.get(master).map(|facts| facts.address.clone());
            let entry = GatewayEntry {
                name: name.clone(),
                address: address.unwrap_or_default(),
                master: Some(MasterRef { name: master.clone(), gateway_id: id.clone() }),
                area: None,
                devices: Arc::default(),
            };
            let Some(link) = self.masters.link(master) else { return };
            tracing::info!(%master, gateway = %name, gateway_id = id, "gateway discovered");
            let link = link.add(GatewayIndex(self.gateways.len()), name.clone(), &id);
            add_gateway(state, entry, settings);
            let access = self.add(name.clone(), link, DesiredState::default());
            self.discovered.push(Discovered { name, gateway, access });
        }
    }

    /// The gateways that were discovered since the last call.
    pub(crate) fn take_discovered(&mut self) -> Vec<Discovered> {
        std::mem::take(&mut self.discovered)
    }

    /// The access to each gateway.
    pub(crate) fn access(&self) -> impl Iterator<Item = GatewayAccess> {
        self.gateways.iter().map(|gateway| gateway.access.clone())
    }

    /// Whether devices are asked what they are.
    pub(crate) const fn reads_details(&self) -> bool {
        self.reads_details
    }

    /// Waits for reports of links or the result of a task. Cancel safe.
    pub(crate) async fn next(&mut self) -> GatewayInput {
        let mut reports = Vec::new();
        tokio::select! {
            _ = self.reports.1.recv_many(&mut reports, REPORTS_TAKEN_MAX) => {}
            Some(result) = self.results.1.recv() => return GatewayInput::Provisioned(result),
            Some(read) = self.details.1.recv() => return GatewayInput::Details(read),
            Some(report) = self.masters.next() => return GatewayInput::Master(report),
        }
        GatewayInput::Reports(reports)
    }

    /// Becomes true when the links are stopped.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Reads a gateway's list again.
    pub(crate) fn list_now(&self, gateway: GatewayIndex) {
        if let Some(gateway) = self.gateways.get(gateway.0) {
            gateway.link.list_now();
        }
    }

    /// Applies what has come from the gateways.
    pub(crate) fn apply(&mut self, state: &mut State, input: GatewayInput) {
        match input {
            GatewayInput::Reports(reports) => {
                state.follow_wall_clock();
                for (gateway, report) in reports {
                    self.link_report(state, gateway, report);
                }
            }
            GatewayInput::Master((name, report)) => {
                let ids = self.masters.apply(state, &name, report);
                self.discover(state, &name, ids);
            }
            GatewayInput::Provisioned(result) => {
                if let Some(provisioner) = self.provisioner(result.gateway) {
                    provisioner.finished(state, result);
                }
            }
            GatewayInput::Details(read) => {
                let (gateway, device_id) = (read.gateway, read.device_id);
                let reader = self.details(gateway);
                let details = reader.and_then(|reader| reader.finished(Instant::now(), read));
                if let Some(details) = details {
                    state.set_details(gateway, device_id, details);
                }
            }
        }
    }

    fn link_report(&mut self, state: &mut State, gateway: GatewayIndex, report: LinkReport) {
        match report {
            LinkReport::Event(event) => self.link_event(state, gateway, event),
            LinkReport::Listed(is_listed) => {
                state.set_fact(gateway, |facts| facts.is_removed = !is_listed);
            }
            LinkReport::Connected { package, certificate_expires_at } => {
                state.set_fact(gateway, |facts| {
                    facts.package = Some(package.to_owned());
                    facts.certificate_expires_at = certificate_expires_at;
                });
            }
            LinkReport::AcceptFilter(filter) => {
                if let Some(provisioner) = self.provisioner(gateway) {
                    provisioner.filter_read(state, &filter);
                }
                let AcceptFilter { allow_all, device_ids, .. } = *filter;
                let filter = AcceptFilterInfo { allow_all, device_count: device_ids.len() };
                state.set_fact(gateway, |facts| facts.accept_filter = Some(filter));
            }
            LinkReport::ListFailed(error) => {
                // Logged once: until another error comes, it is in the gateway's info.
                let known = state.facts.get(gateway.0).and_then(|facts| facts.last_error.as_ref());
                if known.is_none_or(|known| known.message != *error.message) {
                    tracing::warn!("{error}");
                }
                set_error(state, gateway, &error);
            }
            LinkReport::AttemptFailed(error) | LinkReport::Disconnected(error) => {
                set_error(state, gateway, &error);
            }
        }
    }

    fn link_event(&mut self, state: &mut State, gateway: GatewayIndex, event: LinkEvent) {
        if let (LinkEvent::LinkUp, Some(reader)) = (&event, self.details(gateway)) {
            reader.link_up();
        }
        let Some(provisioner) = self.provisioner(gateway) else { return };
        match &event {
            LinkEvent::LinkUp => provisioner.link_up(),
            LinkEvent::ListRequested => provisioner.list_requested(),
            LinkEvent::List(rows) => {
                state.set_fact(gateway, |facts| facts.last_error = None);
                provisioner.listed(state, rows);
            }
            LinkEvent::Status { .. } | LinkEvent::ListFailed | LinkEvent::LinkDown { .. } => {}
        }
        let is_list = matches!(event, LinkEvent::List(_));
        state.step(gateway, event);
        if is_list {
            let moved = masters::moved_devices(state, gateway);
            state.forget_moved(gateway, &moved);
        }
    }

    /// What is provisioned at a gateway.
    pub(crate) fn provisioner(&mut self, gateway: GatewayIndex) -> Option<&mut Provisioner> {
        self.gateways.get_mut(gateway.0).map(|gateway| &mut gateway.provisioner)
    }

    fn details(&mut self, gateway: GatewayIndex) -> Option<&mut DetailsReader> {
        self.gateways.get_mut(gateway.0)?.details.as_mut()
    }

    /// Starts the retries that are due, and asks the devices whose turn it is.
    pub(crate) fn wake(&mut self, state: &mut State, now: Instant) {
        for (gateway, device_id, connected) in state.connections.drain(..) {
            if let Some(reader) = self.details(gateway) {
                reader.connection_changed(device_id, connected);
            }
        }
        self.masters.wake(state, now);
        for Gateway { provisioner, details, .. } in &mut self.gateways {
            if provisioner.retry_at().is_some_and(|at| at <= now) {
                provisioner.start_round(state);
            }
            if let Some(reader) = details {
                reader.wake(now);
            }
        }
    }

    /// When the next retry or question is due, or a master is lost.
    pub(crate) fn due(&self) -> Option<Instant> {
        let due = |gateway: &Gateway| {
            let reader = gateway.details.as_ref();
            let due = [gateway.provisioner.retry_at(), reader.and_then(DetailsReader::due)];
            due.into_iter().flatten().min()
        };
        self.gateways.iter().filter_map(due).chain(self.masters.due()).min()
    }
}

fn set_error(state: &mut State, gateway: GatewayIndex, error: &LinkError) {
    let error = LastError { code: error.code.to_string(), message: error.to_string() };
    state.set_fact(gateway, |facts| facts.last_error = Some(error));
}
