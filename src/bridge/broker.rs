//! Applies the events of the broker session and its messages: on the bridge's own topics, retained
//! messages, Home Assistant's, and requests.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::confirmations::{OwnState, RequestSubscription};
use super::dispatch::BridgeRequest;
use super::duplicates::{DuplicateDetector, InfoAction};
use super::home_assistant::HomeAssistantWatch;
use super::retained::{ForgetScan, StaleTopics};
use super::scan::{Progress, Scan};
use super::session::{BrokerSession, Filters};
use super::state::State;
use crate::commands::{Failure, FailureCode, Outcome};
use crate::config::Config;
use crate::ids::GatewayName;
use crate::mqtt::{
    self, BrokerConnection, Connected, Message, Refusal, RetainHandling, SessionEvent,
};

/// The broker, and those that read its messages.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) session: BrokerSession,
    pub(crate) duplicates: DuplicateDetector,
    pub(crate) own_state: OwnState,
    /// The subscription to requests.
    pub(crate) requests: RequestSubscription,
    scan: Scan,
    pub(crate) stale_topics: StaleTopics,
    home_assistant: HomeAssistantWatch,
    forget: Option<ForgetScan>,
    /// How often everything is published again.
    republish_every: Option<Duration>,
    republish_at: Option<Instant>,
}

