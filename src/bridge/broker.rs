//! Applies the events of the broker session and its messages: on the bridge's own topics, retained
//! messages, Home Assistant's, and requests.

use std::time::Duration;

use tokio::time::Instant;

use super::confirmations::{OwnState, RequestSubscriptions};
use super::dispatch::BridgeRequest;
use super::duplicates::{DuplicateDetector, InfoAction};
use super::retained::{ForgetRequest, RetainedScan, StaleTopics};
use super::session::{BrokerSession, Filters, wide_filters};
use super::state::State;
use crate::config::Config;
use crate::ids::GatewayName;
use crate::mqtt::{
    self, BrokerConnection, Connected, FILTERS_PER_PACKET, InfoOf, Message, Refusal,
    RetainHandling, SessionEvent,
};
use crate::net::{CountedFailure, FailureLog};
use crate::payload::BridgeEventKind;

/// The payload with which Home Assistant announces its start.
const BIRTH: &[u8] = b"online";
/// The longest delay before discovery is published again: not all bridges at one moment.
const JITTER_MS: u64 = 5_000;

/// The broker, and those that read its messages.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) session: BrokerSession,
    pub(crate) duplicates: DuplicateDetector,
    pub(crate) own_state: OwnState,
    pub(crate) requests: RequestSubscriptions,
    scan: RetainedScan,
    pub(crate) stale_topics: StaleTopics,
    /// The topic of Home Assistant's state, if discovery is published.
    home_assistant_topic: Option<String>,
    /// When Home Assistant's start is followed by discovery.
    discovery_at: Option<Instant>,
    forget: Option<ForgetRequest>,
    /// How often everything is published again.
    republish_every: Option<Duration>,
    republish_at: Option<Instant>,
    answered_infos: FailureLog,
}

impl Broker {
    pub(crate) fn start(
        config: &Config,
        settings: mqtt::SessionSettings,
        instance_id: String,
    ) -> Self {
        let republish_every = config.mqtt.republish_interval;
        let home_assistant_topic = Some(config.home_assistant.status_topic.clone());
        let home_assistant_topic = home_assistant_topic.filter(|_| config.home_assistant.enabled);
        Self {
            session: BrokerSession::start(settings, config.mqtt.max_answer_bytes),
            duplicates: DuplicateDetector::new(instance_id),
            own_state: OwnState::default(),
            requests: RequestSubscriptions::new(!config.commands.allow.is_empty()),
            scan: RetainedScan::default(),
            stale_topics: StaleTopics::default(),
            home_assistant_topic,
            discovery_at: None,
            forget: None,
            republish_every,
            republish_at: republish_every.map(|every| Instant::now() + every),
            answered_infos: FailureLog::default(),
        }
    }

    /// Applies an event of the session. Returns a message that may be a request.
    pub(crate) fn handle(&mut self, state: &mut State, event: SessionEvent) -> Option<Message> {
        let now = Instant::now();
        match event {
            _ if self.session.is_given_up() => {}
            SessionEvent::Connected(connected) => self.connected(state, now, connected),
            SessionEvent::Acked(acks) => self.session.acknowledged(state, &acks),
            SessionEvent::Subscribed { filters, refused } => {
                self.subscribed(state, now, &filters, &refused);
            }
            SessionEvent::Message(message) => return self.message(state, now, message),
            SessionEvent::Disconnected { reason, taken_over, closed_by_broker, .. } => {
                _ = self.disconnected(state, reason, closed_by_broker);
                // It connects again by itself, unless another client was there before.
                if let Some(wait) = self.duplicates.disconnected(now, taken_over) {
                    let message = "another client took over the session; trying again later";
                    tracing::error!(?wait, message);
                    self.session.give_up(now + wait);
                }
            }
            SessionEvent::Unreachable { reason, file_missing } => {
                self.session.unreachable(reason, file_missing);
            }
        }
        None
    }

    fn connected(&mut self, state: &mut State, now: Instant, connected: Connected) {
        self.session.connected(state, connected);
        self.duplicates.connected(now);
        let topics = state.publisher.topics();
        let own = topics.own().into_iter();
        let mut filters: Filters =
            own.map(|topic| (topic, RetainHandling::SendAtSubscribe)).collect();
        if self.stale_topics.is_wanted() {
            filters.extend(wide_filters(topics.retained_filters()));
        }
        if state.publisher.content.discovery.wants_scan() {
            filters.extend(wide_filters([state.publisher.discovery().filter()]));
        }
        let names = filters.iter().map(|(filter, _)| filter.clone()).collect();
        self.scan = RetainedScan::Subscribing(names);
        self.session.subscribe(filters);
        let status = self.home_assistant_topic.clone().map(|it| (it, RetainHandling::DoNotSend));
        self.session.subscribe(status.into_iter().collect());
        for filters in StaleTopics::cleared_infos(state).chunks(FILTERS_PER_PACKET) {
            self.session.subscribe(filters.to_vec());
        }
    }

