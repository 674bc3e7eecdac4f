//! Routes the reports of the gateways' links to the core, and the core's outputs to the components.

use std::time::Instant as StdInstant;

use tokio::time::Instant;

use super::Bridge;
use super::gateway_provisioner::{AcquireSlot, Consequences, GatewayProvisioner, TaskResult};
use super::site::Site;
use crate::commands::{Warning, kept_by_configuration};
use crate::desired::{ChangeResult, DesiredItem};
use crate::fleet::{AcceptFilter, Effect, GatewayEvent, GatewayIndex, LinkEvent, Output};
use crate::gsdk::{Link, LinkError, LinkReport};
use crate::ids::GatewayName;
use crate::payload::{
    AcceptFilterInfo, BridgeEvent, BridgeEventKind, GatewayEventPayload, LastError, Subject,
    to_bytes,
};
use crate::store::Key;

impl Bridge {
    /// Handles what the gateways' links have reported.
    pub(crate) fn link_reports(&mut self) {
        self.follow_wall_clock();
        while let Some((gateway, report)) = self.links.next_report() {
            self.link_reported(gateway, report);
        }
    }

    fn link_reported(&mut self, gateway: GatewayIndex, report: LinkReport) {
        match report {
            LinkReport::Event(event) => self.link_event(gateway, event),
            LinkReport::Connected { api_version, certificate_expires_at } => {
                self.fact(gateway, |facts| {
                    facts.package = Some(api_version.package().to_owned());
                    facts.certificate_expires_at = certificate_expires_at;
                });
            }
            LinkReport::AcceptFilter(filter) => self.accept_filter(gateway, &filter),
            LinkReport::ListFailed(error) => {
                // Logged once: until another error comes, it is in the gateway's info.
                let known =
                    self.site.facts.get(gateway.0).and_then(|facts| facts.last_error.as_ref());
                if known.is_none_or(|known| known.message != *error.message) {
                    tracing::warn!("{error}");
                }
                self.failed(gateway, &error);
            }
            LinkReport::AttemptFailed(error) | LinkReport::Disconnected(error) => {
                self.failed(gateway, &error);
            }
        }
    }

    fn link_event(&mut self, gateway: GatewayIndex, event: LinkEvent) {
        match &event {
            LinkEvent::LinkUp => {
                self.provisioner.gateway_mut(gateway).map(GatewayProvisioner::link_up);
            }
            LinkEvent::ListRequested => {
                self.provisioner.gateway_mut(gateway).map(GatewayProvisioner::list_requested);
            }
            LinkEvent::List(rows) => {
                self.fact(gateway, |facts| facts.last_error = None);
                self.provision(gateway, |it, link, acquire| it.listed(rows, link, acquire));
            }
            LinkEvent::Status { .. } | LinkEvent::ListFailed | LinkEvent::LinkDown { .. } => {}
        }
        let Site { fleet, outputs, .. } = &mut self.site;
        fleet.step(self.clock.steady(), gateway, event, outputs);
        self.apply_outputs();
    }

    fn accept_filter(&mut self, gateway: GatewayIndex, filter: &AcceptFilter) {
        self.provision(gateway, |it, _, _| it.filter_read(filter));
        let AcceptFilter { allow_all, ref device_ids, .. } = *filter;
        let filter = AcceptFilterInfo { allow_all, device_count: device_ids.len() };
        self.fact(gateway, |facts| facts.accept_filter = Some(filter));
    }

    /// Handles the result of a provisioning task.
    pub(crate) fn provisioned(&mut self, result: TaskResult) {
        self.provision(result.gateway, |it, link, acquire| it.finished(result, link, acquire));
    }

