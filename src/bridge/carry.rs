//! What one turn of the loop does: inputs into the core, outputs carried out, messages sent.
//!
//! May not wait for anything.

use std::borrow::Cow;
use std::time::Instant as StdInstant;

use tokio::time::Instant;

use super::rivals::{STEP_BACK, Verdict};
use super::{BROKER_EVENTS_TAKEN_MAX, Bridge, OBSERVATIONS_TAKEN_MAX};
use crate::fleet::{GatewayEvent, GatewayIndex, Input, Output};
use crate::gateway::{LinkError, Observation};
use crate::ids::Moment;
use crate::mqtt::{
    self, Ack, Event, Generation, Kind, Message, Publish, PublishError, Session, View,
};
use crate::outbox::Record;
use crate::payload::{
    AcceptFilterInfo, BridgeEvent, BridgeEventKind, GatewayEventPayload, LastError, Subject,
    rfc3339, to_bytes,
};

impl Bridge {
    pub(super) fn take_up_observations(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        for (gateway, observation) in batch.drain(..) {
            self.observed(gateway, observation);
        }
        batch.shrink_to(OBSERVATIONS_TAKEN_MAX);
        self.batch = batch;
    }

    fn observed(&mut self, gateway: GatewayIndex, observation: Observation) {
        match observation {
            Observation::Status { device_id, status, timestamp_s, received } => {
                let timestamp = Moment::from_millis(i64::from(timestamp_s) * 1000);
                let received_at = self.clock.at(received);
                let input = Input::Status { device_id, status, timestamp, received_at };
                self.step(gateway, input, received);
            }
            Observation::LinkUp { package, certificate_expires_at } => {
                self.fact(gateway, |facts| {
                    facts.package = Some(package.to_string());
                    facts.certificate_expires_at = certificate_expires_at;
                });
                self.step(gateway, Input::LinkUp, StdInstant::now());
            }
            Observation::ListAsked => self.step(gateway, Input::ListAsked, StdInstant::now()),
            Observation::List(rows) => {
                self.fact(gateway, |facts| facts.last_error = None);
                self.step(gateway, Input::List(rows), StdInstant::now());
            }
            Observation::AcceptFilter(filter) => {
                let device_count = filter.device_ids.len();
                let filter = AcceptFilterInfo { allow_all: filter.allow_all, device_count };
                self.fact(gateway, |facts| facts.accept_filter = Some(filter));
            }
            Observation::ListFailed(error) => {
                // Said once: as long as it fails alike, it is in the gateway's info.
                let told = self.facts.get(gateway.0).and_then(|facts| facts.last_error.as_ref());
                if told.is_none_or(|told| told.message != *error.message) {
                    tracing::warn!("{error}");
                }
                self.failed(gateway, &error);
                self.step(gateway, Input::ListFailed, StdInstant::now());
            }
            Observation::LinkDown { last_sign_of_life, error } => {
                self.failed(gateway, &error);
                let last_sign_of_life = self.clock.at(last_sign_of_life);
                self.step(gateway, Input::LinkDown { last_sign_of_life }, StdInstant::now());
            }
            Observation::AttemptFailed(error) => self.failed(gateway, &error),
        }
    }

    fn failed(&mut self, gateway: GatewayIndex, error: &LinkError) {
        let error = LastError { code: error.code.to_owned(), message: error.to_string() };
        self.fact(gateway, |facts| facts.last_error = Some(error));
    }

    fn fact(&mut self, gateway: GatewayIndex, set: impl FnOnce(&mut crate::payload::LinkFacts)) {
        if let Some(facts) = self.facts.get_mut(gateway.0) {
            set(facts);
            self.publisher.info_changed(gateway);
        }
    }

    pub(super) fn step(&mut self, gateway: GatewayIndex, input: Input, read_at: StdInstant) {
        let mut out = std::mem::take(&mut self.out);
        self.fleet.step(self.clock.now(), gateway, input, &mut out);
        self.carry_out(&mut out, read_at);
        self.out = out;
    }

    /// Does what is due by now.
    pub(super) fn wake(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        self.fleet.wake(self.clock.now(), &mut out);
        self.carry_out(&mut out, StdInstant::now());
        self.out = out;
        let now = Instant::now();
        // Into a full outbox it would only drop one more: it waits until somebody takes events.
        let told = self.publisher.is_connected().then(|| self.losses.tell(now)).flatten();
        if let Some(kind) = told {
            self.bridge_event(&kind);
        }
        if self.session_again_at.is_some_and(|at| at <= now) {
            self.session_again_at = None;
            self.session = Some(mqtt::session::spawn(self.session_settings.clone()));
        }
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
        let others = [self.republish_at, self.session_again_at, self.keeper.due()];
        moments.chain(losses).chain(others.into_iter().flatten()).min()
    }

