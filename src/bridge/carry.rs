//! What one turn of the loop does: inputs into the core, outputs carried out.
//!
//! May not wait for anything.

use std::time::Instant as StdInstant;

use tokio::time::Instant;

use super::{Bridge, OBSERVATIONS_TAKEN_MAX};
use crate::fleet::{DeviceEvent, GatewayEvent, GatewayIndex, Input, Output, Source};
use crate::gsdk::{LinkError, LinkEvent};
use crate::ids::Moment;
use crate::payload::{
    AcceptFilterInfo, BridgeEvent, BridgeEventKind, GatewayEventPayload, LastError, Subject,
    to_bytes,
};

impl Bridge {
    pub(super) fn take_up_observations(&mut self) {
        self.follow_the_wall();
        let mut batch = std::mem::take(&mut self.batch);
        for (gateway, observation) in batch.drain(..) {
            self.observed(gateway, observation);
        }
        batch.shrink_to(OBSERVATIONS_TAKEN_MAX);
        self.batch = batch;
    }

    fn observed(&mut self, gateway: GatewayIndex, event: LinkEvent) {
        match event {
            LinkEvent::Status { device_id, status, timestamp_s, received } => {
                let timestamp = Moment::from_millis(i64::from(timestamp_s) * 1000);
                let received_at = self.clock.at(received);
                let input = Input::Status { device_id, status, timestamp, received_at };
                self.step(gateway, input, Some(received));
            }
            LinkEvent::LinkUp { api_version, certificate_expires_at } => {
                self.fact(gateway, |facts| {
                    facts.package = Some(api_version.package().to_owned());
                    facts.certificate_expires_at = certificate_expires_at;
                });
                self.desired.link_up(gateway);
                self.step(gateway, Input::LinkUp, None);
            }
            LinkEvent::ListAsked => {
                self.desired.list_asked(gateway);
                self.step(gateway, Input::ListAsked, None);
            }
            LinkEvent::List(rows) => {
                self.fact(gateway, |facts| facts.last_error = None);
                self.listed(gateway, &rows);
                self.step(gateway, Input::List(rows), None);
            }
            LinkEvent::AcceptFilter(filter) => {
                self.filter_read(gateway, &filter);
                let device_count = filter.device_ids.len();
                let filter = AcceptFilterInfo { allow_all: filter.allow_all, device_count };
                self.fact(gateway, |facts| facts.accept_filter = Some(filter));
            }
            LinkEvent::ListFailed(error) => {
                // Said once: as long as it fails alike, it is in the gateway's info.
                let told = self.facts.get(gateway.0).and_then(|facts| facts.last_error.as_ref());
                if told.is_none_or(|told| told.message != *error.message) {
                    tracing::warn!("{error}");
                }
                self.failed(gateway, &error);
                self.step(gateway, Input::ListFailed, None);
            }
            LinkEvent::LinkDown { last_activity, error } => {
                self.failed(gateway, &error);
                let last_sign_of_life = self.clock.at(last_activity);
                self.step(gateway, Input::LinkDown { last_sign_of_life }, None);
            }
            LinkEvent::AttemptFailed(error) => self.failed(gateway, &error),
        }
    }

    fn failed(&mut self, gateway: GatewayIndex, error: &LinkError) {
        let error = LastError { code: error.code.to_string(), message: error.to_string() };
        self.fact(gateway, |facts| facts.last_error = Some(error));
    }

    fn fact(&mut self, gateway: GatewayIndex, set: impl FnOnce(&mut crate::payload::LinkFacts)) {
        let Some(facts) = self.facts.get_mut(gateway.0) else { return };
        let before = (facts.last_error.clone(), facts.package.clone());
        set(facts);
        if before == (facts.last_error.clone(), facts.package.clone()) {
            self.publisher.info_changed(gateway);
        } else {
            self.publisher.info_changed_at_once(gateway);
        }
    }

    /// The wall's clock may have been set, or the machine have slept: what is shown follows it.
    fn follow_the_wall(&mut self) {
        if let Some(by_ms) = self.clock.look() {
            let by_s = by_ms / 1_000;
            tracing::warn!(by_s, "the wall's clock jumped, or the machine slept: followed");
            self.fleet.wall_is_ahead(self.clock.ahead_ms());
        }
    }

    pub(super) fn step(
        &mut self,
        gateway: GatewayIndex,
        input: Input,
        read_at: Option<StdInstant>,
    ) {
        let mut out = std::mem::take(&mut self.out);
        self.fleet.step(self.clock.steady(), gateway, input, &mut out);
        self.carry_out(&mut out, read_at);
        self.out = out;
    }

    /// Does what is due by now.
    pub(super) fn wake(&mut self) {
        self.follow_the_wall();
        let mut out = std::mem::take(&mut self.out);
        self.fleet.wake(self.clock.steady(), &mut out);
        self.carry_out(&mut out, None);
        self.out = out;
        let now = Instant::now();
        // A full outbox would drop another event for the report, so it waits for the broker.
        let report = self.publisher.is_connected().then(|| self.losses.report(now)).flatten();
        if let Some(kind) = report {
            self.bridge_event(&kind);
        }
        self.give_again(now);
        self.wake_broker(now);
        self.requests.subscription.wake(now);
        if self.republish_at.is_some_and(|at| at <= now) {
            self.publisher.all_changed(&self.fleet);
            self.republish_at = self.republish_every.map(|every| now + every);
        }
    }