    /// Runs a method of a gateway's provisioner and applies what follows.
    fn provision(
        &mut self,
        gateway: GatewayIndex,
        run: impl FnOnce(&mut GatewayProvisioner, &Link, AcquireSlot<'_>) -> Consequences,
    ) {
        let Self { provisioner, links, dispatcher, .. } = self;
        let provisioner = provisioner.gateway_mut(gateway);
        let (Some(provisioner), Some(link)) = (provisioner, links.get(gateway)) else { return };
        let consequences = run(provisioner, link, &|| dispatcher.change_slot(gateway));
        let Consequences { events, is_changed, is_list_wanted } = consequences;
        if is_changed {
            self.store_desired(gateway);
        }
        for event in events {
            self.gateway_event(gateway, &event);
        }
        if is_list_wanted {
            self.request_list(gateway);
        }
    }

    /// Restores what commands of earlier processes made.
    pub(crate) fn restore_desired(&mut self, name: &GatewayName, note: &[u8]) {
        let Some(gateway) = self.provisioner.find(name) else {
            return self.persistence.set(Key::Desired(name.clone()), None);
        };
        if let Some(provisioner) = self.provisioner.gateway_mut(gateway) {
            provisioner.restore(note);
        }
        self.keep_devices(gateway);
    }

    /// A command that changes something has started.
    pub(crate) fn command_started(&mut self, gateway: GatewayIndex) {
        self.provisioner.gateway_mut(gateway).map(GatewayProvisioner::command_started);
    }

    /// It has finished. Warns about declared items that it removed.
    pub(crate) fn command_finished(
        &mut self,
        gateway: GatewayIndex,
        effects: Vec<Effect>,
    ) -> Vec<Warning> {
        let Some(provisioner) = self.provisioner.gateway_mut(gateway) else { return Vec::new() };
        let ChangeResult { changed, kept } = provisioner.command_finished(effects);
        let warning =
            |item: DesiredItem| kept_by_configuration(provisioner.name(), item.device_id());
        let warnings = kept.into_iter().map(warning).collect();
        if changed {
            self.store_desired(gateway);
        }
        warnings
    }

    /// Persists the items that commands made, and marks their devices as kept.
    fn store_desired(&mut self, gateway: GatewayIndex) {
        if let Some(provisioner) = self.provisioner.gateway(gateway) {
            let key = Key::Desired(provisioner.name().clone());
            self.persistence.set(key, provisioner.note().as_deref());
            self.keep_devices(gateway);
        }
    }

    fn keep_devices(&mut self, gateway: GatewayIndex) {
        let Some(provisioner) = self.provisioner.gateway(gateway) else { return };
        let Site { fleet, outputs, .. } = &mut self.site;
        fleet.set_kept(self.clock.steady(), gateway, provisioner.kept(), outputs);
        self.apply_outputs();
    }

    /// Requests a gateway's list: something was changed at it.
    pub(crate) fn request_list(&mut self, gateway: GatewayIndex) {
        let Site { fleet, outputs, .. } = &mut self.site;
        fleet.request_list(self.clock.steady(), gateway, outputs);
        self.apply_outputs();
    }

    fn failed(&mut self, gateway: GatewayIndex, error: &LinkError) {
        let error = LastError { code: error.code.to_string(), message: error.to_string() };
        self.fact(gateway, |facts| facts.last_error = Some(error));
    }

    fn fact(&mut self, gateway: GatewayIndex, set: impl FnOnce(&mut crate::payload::LinkFacts)) {
        let Some(facts) = self.site.facts.get_mut(gateway.0) else { return };
        let before = (facts.last_error.clone(), facts.package.clone());
        set(facts);
        if before == (facts.last_error.clone(), facts.package.clone()) {
            self.publisher.content().states().info_changed(gateway);
        } else {
            self.publisher.content().states().info_changed_at_once(gateway);
        }
    }

    /// Follows the wall clock, which jumps when it is set or the machine sleeps.
    fn follow_wall_clock(&mut self) {
        if let Some(by_ms) = self.clock.follow_wall_clock() {
            let by_s = by_ms / 1_000;
            tracing::warn!(by_s, "the wall clock jumped or the machine slept; following it");
            self.site.fleet.set_wall_offset(self.clock.wall_offset_ms());
        }
    }

    /// Does what is due by now.
    pub(crate) fn wake(&mut self) {
        self.follow_wall_clock();
        let Site { fleet, outputs, .. } = &mut self.site;
        fleet.wake(self.clock.steady(), outputs);
        self.apply_outputs();
        let now = Instant::now();
        // A full outbox would drop another event for the report, so it waits for the broker.
        let report = self.publisher.is_connected().then(|| self.losses.report(now)).flatten();
        if let Some(kind) = report {
            self.bridge_event(&kind);
        }
        while let Some(gateway) = self.provisioner.due_gateway(now) {
            self.provision(gateway, GatewayProvisioner::retry);
        }
        self.wake_broker(now);
        if self.retained.take_republish(now) {
            self.publisher.all_changed(&self.site.fleet);
        }
    }

    /// When the next iteration is due although no input arrives.
    pub(crate) fn due(&self) -> Option<Instant> {
        let moments = [self.site.fleet.wake_at(), self.publisher.wake_at()];
        let moments = moments.into_iter().flatten().map(|at| self.clock.instant(at).into());
        let connected = self.publisher.is_connected();
        let losses = self.losses.due(Instant::now()).filter(|_| connected);
        let (provisioning, keeping) = (self.provisioner.due(), self.persistence.due());
        let broker = [self.broker.due(), self.retained.due()];
        let heartbeat = Some(self.heartbeat.next_due());
        let others = [provisioning, keeping, heartbeat];
        let others = broker.into_iter().chain(others);
        moments.chain(losses).chain(others.flatten()).min()
    }

    pub(crate) fn apply_outputs(&mut self) {
        let mut outputs = std::mem::take(&mut self.site.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Event(event) => {
                    self.web.page.device_event(&event);
                    self.persistence.device_event(event);
                }
                Output::GatewayEvent(gateway, event) => self.gateway_event(gateway, &event),
                Output::State { gateway, device_id } => {
                    self.persistence.touch(gateway, device_id);
                    self.web.page.device_changed(gateway, device_id);
                    self.publisher.content().states().device_changed(gateway, device_id);
                }
                Output::Store { gateway, device_id } => {
                    self.persistence.touch(gateway, device_id);
                }
                Output::Gateway(gateway) => self.publisher.content().gateway_changed(gateway),
                Output::Forgotten { gateway, device_id } => {
                    self.persistence.touch(gateway, device_id);
                    if let Some(entry) = self.site.directory.gateway(gateway) {
                        let (content, outbox) =
                            (self.publisher.content(), self.persistence.outbox_mut());
                        content.device_removed(gateway, device_id, entry, outbox);
                    }
                }
                Output::RequestList(gateway) => {
                    if let Some(link) = self.links.get(gateway) {
                        link.list_now();
                    }
                }
            }
        }
        self.site.outputs = outputs;
    }