impl Broker {
    pub(crate) fn start(
        config: &Config,
        settings: mqtt::SessionSettings,
        instance_id: String,
    ) -> Self {
        let republish_every = config.mqtt.republish_interval;
        Self {
            session: BrokerSession::start(settings, config.mqtt.max_answer_bytes),
            duplicates: DuplicateDetector::new(instance_id),
            own_state: OwnState::default(),
            requests: RequestSubscription::default(),
            scan: Scan::default(),
            stale_topics: StaleTopics::default(),
            home_assistant: HomeAssistantWatch::new(&config.home_assistant),
            forget: None,
            republish_every,
            republish_at: republish_every.map(|every| Instant::now() + every),
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
            SessionEvent::Unreachable { reason, file_missing, .. } => {
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
            filters.extend(many(topics.retained_filters()));
        }
        if self.home_assistant.wants_scan() {
            filters.extend(many([state.publisher.discovery().filter()]));
        }
        let names = filters.iter().map(|(filter, _)| filter.clone()).collect();
        self.scan.start_session(now, names);
        self.session.subscribe(filters);
        let status = self.home_assistant.connected();
        let status = status.map(|topic| (topic.to_owned(), RetainHandling::DoNotSend));
        self.session.subscribe(status.into_iter().collect());
    }

    /// There is no connection any more, for this reason; returns the one there was.
    fn disconnected(
        &mut self,
        state: &mut State,
        reason: String,
        closed_by_broker: bool,
    ) -> Option<BrokerConnection> {
        self.own_state = OwnState::default();
        self.requests = RequestSubscription::default();
        self.scan = Scan::default();
        self.forget = None;
        self.session.disconnected(state, reason, closed_by_broker)
    }

    fn subscribed(
        &mut self,
        state: &mut State,
        now: Instant,
        filters: &[String],
        refused: &[(String, Refusal)],
    ) {
        let info = state.publisher.topics().bridge_info();
        let info_refused = refused.iter().any(|(filter, _)| *filter == info);
        let progress = self.scan.subscribed(now, filters, info_refused);
        self.scan_progressed(state, progress);
        self.requests.acknowledged(now, filters, refused);
        let discovery = state.publisher.discovery().filter();
        for (filter, reason) in refused {
            if *filter == discovery && !self.home_assistant.is_enabled() {
                tracing::debug!(filter, %reason, "subscription refused by the broker");
            } else {
                tracing::warn!(filter, %reason, "subscription refused by the broker");
            }
        }
    }

    fn message(&mut self, state: &mut State, now: Instant, message: Message) -> Option<Message> {
        let topics = state.publisher.topics();
        if !self.session.is_connected() {
            // It is of a connection that was given up.
        } else if message.topic == topics.bridge_state() {
            let is_online = state.publisher.is_online();
            self.own_state.received(&message.payload, message.retain, is_online);
            if message.payload == "offline" {
                state.publisher.publish_online_again();
            }
        } else if message.topic == topics.bridge_info() {
            self.info_received(state, now, &message);
        } else {
            let State { publisher, directory, .. } = state;
            self.stale_topics.received(&message, publisher.topics(), directory);
            self.home_assistant.received(now, &message);
            let Message { topic, payload, retain, .. } = &message;
            if *retain && publisher.content().discovery_mut().found(directory, topic, payload) {
                self.home_assistant.stale_found();
            }
            if let Some(forget) = &mut self.forget {
                forget.received(&message, publisher);
            }
            return Some(message);
        }
        None
    }

    fn info_received(&mut self, state: &mut State, now: Instant, message: &Message) {
        let (retained, checking) = (message.retain, state.publisher.is_checking());
        match self.duplicates.received(now, retained, &message.payload, checking) {
            InfoAction::Own if !retained => {
                let needs_check = self.duplicates.needs_check();
                let own = state.publisher.topics().own();
                let progress = self.scan.own_info_received(now, needs_check, &own);
                self.scan_progressed(state, progress);
            }
            InfoAction::Own | InfoAction::Ignore => {}
            InfoAction::Answer => {
                tracing::error!("another bridge with the same name has connected; answering it");
                state.publisher.content().states().bridge_info_again();
            }
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

    /// The scan of what the broker retains has come further.
    fn scan_progressed(&mut self, state: &mut State, progress: Progress) {
        let Progress { publish_info, unsubscribe, check_passed, is_read } = progress;
        if publish_info {
            state.publisher.content().states().bridge_info_again();
        }
        self.session.unsubscribe(unsubscribe);
        if check_passed {
            self.duplicates.passed();
            state.publisher.start_full_publish(&state.fleet);
        }
        if is_read {
            self.stale_topics.read();
            state.publisher.content().discovery_mut().retained_read();
            self.home_assistant.read();
            if let Some(forget) = self.forget.take_if(|it| it.is_started()) {
                let reply = forget.finish(state);
                self.session.reply(state, &reply);
            }
        }
    }

    /// Starts another scan, if one is needed.
    fn scan_again(&mut self, state: &State) {
        if !self.scan.is_idle() {
            return;
        }
        let filters = if self.home_assistant.take_scan_again(state.publisher.discovery_is_idle()) {
            vec![state.publisher.discovery().filter()]
        } else if let Some(forget) = self.forget.as_mut().filter(|it| !it.is_started()) {
            forget.start(&state.publisher)
        } else {
            return;
        };
        self.scan.start(filters.clone());
        self.session.subscribe(many(filters).collect());
    }

    /// Forgets a gateway that is not configured: what the broker retains of it is read first.
    pub(crate) fn forget(
        &mut self,
        state: &mut State,
        gateway: GatewayName,
        request: BridgeRequest,
    ) {
        if self.forget.is_none() {
            self.forget = Some(ForgetScan::new(Instant::now(), gateway, request));
            return;
        }
        let message =
            "another gateway is being forgotten; repeat the request when that is answered";
        let outcome = Outcome::failed(Failure::new(FailureCode::RateLimited, message));
        self.session.reply(state, &request.reply(outcome, BTreeSet::new()));
    }

    /// Does what is due by now.
    pub(crate) fn wake(&mut self, state: &mut State, now: Instant) {
        let progress = self.scan.wake(now);
        self.scan_progressed(state, progress);
        if self.home_assistant.wake(now) {
            state.publisher.content().discovery_mut().home_assistant_started(&state.fleet);
        }
        if let Some(forget) = self.forget.take_if(|it| it.deadline() <= now) {
            self.session.reply(state, &forget.timed_out());
        }
        self.scan_again(state);
        if self.duplicates.settle(now) {
            state.publisher.content().set_settled();
        }
        self.session.wake(now);
        self.requests.wake(now);
        if self.own_state.wake(now, state.publisher.is_online()) {
            state.publisher.publish_online_again();
        }
        if self.republish_at.is_some_and(|at| at <= now) {
            self.republish_at = self.republish_every.map(|every| now + every);
            state.publisher.all_changed(&state.fleet);
        }
        self.stale_topics.clear(state);
    }

    /// When there is something to do although nothing comes in.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (own_state, requests) = (self.own_state.due(), self.requests.due());
        let (scan, home_assistant) = (self.scan.due(), self.home_assistant.due());
        let forget = self.forget.as_ref().map(ForgetScan::deadline);
        let session = [self.session.due(), self.duplicates.due(), own_state, requests];
        let retained = [scan, home_assistant, forget, self.republish_at];
        session.into_iter().chain(retained).flatten().min()
    }

    /// Subscribes to the requests of one more gateway; where the bridge is not online yet, its
    /// filter is among those of all.
    pub(crate) fn subscribe_requests_of(&mut self, state: &State, filter: String) {
        if state.publisher.is_online() {
            self.requests.add(filter);
        }
    }

    /// Subscribes to the requests, once `online` is published; `takes_requests`: if any command is
    /// permitted.
    pub(crate) fn subscribe_requests(&mut self, state: &mut State, takes_requests: bool) {
        if state.publisher.take_requests_wanted() && takes_requests {
            let owners = state.directory.gateways.values().map(|entry| &entry.name);
            self.requests.start(&state.publisher.topics().request_filters(owners));
        }
        if self.session.is_connected()
            && let Some(filters) = self.requests.next_packet()
        {
            let handling = RetainHandling::DoNotSendAsPublished;
            self.session.subscribe(filters.into_iter().map(|it| (it, handling)).collect());
        }
    }
}

/// Filters that match much.
fn many(
    filters: impl IntoIterator<Item = String>,
) -> impl Iterator<Item = (String, RetainHandling)> {
    filters.into_iter().map(|filter| (filter, RetainHandling::SendManyAtSubscribe))
}
