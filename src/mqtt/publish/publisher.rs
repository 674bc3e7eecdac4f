//! Schedules messages: which kinds a connection's phase permits, within the broker's window. Each
//! message is tracked until the broker has accepted or refused it.

use std::collections::{BTreeMap, BTreeSet};

use super::answers::AnswerDropped;
use super::content::Content;
use super::discovery::DiscoveryPublisher;
use super::isolation::{Isolation, SendDecision};
use super::message::{Accepted, Answer, MessageId, MessageKind, Outgoing, Rejected, View};
use crate::fleet::Fleet;
use crate::homeassistant::Discovery;
use crate::ids::{GatewayName, Moment};
use crate::mqtt::refusal::Refusal;
use crate::mqtt::session::Publish;
use crate::store::Outbox;
use crate::topics::Topics;

/// How far a connection is, and so what may be sent.
#[derive(Debug)]
enum Phase {
    /// Nothing.
    Disconnected,
    /// Only the bridge's info: another instance of this bridge may be online.
    CheckingDuplicates,
    /// Everything but `online`, answers and discovery: all states have to be acknowledged first.
    FullPublish {
        /// The position in the order of device states, once every gateway is online or lost.
        device_states: Option<u64>,
        /// The token after the last message, once that is sent.
        end: Option<u64>,
    },
    Online,
    /// Only `offline`, and infos that agree with it: of the gateways, then of the bridge.
    ShuttingDown,
}

/// The scheduler of everything that is published.
#[derive(Debug)]
pub(crate) struct Publisher {
    phase: Phase,
    /// How many messages the broker allows in flight.
    window: usize,
    /// By token: tokens grow by one and are never reused.
    in_flight: BTreeMap<u64, Outgoing>,
    next_token: u64,
    /// From this token on, the connection had ended before it took the message.
    not_sent_from: Option<u64>,
    isolation: Isolation,
    pub(crate) content: Content,
}

impl Publisher {
    /// Without `publishes_discovery`, what the broker retains of discovery is removed.
    pub(crate) fn new(topics: Topics, discovery: Discovery, publishes_discovery: bool) -> Self {
        let discovery = DiscoveryPublisher::new(discovery, publishes_discovery);
        Self {
            phase: Phase::Disconnected,
            window: 0,
            in_flight: BTreeMap::new(),
            next_token: 0,
            not_sent_from: None,
            isolation: Isolation::default(),
            content: Content::new(topics, discovery),
        }
    }

    pub(crate) const fn topics(&self) -> &Topics {
        &self.content.topics
    }

    /// The format of discovery.
    pub(crate) const fn discovery(&self) -> &Discovery {
        &self.content.discovery.discovery
    }

    /// Gateways that are unconfigured or forgotten, whose topics are cleared.
    pub(crate) const fn cleared_gateways(&self) -> &BTreeSet<GatewayName> {
        self.content.discovery.cleared_gateways()
    }

    /// A new connection, with this many messages in flight at most. Until
    /// [`Publisher::start_full_publish`] only the bridge's info is published, on request.
    pub(crate) fn connected(&mut self, window: usize, fleet: &Fleet) {
        self.phase = Phase::CheckingDuplicates;
        self.window = window.max(1);
        self.content.connected(fleet);
    }

    /// No other instance of this bridge is online: publishes everything.
    pub(crate) fn start_full_publish(&mut self, fleet: &Fleet) {
        if self.is_checking() {
            self.phase = Phase::FullPublish { device_states: None, end: None };
            self.content.states.start_full_publish(fleet);
            self.content.discovery.gateway_changed();
        }
    }

    /// The connection has ended before it took this message, so the broker never saw it.
    pub(crate) fn not_sent(&mut self, token: u64) {
        self.not_sent_from.get_or_insert(token);
    }

