//! Routes what comes from the broker to the components, and what follows from one to another.

use tokio::time::Instant;

use super::Bridge;
use super::clock::instant_now;
use super::dispatch::BridgeRequester;
use super::duplicates::InfoAction;
use super::retained::{ForgetScan, Forgotten, Progress};
use crate::commands::{Failure, FailureCode, Outcome};
use crate::fleet::GatewayIndex;
use crate::ids::GatewayName;
use crate::mqtt::{Ack, Connection, Event, Generation, Kind, Message, Refusal, Rejected};
use crate::store::Key;

impl Bridge {
    /// Handles what the broker's session has reported.
    pub(crate) fn broker_events(&mut self) {
        while let Some(event) = self.broker.next_event() {
            self.broker_event(event);
        }
    }

    fn broker_event(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Connected(connected) => {
                self.metrics.mqtt_connections.inc();
                self.metrics.mqtt_connected.set(1);
                self.site.info.connected_at = Some(self.clock.now());
                self.dispatcher.broker_announced(connected.announced_packet_size());
                let window = usize::from(connected.window);
                self.broker.connected(now, connected);
                for filters in self.retained.connected(now, &self.publisher) {
                    self.broker.subscribe(filters);
                }
                self.publisher.connected(window, &self.site.fleet);
            }
            Event::Acked { generation, acks } => self.acknowledged(generation, &acks),
            Event::Subscribed { filters, refused, .. } => self.subscribed(now, &filters, refused),
            Event::Message(message) => self.message(now, &message),
            Event::Disconnected { reason, taken_over, closed_by_broker, .. } => {
                _ = self.connection_ended(reason, closed_by_broker);
                self.broker.make_way(now, taken_over);
            }
            Event::Unreachable { reason, file_missing, .. } => {
                self.broker.unreachable(reason, file_missing);
            }
        }
    }

    /// There is no connection any more, for this reason; returns the one there was.
    fn connection_ended(&mut self, reason: String, closed_by_broker: bool) -> Option<Connection> {
        self.metrics.mqtt_connected.set(0);
        self.retained.disconnected();
        let outbox = self.persistence.outbox_mut();
        let set_aside = self.publisher.disconnected(closed_by_broker, outbox);
        let connection = self.broker.disconnected(reason);
        if let Some(rejected) = set_aside {
            self.message_rejected(rejected);
        }
        connection
    }

    fn subscribed(&mut self, now: Instant, filters: &[String], refused: Vec<(String, Refusal)>) {
        let info = self.publisher.topics().bridge_info();
        let info_refused = refused.iter().any(|(filter, _)| *filter == info);
        let progress = self.retained.scan.subscribed(now, filters, info_refused);
        self.scan_progressed(progress);
        self.broker.requests.acknowledged(now, filters, &refused);
        let discovery = self.publisher.discovery().filter();
        for (filter, reason) in refused {
            if filter == discovery && !self.retained.home_assistant.is_enabled() {
                tracing::debug!(filter, %reason, "the broker refused a subscription");
            } else {
                tracing::warn!(filter, %reason, "the broker refused a subscription");
            }
        }
    }

    fn message(&mut self, now: Instant, message: &Message) {
        if !self.broker.is_connected() {
            // It is of a session that was given up.
            return;
        }
        let topics = self.publisher.topics();
        if message.topic == topics.bridge_state() {
            let is_online = self.publisher.is_online();
            self.broker.own_state.received(&message.payload, message.retain, is_online);
            if message.payload == "offline" {
                self.publisher.publish_online_again();
            }
        } else if message.topic == topics.bridge_info() {
            self.info_received(now, message);
        } else {
            self.retained.received(now, message, &mut self.publisher, &self.site.directory);
            self.requested(message);
        }
    }

    fn info_received(&mut self, now: Instant, message: &Message) {
        let (retained, checking) = (message.retain, self.publisher.is_checking());
        match self.broker.duplicates.received(now, retained, &message.payload, checking) {
            InfoAction::Own if !retained => {
                let needs_check = self.broker.duplicates.needs_check();
                let own = self.publisher.topics().own();
                let progress = self.retained.scan.own_info_received(now, needs_check, &own);
                self.scan_progressed(progress);
            }
            InfoAction::Own | InfoAction::Ignore => {}
            InfoAction::Answer => {
                tracing::error!("another bridge has connected under this name; answering it");
                self.publisher.content().states().bridge_info_again();
            }
            InfoAction::StepBack => {
                let Some(reason) = self.broker.step_back(now) else { return };
                // Closed without a word: `offline` would be said in the name of the other instance.
                if let Some(connection) = self.connection_ended(reason, false) {
                    connection.disconnect();
                }
            }
        }
    }

    /// The scan of what the broker retains has come further.
    pub(crate) fn scan_progressed(&mut self, progress: Progress) {
        let Progress { publish_info, unsubscribe, check_passed, is_read } = progress;
        if publish_info {
            self.publisher.content().states().bridge_info_again();
        }
        self.broker.unsubscribe(unsubscribe);
        if check_passed {
            self.broker.duplicates.passed();
            self.publisher.start_full_publish(&self.site.fleet);
        }
        if is_read {
            let forgotten = self.retained.read(&mut self.publisher);
            for gateway in self.site.fleet.gateways() {
                self.clear_stale_devices(gateway);
            }
            if let Some(forgotten) = forgotten {
                self.gateway_forgotten(forgotten);
            }
        }
    }

    /// Does what is due by now.
    pub(crate) fn wake_broker(&mut self, now: Instant) {
        let progress = self.retained.scan.wake(now);
        self.scan_progressed(progress);
        if self.retained.home_assistant.wake(now) {
            self.publisher.content().discovery_mut().home_assistant_started(&self.site.fleet);
        }
        if let Some(forgotten) = self.retained.forget_timed_out(now) {
            self.gateway_forgotten(forgotten);
        }
        self.broker.subscribe(self.retained.next_scan(&self.publisher));
        if self.broker.duplicates.settle(now) {
            self.publisher.content().set_settled();
        }
        if self.broker.wake(now, self.publisher.is_online()) {
            self.publisher.publish_online_again();
        }
        if !self.retained.stale_topics.gone().is_empty() && self.publisher.content().is_cleared() {
            for gateway in self.retained.stale_topics.take_gone() {
                self.persistence.set(Key::Gateway(gateway), None);
            }
        }
    }

    /// The devices of a gateway are known: others found under its name are cleared.
    pub(crate) fn clear_stale_devices(&mut self, gateway: GatewayIndex) {
        let stale_topics = &mut self.retained.stale_topics;
        for device_id in stale_topics.take_stale(gateway, &self.site.fleet, &self.site.directory) {
            let Some(entry) = self.site.directory.gateway(gateway) else { continue };
            tracing::info!(gateway = %entry.name, %device_id, "clearing a stale device");
            let outbox = self.persistence.outbox_mut();
            self.publisher.content().device_removed(gateway, device_id, entry, outbox);
        }
    }

    /// Forgets a gateway that is not configured: what the broker retains of it is read first.
    pub(crate) fn forget_gateway(&mut self, gateway: GatewayName, requester: BridgeRequester) {
        let scan = ForgetScan::new(gateway, requester, Instant::now());
        if let Some(scan) = self.retained.forget(scan) {
            let message = "another gateway is being forgotten; ask again when that is answered";
            let outcome = Outcome::failed(Failure::new(FailureCode::RateLimited, message));
            self.gateway_forgotten(scan.refused(outcome));
        }
    }

    fn gateway_forgotten(&mut self, forgotten: Forgotten) {
        let Forgotten { gateway, requester, outcome, device_ids, topics } = forgotten;
        self.publisher.content().clearing().clear_at_once(topics, self.persistence.outbox_mut());
        self.answer_bridge(requester, Some(&gateway), outcome, &device_ids);
    }

    fn acknowledged(&mut self, generation: Generation, acks: &[Ack]) {
        if self.broker.is_current(generation) {
            acks.iter().for_each(|ack| self.answered(ack.token, ack.result));
        }
    }

    /// The broker has answered a message, or is known to refuse it.
    fn answered(&mut self, token: u64, result: Result<(), Refusal>) {
        let (now, outbox) = (self.clock.steady(), self.persistence.outbox_mut());
        let acknowledged = self.publisher.acknowledged(now, token, result, outbox);
        let Some(acknowledged) = acknowledged else { return };
        match acknowledged.rejected {
            None => self.metrics.published(acknowledged.kind.as_str()),
            Some(rejected) => self.message_rejected(rejected),
        }
        if let Some(read_at) = acknowledged.read_at {
            self.metrics.event_delivered(instant_now().saturating_duration_since(read_at));
        }
        if acknowledged.kind == Kind::Event {
            self.publisher.content().states().bridge_info_changed();
        }
    }

    /// A message was not accepted: counts it, names it, and reports an event that is lost.
    fn message_rejected(&mut self, rejected: Rejected) {
        let Rejected { kind, topic, rejection, is_new, lost } = rejected;
        if rejection.is_retain_not_supported() {
            self.broker.retain_refused();
        }
        let (kind, reason) = (kind.as_str(), rejection.as_str());
        self.metrics.publish_failed(reason);
        if is_new {
            let remedy = rejection.remedy();
            tracing::warn!(kind, topic, reason, "message refused by the broker; {remedy}");
        } else {
            tracing::debug!(kind, topic, reason, "message refused by the broker");
        }
        if let Some(subject) = lost {
            self.metrics.outbox_dropped.inc();
            self.losses.add_refused(subject);
            self.publisher.content().states().bridge_info_changed();
        }
    }

    /// Stores what this iteration has changed, then sends what there is to send, as far as the
    /// window goes.
    pub(crate) fn publish(&mut self) {
        self.persist();
        self.dispatcher.persisted();
        let outbox = self.persistence.outbox();
        self.site.info.outbox.pending = outbox.len();
        self.site.info.outbox.dropped = outbox.dropped();
        self.metrics.outbox_events.set(gauge(outbox.len()));
        self.metrics.outbox_bytes.set(gauge(outbox.bytes()));
        let now = self.clock.steady();
        // What is refused without being sent may be followed by other messages.
        loop {
            let view = self.site.view();
            let outbox = self.persistence.outbox_mut();
            let refused = self.broker.send(now, &mut self.publisher, outbox, &view);
            if refused.is_empty() {
                break;
            }
            refused.into_iter().for_each(|(token, refusal)| self.answered(token, Err(refusal)));
        }
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