    /// There is no connection any more, for this reason; returns the one there was.
    fn disconnected(
        &mut self,
        state: &mut State,
        reason: String,
        closed_by_broker: bool,
    ) -> Option<BrokerConnection> {
        self.own_state = OwnState::default();
        self.requests.reset();
        self.scan = RetainedScan::default();
        let connection = self.session.disconnected(state, reason, closed_by_broker);
        if let Some(forget) = self.forget.take() {
            // There is no connection for its answer, but it is reported as an event.
            self.session.reply(state, &forget.interrupted());
        }
        connection
    }

    fn subscribed(
        &mut self,
        state: &mut State,
        now: Instant,
        filters: &[String],
        refused: &[(String, Refusal)],
    ) {
        let discovery = state.publisher.discovery().filter();
        if self.scan.subscribed(now, filters) {
            let info = state.publisher.topics().bridge_info();
            if refused.iter().any(|(filter, _)| *filter == info) {
                self.duplicates.set_unreadable();
                self.end_check(state, now);
            } else {
                state.publisher.content.infos().again(InfoOf::Bridge);
            }
            // A broker without Home Assistant may refuse discovery's topics.
            let is_unreadable = refused.iter().any(|(filter, _)| *filter != discovery);
            if let Some(forget) = self.forget.take_if(|it| is_unreadable && it.is_started()) {
                self.session.reply(state, &forget.unreadable());
            }
        }
        self.requests.acknowledged(now, filters, refused);
        self.own_state.acknowledged(&state.publisher.topics().own(), refused);
        for (filter, reason) in refused {
            let is_expected = *filter == discovery && self.home_assistant_topic.is_none();
            self.session.subscription_refused(filter, *reason, is_expected);
        }
    }

    fn message(&mut self, state: &mut State, now: Instant, message: Message) -> Option<Message> {
        let topics = state.publisher.topics();
        self.scan.message_received(now, message.retain);
        if !self.session.is_connected() {
            // It is of a connection that was given up.
        } else if message.topic == topics.bridge_state() {
            let is_online = state.publisher.is_online();
            self.own_state.received(&message.payload, message.retain, is_online);
            if message.payload != "online" {
                state.publisher.publish_online_again();
            }
        } else if message.topic == topics.bridge_info() {
            self.info_received(state, now, &message);
        } else {
            self.stale_topics.received(&message, state);
            let State { publisher, directory, .. } = state;
            let Message { topic, payload, retain, .. } = &message;
            if *retain {
                publisher.content.discovery.found(directory, topic, payload);
            } else if Some(topic) == self.home_assistant_topic.as_ref() && payload == BIRTH {
                let jitter = Duration::from_millis(fastrand::u64(0..JITTER_MS));
                self.discovery_at.get_or_insert(now + jitter);
            }
            if let Some(forget) = &mut self.forget {
                forget.received(&message, publisher, &directory.info.bridge);
            }
            return Some(message);
        }
        None
    }

    fn info_received(&mut self, state: &mut State, now: Instant, message: &Message) {
        match self.duplicates.received(now, message.retain, &message.payload) {
            InfoAction::Own => self.end_scan(state, now, true),
            InfoAction::Ignore => {}
            InfoAction::StepBack => {
                let Some(reason) = self.duplicates.fault(now) else { return };
                let wait = self.duplicates.step_back();
                tracing::error!(?wait, reason, "another bridge has the same name; retrying later");
                self.session.connect_at(now + wait);
                // Closed without `offline`, which would be wrong for the other instance.
                if let Some(connection) = self.disconnected(state, reason, false) {
                    connection.disconnect();
                }
            }
        }
    }

    /// Ends the scan that reads, if there is one; `is_complete`: everything that is retained and
    /// matches its filters was read.
    fn end_scan(&mut self, state: &mut State, now: Instant, is_complete: bool) {
        let Some(mut filters) = self.scan.end() else { return };
        if is_complete {
            self.duplicates.retained_read(now);
            self.stale_topics.retained_read();
        } else {
            self.duplicates.set_unreadable();
        }
        self.end_check(state, now);
        let own = state.publisher.topics().own();
        filters.retain(|filter| !own.contains(filter));
        self.session.unsubscribe(&filters);
        state.publisher.content.discovery.scan_ended(is_complete);
        if let Some(forget) = self.forget.take_if(|it| it.is_started()) {
            let reply = if is_complete { forget.finish(state) } else { forget.unreadable() };
            self.session.reply(state, &reply);
        }
    }

