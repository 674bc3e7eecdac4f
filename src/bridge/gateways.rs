//! Applies the reports of the gateways' links and the results of provisioning.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::access::GatewayAccess;
use super::details::DetailsReader;
use super::discovered::DiscoveredGateways;
use super::gateway_inputs::{GatewayInput, GatewayInputs};
use super::masters::{self, Masters};
use super::missing_devices::{missing_devices, warn_of_unexpected};
use super::provisioner::Provisioner;
use super::settings::NoMaster;
use super::state::State;
use crate::desired::DesiredState;
use crate::fleet::{AcceptFilter, GatewayIndex, LinkEvent, Listed};
use crate::gsdk::{
    GatewayOptions, GatewayTarget, Link, LinkError, LinkReport, MasterLink, RpcObserver,
};
use crate::ids::{DeviceId, GatewayName};
use crate::net::FailureLog;
use crate::payload::{AcceptFilterInfo, GatewayEntry};

/// All gateways, in the order of the configuration, then as they are discovered.
#[derive(Debug)]
pub(crate) struct Gateways {
    gateways: Vec<LinkedGateway>,
    masters: Masters,
    pub(crate) discovered: DiscoveredGateways,
    /// There are others than when the loop last looked.
    is_changed: bool,
    inputs: GatewayInputs,
    reads_details: bool,
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
struct LinkedGateway {
    link: Link,
    provisioner: Provisioner,
    details: Option<DetailsReader>,
    list_failures: FailureLog,
}

impl Gateways {
    /// Without any yet; `configured`: how many are started that are not discovered.
    pub(crate) fn new(
        reads_details: bool,
        configured: usize,
        forget_after: Option<Duration>,
    ) -> Self {
        Self {
            gateways: Vec::new(),
            masters: Masters::default(),
            discovered: DiscoveredGateways::new(configured, forget_after),
            is_changed: false,
            inputs: GatewayInputs::new(),
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
        let (reports, own, stop) =
            (self.inputs.reports(), self.inputs.master_reports(), self.stop.subscribe());
        let link = MasterLink::start(name.clone(), options, reports, own, observer, stop);
        self.masters.add(name.clone(), link, discovers);
    }

    /// Starts the link of the next gateway.
    pub(crate) fn start(
        &mut self,
        name: GatewayName,
        target: GatewayTarget,
        observer: RpcObserver,
        declared: DesiredState,
    ) -> Result<(), NoMaster> {
        let index = GatewayIndex(self.gateways.len());
        let link = match target {
            GatewayTarget::Direct(options) => {
                let reports = self.inputs.reports();
                Link::start(index, options, reports, observer, self.stop.subscribe())
            }
            GatewayTarget::Master { name: master, gateway_id, .. } => {
                let link = self.masters.link(&master).ok_or_else(|| NoMaster(name.clone()))?;
                link.add(index, name.clone(), &gateway_id)
            }
        };
        self.add(name, link, declared);
        Ok(())
    }

    fn add(&mut self, name: GatewayName, link: Link, declared: DesiredState) {
        let (index, results) = (GatewayIndex(self.gateways.len()), self.inputs.results());
        let access = GatewayAccess::new(&link);
        let provisioner = Provisioner::new(index, name, access.clone(), declared, results);
        let reader = || DetailsReader::new(index, access.clone(), self.inputs.details());
        let details = self.reads_details.then(reader);
        let list_failures = FailureLog::default();
        self.gateways.push(LinkedGateway { link, provisioner, details, list_failures });
    }

    /// Takes those gateways that a master lists and that are not known yet, and forgets those that
    /// it has not listed for long.
    fn listed(&mut self, state: &mut State, master: &GatewayName, ids: &[String], passed_ms: i64) {
        for gateway in self.discovered.listed(state, master, ids, passed_ms) {
            self.forget(state, gateway);
        }
        for id in ids {
            let index = GatewayIndex(self.gateways.len());
            let Some(name) = self.discovered.add(state, master, id) else { continue };
            let Some(link) = self.masters.link(master) else { return };
            let link = link.add(index, name.clone(), id);
            self.add(name, link, DesiredState::default());
            self.is_changed = true;
        }
    }

    /// Forgets what earlier processes have forgotten, once everything is restored.
    pub(crate) fn forget_restored(&mut self, state: &mut State) {
        for gateway in self.discovered.restored_forgotten() {
            self.forget(state, gateway);
        }
    }

    /// Forgets a gateway with all its devices; returns both. Their topics are cleared once the
    /// session has settled.
    pub(crate) fn forget(
        &mut self,
        state: &mut State,
        gateway: GatewayIndex,
    ) -> Option<(GatewayEntry, BTreeSet<DeviceId>)> {
        if let Some(provisioner) = self.provisioner(gateway) {
            provisioner.set_commanded(state, DesiredState::default());
        }
        let (entry, ids) = self.discovered.forget(state, gateway)?;
        self.is_changed = true;
        Some((entry, ids))
    }

    /// Whether there are other gateways than at the last call.
    pub(crate) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.is_changed, false)
    }

    pub(crate) const fn reads_details(&self) -> bool {
        self.reads_details
    }