    /// When the loop has to turn although nothing comes in.
    pub(super) fn due(&self) -> Option<Instant> {
        let moments = [self.fleet.wake_at(), self.publisher.wake_at()];
        let moments = moments.into_iter().flatten().map(|at| self.clock.instant(at).into());
        let connected = self.publisher.is_connected();
        let losses = self.losses.due(Instant::now()).filter(|_| connected);
        let (giving, keeping) = (self.desired.due(), self.persistence.due());
        let broker = [self.broker.due(), self.retained.due()];
        let subscription = self.requests.subscription.due();
        let heartbeat = Some(self.heartbeat.next_due());
        let others = [self.republish_at, giving, keeping, subscription, heartbeat];
        let others = broker.into_iter().chain(others);
        moments.chain(losses).chain(others.flatten()).min()
    }

    /// `read_at`: when the status that led to this was read from the stream.
    pub(super) fn carry_out(&mut self, out: &mut Vec<Output>, read_at: Option<StdInstant>) {
        for output in out.drain(..) {
            match output {
                Output::Event(event) => {
                    self.status_page.device_event(&event);
                    let read_at = self.read_from_stream(&event, read_at);
                    self.persistence.device_event(event, read_at);
                }
                Output::GatewayEvent(gateway, event) => self.gateway_event(gateway, &event),
                Output::State { gateway, device_id } => {
                    self.persistence.touch(gateway, device_id);
                    self.status_page.device_changed(gateway, device_id);
                    self.publisher.device_changed(gateway, device_id);
                }
                Output::Store { gateway, device_id } => {
                    self.persistence.touch(gateway, device_id);
                }
                Output::Gateway(gateway) => self.publisher.gateway_changed(gateway),
                Output::Forgotten { gateway, device_id } => {
                    self.persistence.touch(gateway, device_id);
                    let gone = self.directory.gateway(gateway);
                    let outbox = self.persistence.outbox_mut();
                    self.publisher.device_forgotten(gateway, device_id, gone, outbox);
                }
                Output::ListGateway(gateway) => {
                    if let Some(link) = self.links.get(gateway.0) {
                        link.list_now();
                    }
                }
            }
        }
    }

    /// When an event was read from the stream; `None` for one that a list has shown.
    fn read_from_stream(
        &self,
        event: &DeviceEvent,
        read_at: Option<StdInstant>,
    ) -> Option<StdInstant> {
        // A status that waited until a list showed its device was read before that list.
        let steady = event.received_at.plus(-self.clock.ahead_ms());
        let is_from_stream = event.source == Source::Stream;
        is_from_stream.then(|| read_at.unwrap_or_else(|| self.clock.instant(steady)))
    }

    pub(super) fn gateway_event(&mut self, gateway: GatewayIndex, event: &GatewayEvent) {
        let Some(entry) = self.directory.gateway(gateway) else { return };
        let name = &entry.name;
        match event {
            GatewayEvent::Reachable => tracing::info!(gateway = %name, "its view is live"),
            GatewayEvent::Unreachable => {
                tracing::warn!(gateway = %name, "lost: its devices are unknown from now on");
            }
            GatewayEvent::Restored { what, count, .. } => {
                tracing::info!(gateway = %name, what, count, "added what was wanted and missing");
            }
            GatewayEvent::Withdrawn { what, count, .. } => {
                tracing::warn!(gateway = %name, what, count, "another client took it away");
            }
            GatewayEvent::Corrected { count } => {
                tracing::warn!(gateway = %name, count, "an audit found what the stream had lost");
            }
            GatewayEvent::Stranger { device_id, status } => {
                tracing::debug!(gateway = %name, %device_id, %status, "a stranger");
            }
        }
        self.numbered += 1;
        let at = self.clock.now();
        self.status_page.gateway_event(at, gateway, event);
        let payload = GatewayEventPayload::new(&self.directory, entry, self.numbered, at, event);
        let (subject, payload) = (Subject::Gateway(name.clone()), to_bytes(&payload));
        self.append(subject, event.name(), payload, None);
        if *event == GatewayEvent::Reachable {
            self.clear_stale_devices(gateway);
        }
    }

    pub(super) fn bridge_event(&mut self, kind: &BridgeEventKind) {
        self.numbered += 1;
        let event = BridgeEvent::new(&self.directory, self.numbered, self.clock.now(), kind);
        tracing::warn!(?kind, "told by the bridge");
        let payload = to_bytes(&event);
        self.append(Subject::Bridge, kind.name(), payload, None);
    }

    pub(super) fn append(
        &mut self,
        subject: Subject,
        event_type: &'static str,
        payload: bytes::Bytes,
        read_at: Option<StdInstant>,
    ) {
        let now = self.clock.now();
        let dropped = self.persistence.append(now, subject, event_type, payload, read_at);
        self.dropped(dropped);
        self.publisher.bridge_info_changed();
    }
}
