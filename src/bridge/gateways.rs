//! The gateways' links and the provisioning of what is missing at them: applies what they report.

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::access::GatewayAccess;
use super::details::{DetailsRead, DetailsReader};
use super::provisioner::{Provisioner, TaskResult};
use super::state::State;
use crate::desired::DesiredState;
use crate::fleet::{AcceptFilter, GatewayIndex, LinkEvent};
use crate::gsdk::{GatewayOptions, Link, LinkError, LinkReport, RpcObserver};
use crate::payload::{AcceptFilterInfo, LastError};

/// Reports that may wait for the loop (design, decision 1). When full, the stream of a gateway that
/// reports more is closed, and its list is read again.
const REPORTS_MAX: usize = 1_000_000;
/// Reports handled in one iteration: enough that a burst pays for few wake-ups.
const REPORTS_TAKEN_MAX: usize = 1_024;
/// Results that may wait for the loop. A full queue makes only the provisioning tasks wait.
const RESULTS_MAX: usize = 64;

/// All gateways, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Gateways {
    gateways: Vec<Gateway>,
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

/// What has come from the gateways.
#[derive(Debug)]
pub(crate) enum GatewayInput {
    Reports(Vec<(GatewayIndex, LinkReport)>),
    Provisioned(TaskResult),
    Details(DetailsRead),
}

type Queue<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);

impl Gateways {
    pub(crate) fn new(reads_details: bool) -> Self {
        Self {
            gateways: Vec::new(),
            reports: mpsc::channel(REPORTS_MAX),
            results: mpsc::channel(RESULTS_MAX),
            details: mpsc::channel(RESULTS_MAX),
            reads_details,
            stop: watch::Sender::new(false),
        }
    }

    /// Starts the link of the next gateway.
    pub(crate) fn start(
        &mut self,
        options: GatewayOptions,
        observer: RpcObserver,
        declared: DesiredState,
    ) {
        let (index, name) = (GatewayIndex(self.gateways.len()), options.name.clone());
        let (reports, results) = (self.reports.0.clone(), self.results.0.clone());
        let link = Link::start(index, options, reports, observer, self.stop.subscribe());
        let access = GatewayAccess::new(&link);
        let provisioner = Provisioner::new(index, name, access.clone(), declared, results);
        let reader = || DetailsReader::new(index, access.clone(), self.details.0.clone());
        let details = self.reads_details.then(reader);
        self.gateways.push(Gateway { link, access, provisioner, details });
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
            LinkReport::Connected { api_version, certificate_expires_at } => {
                state.set_fact(gateway, |facts| {
                    facts.package = Some(api_version.package().to_owned());
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
        state.step(gateway, event);
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
        for Gateway { provisioner, details, .. } in &mut self.gateways {
            if provisioner.retry_at().is_some_and(|at| at <= now) {
                provisioner.start_round(state);
            }
            if let Some(reader) = details {
                reader.wake(now);
            }
        }
    }

    /// When the next retry or question is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        let due = |gateway: &Gateway| {
            let reader = gateway.details.as_ref();
            let due = [gateway.provisioner.retry_at(), reader.and_then(DetailsReader::due)];
            due.into_iter().flatten().min()
        };
        self.gateways.iter().filter_map(due).min()
    }
}

fn set_error(state: &mut State, gateway: GatewayIndex, error: &LinkError) {
    let error = LastError { code: error.code.to_string(), message: error.to_string() };
    state.set_fact(gateway, |facts| facts.last_error = Some(error));
}