    /// The connection has ended. Returns the message that is set aside, if the broker has shown
    /// that it closes the connection over it.
    pub(crate) fn disconnected(
        &mut self,
        now: Moment,
        closed_by_broker: bool,
        outbox: &mut Outbox,
    ) -> Option<Rejected> {
        self.phase = Phase::Disconnected;
        let mut in_flight = std::mem::take(&mut self.in_flight);
        if let Some(token) = self.not_sent_from.take() {
            in_flight.split_off(&token);
        }
        let in_flight = in_flight.into_values().collect();
        let set_aside = self.isolation.disconnected(now, in_flight, closed_by_broker);
        let rejected = set_aside
            .map(|message| self.content.rejected(now, message, Refusal::ClosesConnection, outbox));
        self.content.disconnected();
        outbox.put_all_back();
        rejected
    }

    /// A clean stop `at` this time of the wall clock: from now on only `offline` is published, of
    /// the gateways, with their infos, and of the bridge. Where another instance may be online it
    /// is of the bridge alone: that instance publishes its `online` again, but not its gateways'.
    pub(crate) fn shut_down(&mut self, at: Moment, fleet: &Fleet) {
        if self.is_connected() {
            self.content.states.shut_down(at, (!self.is_checking()).then_some(fleet));
            self.phase = Phase::ShuttingDown;
        }
    }

    /// Whether the broker has acknowledged `offline`, or is not connected.
    pub(crate) fn is_shut_down(&self) -> bool {
        match self.phase {
            Phase::Disconnected => true,
            Phase::ShuttingDown => {
                let mut in_flight = self.in_flight.values();
                self.content.states.bridge_state_is_sent()
                    && !in_flight.any(|sent| sent.id == MessageId::BridgeState)
            }
            _ => false,
        }
    }

    /// Whether the broker has accepted `offline`, or is not connected.
    pub(crate) fn offline_is_accepted(&self) -> bool {
        let is_refused = self.content.refusals.contains(&MessageId::BridgeState);
        !self.is_connected() || (self.is_shut_down() && !is_refused)
    }

    /// Whether only the bridge's info is published, as another instance may answer.
    pub(crate) const fn is_checking(&self) -> bool {
        matches!(self.phase, Phase::CheckingDuplicates)
    }