    pub(super) fn carry_out(&mut self, out: &mut Vec<Output>, read_at: StdInstant) {
        for output in out.drain(..) {
            match output {
                Output::Event(event) => {
                    self.touched.insert((event.gateway, event.device_id));
                    self.unwritten.push((event, read_at));
                }
                Output::GatewayEvent(gateway, event) => self.gateway_event(gateway, &event),
                Output::State { gateway, device_id } => {
                    self.touched.insert((gateway, device_id));
                    self.publisher.device_changed(gateway, device_id);
                }
                Output::Gateway(gateway) => self.publisher.gateway_changed(gateway),
                Output::Forgotten { gateway, device_id } => {
                    let gone = self.directory.gateway(gateway);
                    if let Some(entry) = gone {
                        self.outbox.forget(&entry.name, device_id);
                    }
                    self.publisher.device_forgotten(gateway, device_id, gone);
                }
                Output::ListGateway(gateway) => {
                    if let Some(link) = self.links.get(gateway.0) {
                        link.list_now();
                    }
                }
            }
        }
    }

    fn gateway_event(&mut self, gateway: GatewayIndex, event: &GatewayEvent) {
        let Some(entry) = self.directory.gateway(gateway) else { return };
        let name = &entry.name;
        match event {
            GatewayEvent::Reachable => tracing::info!(gateway = %name, "its view is live"),
            GatewayEvent::Unreachable => {
                tracing::warn!(gateway = %name, "lost: its devices are unknown from now on");
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
        let payload = GatewayEventPayload::new(&self.directory, entry, self.numbered, at, event);
        let (subject, payload) = (Subject::Gateway(name.clone()), to_bytes(&payload));
        self.append(subject, event.name(), payload, StdInstant::now());
    }

    pub(super) fn bridge_event(&mut self, kind: &BridgeEventKind) {
        self.numbered += 1;
        let event = BridgeEvent::new(&self.directory, self.numbered, self.clock.now(), kind);
        tracing::warn!(?kind, "told by the bridge");
        let payload = to_bytes(&event);
        self.append(Subject::Bridge, kind.name(), payload, StdInstant::now());
    }

    pub(super) fn append(
        &mut self,
        subject: Subject,
        event_type: &'static str,
        payload: bytes::Bytes,
        read_at: StdInstant,
    ) {
        let (event_type, read_at) = (Cow::Borrowed(event_type), Some(read_at));
        for dropped in self.outbox.append(Record { subject, event_type, payload, read_at }) {
            self.metrics.outbox_dropped.inc();
            self.losses.add(dropped);
        }
        self.publisher.bridge_info_changed();
    }

    /// Takes up an event of the broker's session, and what is ready behind it.
    pub(super) fn take_up_broker_events(&mut self, mut next: Option<Event>) {
        if next.is_none() {
            // It has let go in order, as it was told to.
            self.session = None;
        }
        for _ in 0..BROKER_EVENTS_TAKEN_MAX {
            match next {
                Some(event) => self.broker_said(event),
                None => break,
            }
            next = self.session.as_mut().and_then(Session::try_next);
        }
    }

    fn broker_said(&mut self, event: Event) {
        match event {
            Event::Connected(connected) => {
                self.metrics.mqtt_connections.inc();
                self.metrics.mqtt_connected.set(1);
                if !connected.retain_available {
                    tracing::warn!("the broker keeps no retained messages, so states are not seen");
                }
                let mut connection = connected.connection;
                // A last will that arrives late would stick: the bridge listens to its own topic.
                // So would a second bridge under this name: its info tells.
                let topics = self.publisher.topics();
                let own = vec![topics.bridge_state(), topics.bridge_info()];
                if let Err(error) = connection.subscribe(own) {
                    tracing::warn!("{error}");
                }
                self.connection = Some(connection);
                self.rivals.connected();
                self.publisher.connected(usize::from(connected.window), &self.fleet);
            }
            Event::Acked { generation, acks } => self.acknowledged(generation, &acks),
            Event::Subscribed { refused, .. } => {
                for (filter, reason) in refused {
                    tracing::warn!(filter, %reason, "the broker refused a subscription");
                }
            }
            Event::Message(message) => self.message(&message),
            Event::Disconnected { reason, .. } => {
                self.metrics.mqtt_connected.set(0);
                self.connection = None;
                self.broker_fault = reason;
                self.publisher.disconnected(&mut self.outbox);
            }
            Event::Unreachable { reason, .. } => self.broker_fault = reason,
        }
    }

    fn message(&mut self, message: &Message) {
        let topics = self.publisher.topics();
        if message.topic == topics.bridge_state() && message.payload == "offline" {
            self.publisher.offline_seen();
        } else if message.topic == topics.bridge_info() {
            self.info_heard(&message.payload);
        } else {
            self.requested(message);
        }
    }

    fn info_heard(&mut self, info: &[u8]) {
        let started_at = rfc3339(self.info.started_at);
        let ours = (self.info.instance_id.as_str(), started_at.as_str());
        let now = Instant::now();
        let verdict = self.rivals.heard(now, info, ours);
        let Some(reason) = self.rivals.reason(now).filter(|_| verdict != Verdict::Ourselves) else {
            return;
        };
        tracing::error!("{reason}");
        if verdict == Verdict::Stay {
            // Retained messages are not sent to who subscribes as we do: it has not heard us yet.
            self.publisher.bridge_info_again();
        }
        if verdict == Verdict::StepBack
            && let Some(connection) = self.connection.take()
        {
            // Without a word: `offline` would be said in the name of the other, too.
            connection.disconnect();
            self.metrics.mqtt_connected.set(0);
            self.publisher.disconnected(&mut self.outbox);
            self.broker_fault = reason;
            self.session_again_at = Some(now + STEP_BACK);
        }
    }

    fn acknowledged(&mut self, generation: Generation, acks: &[Ack]) {
        let current = self.connection.as_ref().is_some_and(|it| it.generation() == generation);
        if !current {
            return;
        }
        let now = self.clock.now();
        for ack in acks {
            let taken = ack.result.is_ok();
            let acknowledged = self.publisher.acknowledged(now, ack.token, taken, &mut self.outbox);
            let Some(acknowledged) = acknowledged else { continue };
            match ack.result {
                Ok(()) => self.metrics.published(acknowledged.kind.name()),
                Err(refusal) => {
                    let (kind, refusal) = (acknowledged.kind.name(), refusal.as_str());
                    if refusal == self.broker_refusal {
                        tracing::debug!(refusal, kind, "the broker did not take a message");
                    } else {
                        tracing::warn!(refusal, kind, "the broker did not take a message");
                    }
                    self.broker_refusal = refusal;
                    self.metrics.publish_failed(refusal);
                }
            }
            if let Some(read_at) = acknowledged.read_at {
                self.metrics.event_delivered(read_at.elapsed());
            }
            if acknowledged.kind == Kind::Event {
                self.publisher.bridge_info_changed();
            }
        }
    }

    /// Writes what there is to write, then sends what there is to send, as far as the window goes.
    pub(super) fn publish(&mut self) {
        self.write_down();
        self.info.outbox.pending = self.outbox.len();
        self.info.outbox.dropped = self.outbox.dropped();
        self.metrics.outbox_events.set(gauge(self.outbox.len()));
        self.metrics.outbox_bytes.set(gauge(self.outbox.bytes()));
        let now = self.clock.now();
        let Some(connection) = &mut self.connection else { return };
        let view = View {
            fleet: &self.fleet,
            directory: &self.directory,
            links: &self.facts,
            bridge: &self.info,
        };
        while let Some(outgoing) = self.publisher.next(now, &mut self.outbox, &view) {
            let token = outgoing.token;
            let content_type = outgoing.json.then_some("application/json");
            let publish = Publish {
                topic: outgoing.topic,
                payload: outgoing.payload,
                retain: outgoing.retain,
                content_type,
                correlation_data: outgoing.correlation_data,
                ..Publish::default()
            };
            let Err(error) = connection.publish(token, publish) else { continue };
            let (reason, hopeless) = match &error {
                // Its end is among the events that come; then all is sent again.
                PublishError::Closed => break,
                PublishError::Full { .. } => ("window_full", false),
                PublishError::TooLarge { .. } => ("packet_too_large", true),
                PublishError::RetainUnavailable => ("retain_unavailable", true),
                PublishError::Topic { .. } => ("topic_invalid", true),
            };
            tracing::debug!("{error}");
            self.metrics.publish_failed(reason);
            self.publisher.acknowledged(now, token, hopeless, &mut self.outbox);
        }
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
