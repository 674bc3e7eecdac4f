//! The session with the broker: its connection or the reason why there is none, sent messages, and
//! their results.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::clock::instant_now;
use super::dispatch::Reply;
use super::event_queue::LossCause;
use super::state::State;
use crate::commands::AnswerLimit;
use crate::mqtt::{
    self, Accepted, Ack, BrokerConnection, Connected, FILTERS_PER_PACKET, InfoOf, MessageKind,
    Refusal, Rejected, RetainHandling, Session, SessionEvent,
};
use crate::net::{CountedFailure, FailureLog};

/// Events handled in one iteration.
const EVENTS_TAKEN_MAX: usize = 16;

/// Filters to subscribe, and how.
pub(crate) type Filters = Vec<(String, RetainHandling)>;

/// Filters that match many retained messages.
pub(crate) fn wide_filters(
    filters: impl IntoIterator<Item = String>,
) -> impl Iterator<Item = (String, RetainHandling)> {
    filters.into_iter().map(|filter| (filter, RetainHandling::SendManyAtSubscribe))
}

/// The session with the broker.
#[derive(Debug)]
pub(crate) struct BrokerSession {
    settings: mqtt::SessionSettings,
    /// `None` while this bridge stays away.
    session: Option<Session>,
    connect_at: Option<Instant>,
    connection: Option<BrokerConnection>,
    /// Why there is no connection.
    fault: String,
    /// The fault names a configured file that cannot be read.
    is_file_missing: bool,
    /// The broker keeps no retained messages, according to its CONNACK or a refusal.
    retained_not_kept: bool,
    /// `mqtt.max_answer`.
    answer_max: usize,
    /// The packet size that the broker has announced.
    announced: Option<usize>,
    /// Subscriptions that the broker refused, by filter.
    refused_filters: FailureLog,
    dropped_answers: FailureLog,
}

impl BrokerSession {
    pub(crate) fn start(settings: mqtt::SessionSettings, answer_max: usize) -> Self {
        Self {
            session: Some(mqtt::session::spawn(settings.clone())),
            settings,
            connect_at: None,
            connection: None,
            fault: "no attempt has ended yet".to_owned(),
            is_file_missing: false,
            retained_not_kept: false,
            answer_max,
            announced: None,
            refused_filters: FailureLog::default(),
            dropped_answers: FailureLog::default(),
        }
    }

    /// Waits for events, and takes them. Cancel safe.
    pub(crate) async fn events(&mut self) -> Vec<SessionEvent> {
        let Some(session) = &mut self.session else { return pending().await };
        let mut events = Vec::new();
        session.next_many(&mut events, EVENTS_TAKEN_MAX).await;
        if events.is_empty() {
            // It has ended, as requested.
            self.session = None;
        }
        events
    }

    /// Whether this bridge stays away: events of the session that was given up are ignored.
    pub(crate) const fn is_given_up(&self) -> bool {
        self.session.is_none()
    }

    pub(crate) fn connected(&mut self, state: &mut State, connected: Connected) {
        state.metrics.mqtt.connections.inc();
        state.metrics.mqtt.connected.set(1);
        state.directory.info.connected_at = Some(state.clock.now());
        let connection = connected.connection;
        state.publisher.connected(usize::from(connection.window()), &state.fleet);
        let announced = connection.announced_packet_size();
        self.announced = announced.and_then(|size| usize::try_from(size).ok());
        self.is_file_missing = false;
        self.retained_not_kept = !connection.retain_available();
        self.connection = Some(connection);
    }

    /// The connection has ended, or is given up: then it is returned.
    pub(crate) fn disconnected(
        &mut self,
        state: &mut State,
        fault: String,
        closed_by_broker: bool,
    ) -> Option<BrokerConnection> {
        state.metrics.mqtt.connected.set(0);
        let (now, outbox) = (state.clock.steady(), state.persistence.events.outbox_mut());
        let set_aside = state.publisher.disconnected(now, closed_by_broker, outbox);
        if let Some(rejected) = set_aside {
            self.rejected(state, rejected);
        }
        self.fault = fault;
        self.connection.take()
    }

    /// An attempt to connect has failed.
    pub(crate) fn unreachable(&mut self, reason: String, is_file_missing: bool) {
        (self.fault, self.is_file_missing) = (reason, is_file_missing);
    }

    /// Gives the session up: another client was there before.
    pub(crate) fn give_up(&mut self, until: Instant) {
        self.session = None;
        self.connect_at = Some(until);
    }

    /// Connects again at this time, once the session has ended.
    pub(crate) const fn connect_at(&mut self, at: Instant) {
        self.connect_at = Some(at);
    }

    /// Connects again where it is time.
    pub(crate) fn wake(&mut self, now: Instant) {
        if self.connect_at.take_if(|at| *at <= now).is_some() {
            self.session = Some(mqtt::session::spawn(self.settings.clone()));
        }
    }

