//! What the broker says, and what is sent to it.
//!
//! May not wait, nor decide what goes next: the publisher does.

use tokio::time::Instant;

use super::Bridge;
use super::clock::instant_now;
use super::own_state::OwnState;
use super::request_subscription::RequestSubscription;
use super::retained_scan::RetainedScan;
use crate::mqtt::{Ack, Connection, Event, Generation, Kind, Publish, Refusal, Rejected, View};

impl Bridge {
    /// Takes up what the broker's session has told.
    pub(super) fn take_up_broker_events(&mut self) {
        let mut told = std::mem::take(&mut self.told);
        if told.is_empty() {
            // It has let go in order, as it was told to.
            self.session = None;
        }
        for event in told.drain(..) {
            if self.session.is_none() {
                // What follows is of a session that has been given up.
                break;
            }
            self.broker_said(event);
        }
        told.clear();
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
                self.info.connected_at = Some(self.clock.now());
                self.duplicates.connected(Instant::now());
                self.scan_retained();
                self.listen_for_home_assistant();
                self.publisher.connected(usize::from(connected.window), &self.fleet);
            }
            Event::Acked { generation, acks } => self.acknowledged(generation, &acks),
            Event::Subscribed { filters, refused, .. } => {
                self.scan_subscribed(&filters, &refused);
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
            Event::Disconnected { reason, taken_over, closed_by_broker, .. } => {
                _ = self.connection_ended(reason, closed_by_broker);
                self.make_way(taken_over);
            }
            Event::Unreachable { reason, file_missing, .. } => {
                self.health.broker_file = file_missing.then(|| reason.clone());
                self.broker_fault = reason;
            }
        }
    }

    /// The session has ended: connects again by itself, unless another client was there before.
    fn make_way(&mut self, taken_over: bool) {
        let now = Instant::now();
        if let Some(wait) = self.duplicates.disconnected(now, taken_over) {
            tracing::error!(?wait, "another client took over the session; trying again later");
            self.session = None;
            self.session_again_at = Some(now + wait);
        }
    }

    /// There is no connection any more, for this reason; gives the one there was.
    pub(super) fn connection_ended(
        &mut self,
        reason: String,
        closed_by_broker: bool,
    ) -> Option<Connection> {
        self.metrics.mqtt_connected.set(0);
        self.retained_scan = RetainedScan::default();
        self.health.own_state = OwnState::default();
        // Its answer would die with the connection.
        self.forget_scan = None;
        self.requests.subscription = RequestSubscription::default();
        self.broker_fault = reason;
        let outbox = self.persistence.outbox_mut();
        let set_aside = self.publisher.disconnected(closed_by_broker, &self.directory, outbox);
        if let Some(rejected) = set_aside {
            self.message_rejected(rejected);
        }
        self.connection.take()
    }

    fn acknowledged(&mut self, generation: Generation, acks: &[Ack]) {
        let current = self.connection.as_ref().is_some_and(|it| it.generation() == generation);
        if !current {
            return;
        }
        acks.iter().for_each(|ack| self.answered(ack.token, ack.result));
    }

    /// The broker has answered a message, or is known to refuse it.
    fn answered(&mut self, token: u64, result: Result<(), Refusal>) {
        let (now, outbox) = (self.clock.steady(), self.persistence.outbox_mut());
        let acknowledged = self.publisher.acknowledged(now, token, result, &self.directory, outbox);
        let Some(acknowledged) = acknowledged else { return };
        match acknowledged.rejected {
            None => self.metrics.published(acknowledged.kind.name()),
            Some(rejected) => self.message_rejected(rejected),
        }
        if let Some(read_at) = acknowledged.read_at {
            self.metrics.event_delivered(instant_now().saturating_duration_since(read_at));
        }
        if acknowledged.kind == Kind::Event {
            self.publisher.bridge_info_changed();
        }
    }

    /// A message was not accepted: counts it, names it, and reports an event that is lost.
    fn message_rejected(&mut self, rejected: Rejected) {
        let Rejected { kind, topic, rejection, is_new, lost } = rejected;
        // Not every broker says so in its CONNACK. What is sent again is not retained.
        self.health.retain_unavailable |= rejection.is_retain_not_supported();
        let (kind, reason) = (kind.name(), rejection.as_str());
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
            self.publisher.bridge_info_changed();
        }
    }

    /// Writes what there is to write, then sends what there is to send, as far as the window goes.
    pub(super) fn publish(&mut self) {
        self.persist();
        self.requests.written_down();
        let outbox = self.persistence.outbox();
        self.info.outbox.pending = outbox.len();
        self.info.outbox.dropped = outbox.dropped();
        self.metrics.outbox_events.set(gauge(outbox.len()));
        self.metrics.outbox_bytes.set(gauge(outbox.bytes()));
        // What is refused without being sent may be followed by other messages.
        loop {
            let refused = self.send_all();
            if refused.is_empty() {
                break;
            }
            refused.into_iter().for_each(|(token, refusal)| self.answered(token, Err(refusal)));
        }
    }

    /// Sends what there is to send, as far as the window goes; returns what was not sent, as the
    /// broker is known to refuse it.
    fn send_all(&mut self) -> Vec<(u64, Refusal)> {
        let mut refused = Vec::new();
        let now = self.clock.steady();
        let Some(connection) = &mut self.connection else { return refused };
        let view = View {
            fleet: &self.fleet,
            directory: &self.directory,
            links: &self.facts,
            bridge: &self.info,
        };
        while let Some(outgoing) = self.publisher.next(now, self.persistence.outbox_mut(), &view) {
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
            if let Err(error) = connection.publish(token, publish) {
                tracing::debug!("{error}");
                // Without a refusal the connection has ended, which is among the events that come.
                let Some(refusal) = error.refusal() else { break };
                refused.push((token, refusal));
            }
        }
        refused
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