    pub(crate) const fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online)
    }

    pub(crate) const fn is_connected(&self) -> bool {
        !matches!(self.phase, Phase::Disconnected)
    }

    /// Publishes everything retained again, but not discovery.
    pub(crate) fn all_changed(&mut self, fleet: &Fleet) {
        self.content.states.all_changed(fleet);
        self.content.discovery.gateway_changed();
        self.publish_online_again();
    }

    /// Publishes `online` again if the bridge is: its topic had something else, as `offline` of a
    /// late last will, or `online` was not received from the broker.
    pub(crate) const fn publish_online_again(&mut self) {
        if self.is_online() {
            self.content.states.set_online();
        }
    }

    /// Queues an answer to a request, for this connection only.
    ///
    /// # Errors
    /// Why it is dropped.
    pub(crate) fn answer(&mut self, answer: Answer) -> Result<(), AnswerDropped> {
        if !self.is_connected() {
            return Err(AnswerDropped::NotConnected);
        }
        self.content.answers.push(answer)
    }

    /// Whether answers wait or are in flight.
    pub(crate) fn has_answers(&self) -> bool {
        !self.content.answers.is_empty()
    }

    /// Whether another scan of retained discovery is to be made now; true once.
    pub(crate) fn take_discovery_scan(&mut self) -> bool {
        self.is_online() && self.content.discovery.take_wanted_scan()
    }

    /// When [`Publisher::next`] has a message although nothing changes.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        // An acknowledgement wakes if the window is full.
        if self.is_full() || matches!(self.phase, Phase::Disconnected | Phase::ShuttingDown) {
            return None;
        }
        let retry = self.isolation.wake_at().filter(|_| self.is_online());
        let content = self.content.wake_at(self.is_checking(), self.is_online());
        content.into_iter().chain(retry).min()
    }

    fn is_full(&self) -> bool {
        let in_flight = self.in_flight.len();
        in_flight >= self.window || self.isolation.blocks(in_flight)
    }

    /// The next message and its token, if the window has room for it.
    pub(crate) fn next(
        &mut self,
        now: Moment,
        outbox: &mut Outbox,
        view: &View,
    ) -> Option<(u64, Publish)> {
        if self.is_full() || !self.is_connected() {
            return None;
        }
        self.content.retry_due(now, outbox);
        while !self.isolation.turn_is_due() {
            let Some(message) = self.select(now, outbox, view) else { break };
            match self.isolation.admit(message) {
                SendDecision::Send(message) => return Some(self.send(message, outbox)),
                SendDecision::Held => {}
                SendDecision::SetAside(message) => {
                    let refusal = Refusal::ClosesConnection;
                    self.content.rejected(now, message, refusal, outbox);
                }
            }
        }
        if self.is_online() {
            self.isolation.retry_due(now);
        }
        // A suspect is sent alone.
        let message = if self.in_flight.is_empty() { self.isolation.take() } else { None };
        Some(self.send(message?, outbox))
    }

    fn send(&mut self, message: Outgoing, outbox: &mut Outbox) -> (u64, Publish) {
        if let MessageId::GatewayState(_) = message.id {
            // Its events wait for it.
            outbox.release();
        }
        let (token, publish) = (self.next_token, message.publish.clone());
        self.next_token += 1;
        self.in_flight.insert(token, message);
        (token, publish)
    }

    /// The next message that the phase allows.
    fn select(&mut self, now: Moment, outbox: &mut Outbox, view: &View) -> Option<Outgoing> {
        match self.phase {
            Phase::Disconnected => return None,
            Phase::CheckingDuplicates => return self.content.states.next_info(now, view, true),
            Phase::ShuttingDown => return self.content.states.next_of_shutdown(now, view),
            Phase::FullPublish { .. } => {
                if self.full_publish_is_complete(view.fleet) {
                    self.phase = Phase::Online;
                    self.content.states.set_online();
                }
            }
            Phase::Online => {
                if self.content.discovery.take_states_due(now) {
                    self.all_changed(view.fleet);
                }
            }
        }
        let (is_online, holds_states) = (self.is_online(), self.isolation.has_states());
        self.content.next(now, outbox, view, is_online, holds_states)
    }

    /// Whether the broker has acknowledged the full publish.
    fn full_publish_is_complete(&mut self, fleet: &Fleet) -> bool {
        let Phase::FullPublish { device_states, end } = &mut self.phase else { return false };
        let states = &self.content.states;
        if device_states.is_none() && fleet.gateways().all(|(_, it)| it.link().is_decided()) {
            *device_states = Some(states.position());
        }
        if end.is_none() && device_states.is_some_and(|position| states.are_sent_up_to(position)) {
            *end = Some(self.next_token);
        }
        let Some(end) = *end else { return false };
        // A refusal completes it too, but then the outdated value has to be removed as well.
        let is_awaited = |(token, sent): (&u64, &Outgoing)| {
            matches!(sent.id, MessageId::Empty(_))
                || (*token < end && sent.id.kind() == MessageKind::State)
        };
        !self.in_flight.iter().any(is_awaited)
            && !self.isolation.has_states()
            && !self.content.refusals.has_to_empty()
    }

    /// The broker has accepted or refused a message; `None` for an unknown token.
    pub(crate) fn acknowledged(
        &mut self,
        now: Moment,
        token: u64,
        result: Result<(), Refusal>,
        outbox: &mut Outbox,
    ) -> Option<Result<Accepted, Rejected>> {
        let message = self.in_flight.remove(&token)?;
        self.isolation.acknowledged(&message);
        Some(match result {
            Ok(()) => {
                let kind = message.id.kind();
                Ok(Accepted { kind, read_at: self.content.accepted(now, message.id, outbox) })
            }
            Err(refusal) => Err(self.content.rejected(now, message, refusal, outbox)),
        })
    }
}