    pub(crate) fn gateway_event(&mut self, gateway: GatewayIndex, event: &GatewayEvent) {
        let Some(entry) = self.site.directory.gateway(gateway) else { return };
        let name = &entry.name;
        match event {
            GatewayEvent::Reachable => tracing::info!(gateway = %name, "gateway online"),
            GatewayEvent::Unreachable => {
                tracing::warn!(gateway = %name, "gateway lost; its devices are unknown");
            }
            GatewayEvent::Restored { what, count, .. } => {
                tracing::info!(gateway = %name, what, count, "missing items provisioned");
            }
            GatewayEvent::Withdrawn { what, count, .. } => {
                let message = "another client removed desired items";
                tracing::warn!(gateway = %name, what, count, message);
            }
            GatewayEvent::Corrected { count } => {
                let message = "an audit found changes that the stream did not report";
                tracing::warn!(gateway = %name, count, message);
            }
            GatewayEvent::Stranger { device_id, status } => {
                let message = "status of an unknown device";
                tracing::debug!(gateway = %name, %device_id, %status, message);
            }
        }
        self.site.events += 1;
        let at = self.clock.now();
        self.web.page.gateway_event(at, gateway, event);
        let payload =
            GatewayEventPayload::new(&self.site.directory, entry, self.site.events, at, event);
        let (subject, payload) = (Subject::Gateway(name.clone()), to_bytes(&payload));
        self.append(subject, event.name(), payload, None);
        if *event == GatewayEvent::Reachable {
            self.clear_stale_devices(gateway);
        }
    }

    pub(crate) fn bridge_event(&mut self, kind: &BridgeEventKind) {
        self.site.events += 1;
        let event =
            BridgeEvent::new(&self.site.directory, self.site.events, self.clock.now(), kind);
        tracing::warn!(?kind, "bridge event");
        let payload = to_bytes(&event);
        self.append(Subject::Bridge, kind.name(), payload, None);
    }

    pub(crate) fn append(
        &mut self,
        subject: Subject,
        event_type: &'static str,
        payload: bytes::Bytes,
        read_at: Option<StdInstant>,
    ) {
        let now = self.clock.now();
        let dropped = self.persistence.append(now, subject, event_type, payload, read_at);
        self.dropped(dropped);
        self.publisher.content().states().bridge_info_changed();
    }
}