    /// Publishes everything, once it is known that no other instance of this bridge is connected.
    fn end_check(&mut self, state: &mut State, now: Instant) {
        if self.duplicates.take_passed(now) {
            if let from @ Some(_) = self.duplicates.take_ended_chain() {
                let to = state.directory.info.chain.clone();
                let reason = "the state directory was empty at the start".to_owned();
                state.bridge_event(&BridgeEventKind::ChainReset { from, to, reason });
            }
            if self.own_state.is_outdated() {
                state.publisher.content.states.set_offline();
            }
            state.publisher.start_full_publish(&state.fleet);
        }
    }

    /// Starts another scan, if one is needed.
    fn scan_again(&mut self, state: &mut State) {
        if !self.scan.is_idle() || state.publisher.is_checking() {
            return;
        }
        let filters = if state.publisher.take_discovery_scan() {
            vec![state.publisher.discovery().filter()]
        } else if let Some(forget) = self.forget.as_mut().filter(|it| !it.is_started()) {
            forget.start(&state.publisher)
        } else {
            return;
        };
        self.scan = RetainedScan::Subscribing(filters.clone());
        self.session.subscribe(wide_filters(filters).collect());
    }

    /// Forgets a gateway that is not configured: what the broker retains of it is read first.
    pub(crate) fn forget(
        &mut self,
        state: &mut State,
        gateway: GatewayName,
        request: BridgeRequest,
    ) {
        if self.forget.is_some() {
            return self.session.reply(state, &ForgetRequest::busy(request));
        }
        self.forget = Some(ForgetRequest::new(gateway, request));
    }

    /// Does what is due by now.
    pub(crate) fn wake(&mut self, state: &mut State, now: Instant) {
        if self.scan.due().is_some_and(|at| at <= now) {
            self.end_scan(state, now, false);
        }
        self.end_check(state, now);
        if self.discovery_at.take_if(|at| *at <= now).is_some() {
            tracing::info!("Home Assistant has started: publishing discovery and states again");
            state.publisher.content.discovery.home_assistant_started(&state.fleet);
        }
        self.scan_again(state);
        if self.duplicates.take_answer(now) {
            let message = "another client published this bridge's info; answering it";
            let CountedFailure { times, is_due } = self.answered_infos.count(message);
            if is_due {
                tracing::error!(times, message);
            }
            state.publisher.content.infos().again(InfoOf::Bridge);
        }
        let is_settled = self.duplicates.settle(now);
        state.directory.info.established = self.duplicates.is_established();
        if is_settled {
            state.publisher.content.set_settled();
            state.publisher.content.infos().changed(InfoOf::Bridge);
        }
        self.session.wake(now);
        self.requests.wake(now);
        if self.own_state.wake(now, state.publisher.is_online()) {
            let refused = self.own_state.take_refused().into_iter();
            self.session.subscribe(refused.map(|it| (it, RetainHandling::DoNotSend)).collect());
            if !self.own_state.is_seen() {
                state.publisher.publish_online_again();
            }
        }
        if self.republish_at.is_some_and(|at| at <= now) {
            self.republish_at = self.republish_every.map(|every| now + every);
            state.publisher.all_changed(&state.fleet);
            state.publisher.content.discovery.interval_elapsed(&state.fleet);
        }
        self.stale_topics.clear(state);
    }

    /// When there is something to do although nothing comes in.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (own_state, requests) = (self.own_state.due(), self.requests.due());
        let session = [self.session.due(), self.duplicates.due(), own_state, requests];
        let others = [self.scan.due(), self.discovery_at, self.republish_at];
        session.into_iter().chain(others).flatten().min()
    }

    /// Subscribes to the requests to all gateways, once `online` is published; `is_changed`: there
    /// are others than before.
    pub(crate) fn subscribe_requests(&mut self, state: &State, is_changed: bool) {
        if state.publisher.is_online() && (is_changed || !self.requests.is_started()) {
            let owners = state.directory.gateways.values().map(|entry| &entry.name);
            let filters = state.publisher.topics().request_filters(owners);
            let forgotten = self.requests.sync(filters);
            self.session.unsubscribe(&forgotten);
        }
        if self.session.is_connected()
            && let Some(filters) = self.requests.next_packet()
        {
            let handling = RetainHandling::DoNotSendAsPublished;
            self.session.subscribe(filters.into_iter().map(|it| (it, handling)).collect());
        }
    }
}