    /// Waits for reports of links or of a master, or the result of a task. Cancel safe.
    pub(crate) async fn next(&mut self) -> GatewayInput {
        self.inputs.next().await
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
            GatewayInput::Master(name, report) => {
                if let Some((ids, passed_ms)) = self.masters.apply(state, &name, report) {
                    self.listed(state, &name, &ids, passed_ms);
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
                    state.change(gateway, |gateway, now, out| {
                        gateway.set_details(now, device_id, details, out);
                    });
                }
            }
        }
    }

    fn link_report(&mut self, state: &mut State, gateway: GatewayIndex, report: LinkReport) {
        match report {
            LinkReport::Status(change) => state.step(gateway, LinkEvent::Status(change)),
            LinkReport::ListRequested => {
                if let Some(provisioner) = self.provisioner(gateway) {
                    provisioner.list_requested();
                }
                state.step(gateway, LinkEvent::ListRequested);
            }
            LinkReport::ListNeeded => state.request_list(gateway),
            LinkReport::List(rows) => self.devices_listed(state, gateway, rows),
            LinkReport::ListedByMaster(is_listed) => {
                self.is_changed |= is_listed && self.discovered.recall(state, gateway);
                state.set_fact(gateway, |facts| facts.is_removed = !is_listed);
            }
            LinkReport::Up { package, certificate_expires_at } => {
                state.set_fact(gateway, |facts| {
                    facts.package = Some(package.to_owned());
                    facts.certificate_expires_at = certificate_expires_at;
                });
                if let Some(LinkedGateway { provisioner, details, .. }) =
                    self.gateways.get_mut(gateway.0)
                {
                    provisioner.link_up();
                    if let Some(reader) = details {
                        reader.link_up(Instant::now());
                    }
                }
                state.step(gateway, LinkEvent::LinkUp);
            }
            LinkReport::Down { error, last_activity } => {
                set_error(state, gateway, &error);
                if let Some(last_activity) = last_activity {
                    state.step(gateway, LinkEvent::LinkDown { last_activity });
                } else if error.code.is_gateway_absent() {
                    state.step(gateway, LinkEvent::Absent);
                }
            }
            LinkReport::AcceptFilter(filter) => {
                let AcceptFilter { allow_all, ref device_ids, .. } = *filter;
                let info = AcceptFilterInfo { allow_all, device_count: device_ids.len() };
                if let Some(provisioner) = self.provisioner(gateway) {
                    provisioner.filter_read(state, *filter);
                }
                state.set_fact(gateway, |facts| facts.accept_filter = Some(info));
            }
            LinkReport::ListFailed(error) => {
                let failures = self.gateways.get_mut(gateway.0).map(|it| &mut it.list_failures);
                let is_due = failures.is_some_and(|it| it.count(&error.message).is_due);
                let shown = state.facts.get(gateway.0).and_then(|it| it.last_error.as_ref());
                if is_due || shown.is_none_or(|shown| shown.code != error.code.as_str()) {
                    set_error(state, gateway, &error);
                }
                if is_due {
                    let entry = state.directory.gateway(gateway);
                    let (gateway, code) = (entry.map(|it| it.name.as_str()), error.code.as_str());
                    tracing::warn!(gateway, code, %error, "cannot read the device list; retrying");
                }
                state.step(gateway, LinkEvent::ListFailed);
            }
        }
    }

    fn devices_listed(&mut self, state: &mut State, gateway: GatewayIndex, rows: Vec<Listed>) {
        state.set_fact(gateway, |facts| facts.last_error = None);
        if let Some(linked) = self.gateways.get_mut(gateway.0) {
            linked.list_failures.reset();
        }
        if let Some(provisioner) = self.provisioner(gateway) {
            provisioner.listed(state, &rows);
        }
        let others = masters::affected_gateways(state, gateway, &rows);
        let has_just_changed = self.provisioner(gateway).is_some_and(|it| it.has_just_changed());
        // A command may have removed them, or they have moved to another gateway.
        let is_surprise = !has_just_changed && others.is_empty();
        let missing = if is_surprise { missing_devices(state, gateway, &rows) } else { Vec::new() };
        state.step(gateway, LinkEvent::List(rows));
        let moved = masters::moved_devices(state, gateway);
        state.forget(gateway, &moved);
        warn_of_unexpected(state, gateway, &missing);
        others.into_iter().for_each(|other| state.request_list(other));
    }

    /// When something last came from a gateway, while there is a link.
    pub(crate) fn last_activity(&self, gateway: GatewayIndex) -> Option<Instant> {
        self.gateways.get(gateway.0)?.link.last_activity()
    }

    pub(crate) fn provisioner(&mut self, gateway: GatewayIndex) -> Option<&mut Provisioner> {
        self.gateways.get_mut(gateway.0).map(|gateway| &mut gateway.provisioner)
    }

    fn details(&mut self, gateway: GatewayIndex) -> Option<&mut DetailsReader> {
        self.gateways.get_mut(gateway.0)?.details.as_mut()
    }

    /// Starts the retries that are due, and reads the devices that are due.
    pub(crate) fn wake(&mut self, state: &mut State, now: Instant) {
        for (gateway, device_id, connected) in state.connections.drain(..) {
            if let Some(reader) = self.details(gateway) {
                reader.connection_changed(now, device_id, connected);
            }
        }
        self.masters.wake(state, now);
        for LinkedGateway { provisioner, details, .. } in &mut self.gateways {
            if provisioner.retry_at().is_some_and(|at| at <= now) {
                provisioner.start_round(state);
            }
            if let Some(reader) = details {
                reader.wake(now);
            }
        }
    }

    /// When the next retry or reading of details is due, or a master is lost.
    pub(crate) fn due(&self) -> Option<Instant> {
        let due = |LinkedGateway { provisioner, details, .. }: &LinkedGateway| {
            let due = [provisioner.retry_at(), details.as_ref().and_then(DetailsReader::due)];
            due.into_iter().flatten().min()
        };
        self.gateways.iter().filter_map(due).chain(self.masters.due()).min()
    }
}

fn set_error(state: &mut State, gateway: GatewayIndex, error: &LinkError) {
    state.set_fact(gateway, |facts| {
        facts.last_error = Some(masters::last_error(error));
        facts.certificate_expires_at =
            error.certificate_expires_at.or(facts.certificate_expires_at);
    });
}
