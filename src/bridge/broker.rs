//! What the broker says, and what is sent to it.
//!
//! May not wait, nor decide what goes next: the publisher does.

use tokio::time::Instant;

use super::Bridge;
use super::clock::instant_now;
use super::memory::Memory;
use super::own_state::OwnState;
use super::request_subscription::RequestSubscription;
use crate::mqtt::{
    Ack, Acknowledged, Connection, Event, Generation, Kind, Publish, PublishError, Refusal, View,
};
use crate::payload::rfc3339;

impl Bridge {
    /// Takes up what the broker's session has told.
    pub(super) fn take_up_broker_events(&mut self) {
        let mut told = std::mem::take(&mut self.told);
        if told.is_empty() {
            // It has let go in order, as it was told to.
            self.session = None;
        }
        for event in told.drain(..) {
            self.broker_said(event);
        }
        self.told = told;
    }

    fn broker_said(&mut self, event: Event) {
        match event {
            Event::Connected(connected) => {
                self.metrics.mqtt_connections.inc();
                self.metrics.mqtt_connected.set(1);
                self.health.broker_file = None;
                self.health.retain_unavailable = !connected.retain_available;
                self.requests.broker_announced(connected.announced_packet_size());
                self.connection = Some(connected.connection);
                let before = self.info.connected_at.replace(self.clock.now());
                self.rivals.connected(before.map(rfc3339));
                self.read_memory();
                self.listen_for_home_assistant();
                self.publisher.connected(usize::from(connected.window), &self.fleet);
            }
            Event::Acked { generation, acks } => self.acknowledged(generation, &acks),
            Event::Subscribed { filters, refused, .. } => {
                self.memory_answered(&filters, &refused);
                let now = Instant::now();
                self.requests.subscription.acknowledged(now, &filters, &refused);
                for (filter, reason) in refused {
                    let of_discovery = filter == self.publisher.discovery_filter();
                    if of_discovery && !self.discovery.is_enabled() {
                        tracing::debug!(filter, %reason, "the broker refused a subscription");
                    } else {
                        tracing::warn!(filter, %reason, "the broker refused a subscription");
                    }
                }
            }
            Event::Message(message) => self.message(&message),
            Event::Disconnected { reason, closed_by_broker, .. } => {
                _ = self.connection_ended(reason, closed_by_broker);
            }
            Event::Unreachable { reason, file_missing, .. } => {
                self.health.broker_file = file_missing.then(|| reason.clone());
                self.broker_fault = reason;
            }
        }
    }

    /// There is no connection any more, for this reason; gives the one there was.
    pub(super) fn connection_ended(
        &mut self,
        reason: String,
        closed_by_broker: bool,
    ) -> Option<Connection> {
        self.metrics.mqtt_connected.set(0);
        self.memory = Memory::default();
        self.health.own_state = OwnState::default();
        self.requests.subscription = RequestSubscription::default();
        self.broker_fault = reason;
        self.publisher.disconnected(closed_by_broker, &mut self.outbox);
        self.connection.take()
    }

    fn acknowledged(&mut self, generation: Generation, acks: &[Ack]) {
        let current = self.connection.as_ref().is_some_and(|it| it.generation() == generation);
        if !current {
            return;
        }
        let now = self.clock.steady();
        for ack in acks {
            let outbox = &mut self.outbox;
            let acknowledged = self.publisher.acknowledged(now, ack.token, ack.result, outbox);
            let Some(acknowledged) = acknowledged else { continue };
            match ack.result {
                Ok(()) => self.metrics.published(acknowledged.kind.name()),
                Err(refusal) => self.message_refused(&acknowledged, refusal),
            }
            if let Some(read_at) = acknowledged.read_at {
                self.metrics.event_delivered(instant_now().saturating_duration_since(read_at));
            }
            if acknowledged.kind == Kind::Event {
                self.publisher.bridge_info_changed();
            }
        }
    }

    fn message_refused(&mut self, acknowledged: &Acknowledged, refusal: Refusal) {
        let topic = acknowledged.refused_at.clone().unwrap_or_default();
        let (kind, name) = (acknowledged.kind.name(), refusal.as_str());
        if name == self.broker_refusal {
            tracing::debug!(refusal = name, kind, topic, "the broker did not take a message");
        } else {
            let remedy = remedy(name);
            tracing::warn!(
                refusal = name,
                kind,
                topic,
                "the broker did not take a message; {remedy}"
            );
        }
        self.broker_refusal = name;
        self.metrics.publish_failed(name);
        let refusals = match acknowledged.kind {
            Kind::Discovery => &mut self.health.discovery_refusals,
            Kind::Event | Kind::State | Kind::Info => &mut self.health.refusals,
            // Where an answer goes is the requester's choice.
            Kind::Answer => return,
        };
        refusals.add(Instant::now(), topic, refusal);
    }

    /// Writes what there is to write, then sends what there is to send, as far as the window goes.
    pub(super) fn publish(&mut self) {
        self.write_down();
        self.requests.written_down();
        self.info.outbox.pending = self.outbox.len();
        self.info.outbox.dropped = self.outbox.dropped();
        self.metrics.outbox_events.set(gauge(self.outbox.len()));
        self.metrics.outbox_bytes.set(gauge(self.outbox.bytes()));
        let now = self.clock.steady();
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
                // Where nothing is kept, those who listen now still see it.
                retain: outgoing.retain && !self.health.retain_unavailable,
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
            if !hopeless || reason == self.broker_refusal {
                tracing::debug!("{error}");
            } else {
                tracing::warn!("{error}");
                self.broker_refusal = reason;
            }
            self.metrics.publish_failed(reason);
            if let PublishError::TooLarge { .. } = error {
                let lost = self.publisher.unfit(token, &self.directory, &mut self.outbox);
                if let Some(subject) = lost {
                    self.metrics.outbox_dropped.inc();
                    self.losses.add_too_large(subject);
                }
            }
            let result = if hopeless { Ok(()) } else { Err(Refusal::RECEIVE_MAXIMUM_EXCEEDED) };
            self.publisher.acknowledged(now, token, result, &mut self.outbox);
        }
    }
}

/// What mends it that a broker does not take a message.
fn remedy(refusal: &str) -> &'static str {
    match refusal {
        "not_authorized" => {
            "permit it to the bridge's user in the broker's access list, as deploy/mosquitto/acl \
             does"
        }
        "quota_exceeded" => "raise the broker's quota for the bridge's user",
        _ => "see the broker's log",
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