    /// When it connects again.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.connect_at
    }

    pub(crate) const fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Why there is no connection.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.connection.is_none().then_some(&self.fault)
    }

    /// The file that the connection waits for, and what to do.
    pub(crate) fn file_missing(&self) -> Option<&str> {
        self.is_file_missing.then_some(&self.fault)
    }

    pub(crate) const fn retained_not_kept(&self) -> bool {
        self.connection.is_some() && self.retained_not_kept
    }

    /// Subscribes to these filters in one packet.
    pub(crate) fn subscribe(&mut self, filters: Filters) {
        if let Some(connection) = &mut self.connection
            && !filters.is_empty()
            && let Err(error) = connection.subscribe(filters)
        {
            // The next connection subscribes again.
            tracing::debug!(%error, "cannot subscribe");
        }
    }

    /// Logs that the broker refused a subscription.
    pub(crate) fn subscription_refused(
        &mut self,
        filter: &str,
        reason: Refusal,
        is_expected: bool,
    ) {
        let CountedFailure { times, is_due } = self.refused_filters.count(filter);
        if is_due && !is_expected {
            tracing::warn!(filter, %reason, times, "subscription refused by the broker");
        } else {
            tracing::debug!(filter, %reason, times, "subscription refused by the broker");
        }
    }

    /// Unsubscribes. Filters that do not fit into the connection's queue stay subscribed; their
    /// messages are ignored.
    pub(crate) fn unsubscribe(&mut self, filters: &[String]) {
        if let Some(connection) = &mut self.connection {
            for filters in filters.chunks(FILTERS_PER_PACKET) {
                connection.unsubscribe(filters.to_vec());
            }
        }
    }

    /// Sends messages within the window.
    pub(crate) fn publish(&mut self, state: &mut State) {
        let Some(connection) = &mut self.connection else { return };
        let now = state.clock.steady();
        let State { fleet, directory, facts, publisher, persistence, .. } = state;
        let view = mqtt::View { fleet, directory, links: facts };
        let outbox = persistence.events.outbox_mut();
        while let Some((token, mut publish)) = publisher.next(now, outbox, &view) {
            // Where nothing is retained, present subscribers still get it.
            publish.retain &= !self.retained_not_kept;
            if connection.publish(token, publish).is_err() {
                // An event will report the end of the connection.
                publisher.not_sent(token);
                break;
            }
        }
    }

    /// The broker has accepted or refused messages. Those of a connection that was given up are
    /// unknown.
    pub(crate) fn acknowledged(&mut self, state: &mut State, acks: &[Ack]) {
        for &Ack { token, result } in acks {
            let (now, outbox) = (state.clock.steady(), state.persistence.events.outbox_mut());
            match state.publisher.acknowledged(now, token, result, outbox) {
                Some(Ok(Accepted { kind, read_at })) => {
                    state.metrics.mqtt.published(kind.as_str());
                    if let Some(read_at) = read_at {
                        let passed = instant_now().saturating_duration_since(read_at);
                        state.metrics.mqtt.event_delivered(passed);
                    }
                    if kind == MessageKind::Event {
                        state.publisher.content.infos().changed(InfoOf::Bridge);
                    }
                }
                Some(Err(rejected)) => self.rejected(state, rejected),
                None => {}
            }
        }
    }

    /// A message was not accepted: counts it, names it, and reports an event that is lost.
    fn rejected(&mut self, state: &mut State, rejected: Rejected) {
        let Rejected { kind, topic, refusal, is_new, lost } = rejected;
        // Not every broker announces it in its CONNACK.
        self.retained_not_kept |= refusal == Refusal::RETAIN_NOT_SUPPORTED;
        let (kind, reason) = (kind.as_str(), refusal.as_str());
        state.metrics.mqtt.publish_failed(reason);
        if is_new {
            let remedy = refusal.remedy();
            tracing::warn!(kind, topic, reason, remedy, "message refused by the broker");
        } else {
            tracing::debug!(kind, topic, reason, "message refused by the broker");
        }
        if let Some(event) = lost {
            state.persistence.events.lost(*event, LossCause::Refused);
            state.publisher.content.infos().changed(InfoOf::Bridge);
        }
    }

    /// The limit on the size of answers on this connection.
    pub(crate) fn answer_limit(&self) -> AnswerLimit {
        self.announced.map_or(AnswerLimit::Setting(self.answer_max), AnswerLimit::Announced)
    }

    /// Queues the answer to a request, and the event of a change.
    pub(crate) fn reply(&mut self, state: &mut State, reply: &Reply) {
        let (answer, result) = reply.answer(self.answer_limit());
        let (owner, command) = (&reply.requester.owner, reply.command());
        state.metrics.command(owner, command, result);
        if let Some(audit) = &reply.audit {
            state.command_event(owner, audit);
        }
        if let Err(dropped) = state.publisher.answer(answer) {
            let reason = dropped.as_str();
            let CountedFailure { times, is_due } = self.dropped_answers.count(reason);
            if is_due && self.is_connected() {
                tracing::warn!(gateway = owner, command, reason, times, "answers dropped");
            } else {
                tracing::debug!(gateway = owner, command, reason, "answer dropped");
            }
            state.metrics.mqtt.publish_failed(reason);
        }
    }

    /// Closes the connection without DISCONNECT, so that the broker publishes the last will.
    pub(crate) fn abort(&mut self) {
        tracing::warn!("the broker has not accepted offline; leaving it to the last will");
        (self.connection, self.session) = (None, None);
    }

    /// Disconnects; the future waits for the end of the session.
    pub(crate) fn disconnect(&mut self, deadline: Duration) -> impl Future<Output = ()> + use<> {
        let connection = self.connection.take().map(BrokerConnection::disconnect);
        let session = connection.and_then(|()| self.session.take());
        async move {
            let Some(mut session) = session else { return };
            let ended = async { while session.next().await.is_some() {} };
            if timeout(deadline, ended).await.is_err() {
                tracing::warn!("timed out waiting for MQTT disconnect");
            }
        }
    }
}
