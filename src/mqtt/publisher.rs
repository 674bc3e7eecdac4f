//! What is published next: the order and the pace of everything that goes to the broker. Pure.
//!
//! May not touch a socket or decide what is true: it is told what has changed and reads the values
//! at the moment of sending. States are a set and events are a queue (design, decision 5). After
//! every CONNACK the full state goes out and is acknowledged, then `online` (decision 6); the
//! outbox drains beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::answers::{AnswerDropped, AnswerQueue};
use super::changed::Changed;
use super::clear_queue::ClearQueue;
use super::desk::{Desk, GatewayDesk};
use super::discovery::{DiscoveryDesk, DiscoverySettings};
use super::isolation::{Admission, Isolation};
use super::outgoing::{Acknowledged, Draft, Outgoing, Rejected, View};
use super::phase::Phase;
use super::refusal::Refusal;
use super::refusals::{Refusals, Rejection};
use super::requests::Answer;
use super::sent::Sent;
use super::topics::Topics;
use crate::fleet::{Fleet, GatewayIndex};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::Directory;
use crate::store::{Key, Outbox};

/// The least time between two infos of one topic, in milliseconds (contract, section 1).
pub(super) const INFO_INTERVAL_MS: i64 = 10_000;

/// The order of what is published.
#[derive(Debug)]
pub struct Publisher {
    pub(super) topics: Topics,
    pub(super) phase: Phase,
    pub(super) window: usize,
    pub(super) token: u64,
    pub(super) in_flight: BTreeMap<u64, Sent>,
    pub(super) changed: Changed,
    pub(super) cleared: ClearQueue,
    /// Gateways that are not configured any more; their discovery is cleared where it is found.
    pub(super) gone: BTreeSet<GatewayName>,
    pub(super) gateways: Vec<GatewayDesk>,
    pub(super) bridge_info: Desk,
    pub(super) bridge_state: Option<&'static str>,
    pub(super) refusals: Refusals,
    pub(super) isolation: Isolation,
    pub(super) turn: u32,
    pub(super) requests_wanted: bool,
    /// A gateway's state has gone out, so its events may.
    pub(super) gateway_said: bool,
    pub(super) answers: AnswerQueue,
    pub(super) discovery: DiscoveryDesk,
}

impl Publisher {
    /// For this many gateways, without a connection.
    #[must_use]
    pub fn new(topics: Topics, gateways: usize, discovery: DiscoverySettings) -> Self {
        Self {
            topics,
            phase: Phase::Away,
            window: 0,
            token: 0,
            in_flight: BTreeMap::new(),
            changed: Changed::default(),
            cleared: ClearQueue::default(),
            gone: BTreeSet::new(),
            gateways: vec![GatewayDesk::default(); gateways],
            bridge_info: Desk::default(),
            bridge_state: None,
            refusals: Refusals::default(),
            isolation: Isolation::default(),
            turn: 0,
            requests_wanted: false,
            gateway_said: false,
            answers: AnswerQueue::default(),
            discovery: DiscoveryDesk::new(discovery),
        }
    }

    /// The topics in use.
    #[must_use]
    pub const fn topics(&self) -> &Topics {
        &self.topics
    }

    /// The connection has ended, and with it all that was in flight. Answers end with it; topics
    /// not known to be cleared are cleared on the next one. Returns the message that is set aside,
    /// where the broker has shown that it closes the connection over it.
    pub fn disconnected(
        &mut self,
        closed_by_broker: bool,
        directory: &Directory,
        outbox: &mut Outbox,
    ) -> Option<Rejected> {
        self.phase = Phase::Away;
        self.bridge_state = None;
        self.requests_wanted = false;
        self.answers.disconnected(closed_by_broker);
        let waiting = self.isolation.held().cloned().chain(self.refusals.disconnected());
        let waiting: Vec<Sent> = waiting.collect();
        let in_flight = std::mem::take(&mut self.in_flight);
        let numbered: Vec<_> =
            in_flight.values().map(|sent| (sent, number(sent, outbox))).collect();
        let set_aside = self.isolation.disconnected(&numbered, closed_by_broker);
        let rejected = set_aside.map(|sent| {
            let topic = self.topic_of(&sent, directory, outbox);
            let lost = match &sent {
                Sent::Event(subject) => outbox.give_up(subject).then(|| subject.clone()),
                _ => None,
            };
            let rejection = Rejection::ClosesConnection;
            Rejected { kind: sent.kind(), topic, rejection, is_new: true, lost }
        });
        for sent in in_flight.into_values().chain(waiting) {
            if let Sent::Cleared(topic) = sent {
                self.cleared.push_back(topic);
            }
        }
        outbox.put_all_back();
        rejected
    }

    /// Everything retained is to be published again.
    pub fn all_changed(&mut self, fleet: &Fleet) {
        for gateway in fleet.gateways() {
            if fleet.gateway_is_decided(gateway) {
                for device_id in fleet.device_ids(gateway) {
                    self.changed.insert((gateway, device_id));
                }
            }
            self.gateway_changed(gateway);
        }
        self.bridge_info.forget();
        for desk in &mut self.gateways {
            desk.info.forget();
        }
        if self.phase == Phase::Online {
            self.bridge_state = Some("online");
        }
    }

    /// This device's state has changed.
    pub fn device_changed(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        self.changed.insert((gateway, device_id));
        self.info_changed(gateway);
    }

    /// This gateway's state has changed; what changed of its devices before goes out before it.
    pub fn gateway_changed(&mut self, gateway: GatewayIndex) {
        let mark = self.changed.mark();
        if let Some(desk) = self.gateways.get_mut(gateway.0) {
            desk.state_changed(mark);
        }
        self.discovery.gateway_changed();
    }

    /// Something in this gateway's info has changed.
    pub fn info_changed(&mut self, gateway: GatewayIndex) {
        if let Some(desk) = self.gateways.get_mut(gateway.0) {
            desk.info.dirty = true;
        }
    }

    /// The last error or the API version in this gateway's info has changed.
    pub fn info_changed_at_once(&mut self, gateway: GatewayIndex) {
        if let Some(desk) = self.gateways.get_mut(gateway.0) {
            desk.info.changed_at_once();
        }
    }

    /// Something in the bridge's info has changed.
    pub const fn bridge_info_changed(&mut self) {
        self.bridge_info.dirty = true;
    }

    /// The bridge's info is to be said again, be it the same.
    pub fn bridge_info_again(&mut self) {
        self.bridge_info.forget();
    }

    /// Once after each `online`: the requests are to be subscribed.
    pub const fn take_requests_wanted(&mut self) -> bool {
        std::mem::replace(&mut self.requests_wanted, false)
    }

    /// How many device states wait.
    #[must_use]
    pub fn states_waiting(&self) -> usize {
        self.changed.len()
    }

    /// When [`Publisher::next`] is to be asked again although nothing has changed.
    #[must_use]
    pub fn wake_at(&self) -> Option<Moment> {
        // Where the window is full, an acknowledgement wakes; who leaves says no infos.
        let idle = matches!(self.phase, Phase::Away | Phase::Leaving);
        let in_flight = self.in_flight.len();
        if idle || in_flight >= self.window || self.isolation.blocks(in_flight) {
            return None;
        }
        let looking = self.phase == Phase::Looking;
        let gateways: &[GatewayDesk] = if looking { &[] } else { &self.gateways };
        let infos = gateways.iter().filter_map(|desk| desk.info_at(INFO_INTERVAL_MS));
        let info = infos.chain(self.bridge_info.next_at(INFO_INTERVAL_MS)).min();
        let again = self.refusals.wake_at();
        let discovery = self.is_online().then(|| self.discovery.wake_at()).flatten();
        info.into_iter().chain(again).chain(discovery).min()
    }

    /// An answer to a request; it is sent on the connection that there is now, or not at all.
    ///
    /// # Errors
    /// Why it is dropped.
    pub fn answer(&mut self, answer: Answer) -> Result<(), AnswerDropped> {
        if self.phase == Phase::Away {
            return Err(AnswerDropped::NotConnected);
        }
        self.answers.push(answer)
    }

    /// Whether answers wait, or are not acknowledged yet.
    #[must_use]
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// The size of answers from which on the broker closes the connection, where it has shown one.
    #[must_use]
    pub fn answers_close_from(&self) -> Option<usize> {
        self.answers.closes_from()
    }

    /// The broker's answer to a message; `None` for an unknown token. Below 0x80 it is accepted; a
    /// message with another code is sent again later, or set aside where that cannot succeed.
    pub fn acknowledged(
        &mut self,
        now: Moment,
        token: u64,
        result: Result<(), Refusal>,
        directory: &Directory,
        outbox: &mut Outbox,
    ) -> Option<Acknowledged> {
        let sent = self.in_flight.remove(&token)?;
        let kind = sent.kind();
        self.isolation.answered(&sent);
        let (mut read_at, mut rejected) = (None, None);
        match result {
            Ok(()) => read_at = self.accepted(now, sent, outbox),
            Err(refusal) => {
                let topic = self.topic_of(&sent, directory, outbox);
                rejected = Some(self.rejected(now, sent, topic, refusal.into(), outbox));
            }
        }
        Some(Acknowledged { kind, read_at, rejected })
    }

    fn accepted(&mut self, now: Moment, sent: Sent, outbox: &mut Outbox) -> Option<Instant> {
        self.refusals.remove(&sent);
        match sent {
            Sent::Event(subject) => return outbox.acknowledge(&subject),
            Sent::Cleared(topic) => outbox.changes().remove(Key::Clearing(topic)),
            Sent::Answer(answer) => self.answers.answered(answer, Ok(())),
            Sent::Discovery(_) | Sent::Undiscovered(_) => self.discovery.answered(now),
            // A value that was accepted meanwhile has been overwritten.
            Sent::Emptied(of) if !self.refusals.contains(&of) => self.send_again(*of, outbox),
            _ => {}
        }
        None
    }

    fn rejected(
        &mut self,
        now: Moment,
        sent: Sent,
        topic: String,
        rejection: Rejection,
        outbox: &mut Outbox,
    ) -> Rejected {
        let kind = sent.kind();
        let mut rejected = Rejected { kind, topic, rejection, is_new: false, lost: None };
        match (&sent, rejection) {
            (Sent::Event(subject), _) if rejection.is_permanent() => {
                rejected.lost = outbox.give_up(subject).then(|| subject.clone());
            }
            (Sent::Cleared(topic), _) if rejection.is_permanent() => {
                outbox.changes().remove(Key::Clearing(topic.clone()));
            }
            (Sent::Discovery(_) | Sent::Undiscovered(_), _) => self.discovery.answered(now),
            _ => {}
        }
        match (sent, rejection) {
            (Sent::Answer(answer), Rejection::Refused(refusal)) => {
                self.answers.answered(answer, Err(refusal));
            }
            (Sent::Emptied(of), _) => self.refusals.not_emptied(now, *of, rejection),
            (sent, _) => {
                let topic = rejected.topic.clone();
                rejected.is_new = self.refusals.add(now, sent, topic, rejection);
            }
        }
        rejected
    }

    /// The topics of states, infos and events that are not accepted, and why.
    pub fn refused(&self) -> impl Iterator<Item = (&str, Rejection)> {
        self.refusals.of(false)
    }

    /// The topics of discovery that are not accepted, and why.
    pub fn discovery_refused(&self) -> impl Iterator<Item = (&str, Rejection)> {
        self.refusals.of(true)
    }

    /// The next message, if the window has room for one.
    pub fn next(&mut self, now: Moment, outbox: &mut Outbox, view: &View) -> Option<Outgoing> {
        let in_flight = self.in_flight.len();
        let full = in_flight >= self.window || self.isolation.blocks(in_flight);
        if self.phase == Phase::Away || full {
            return None;
        }
        while let Some(sent) = self.refusals.take_due(now) {
            self.send_again(sent, outbox);
        }
        while !self.isolation.turn_is_due() {
            let Some(draft) = self.draft(now, outbox, view) else { break };
            let number = number(&draft.sent, outbox);
            match self.isolation.admit(draft, number) {
                Admission::Send(draft) => return Some(self.send(draft)),
                Admission::Held => {}
                Admission::SetAside(Draft { sent, topic, .. }) => {
                    self.rejected(now, sent, topic, Rejection::ClosesConnection, outbox);
                }
            }
        }
        // A suspect goes out alone.
        let draft = if in_flight == 0 { self.isolation.take()? } else { return None };
        Some(self.send(draft))
    }

    /// The next message by its kind.
    fn draft(&mut self, now: Moment, outbox: &mut Outbox, view: &View) -> Option<Draft> {
        match self.phase {
            Phase::Looking => return self.next_bridge_info(now, view),
            Phase::Leaving => return self.next_goodbye(view),
            _ => {}
        }
        self.see_whether_filled(view);
        self.next_offline(view)
            .or_else(|| self.next_bridge_state())
            .or_else(|| self.next_emptied())
            .or_else(|| self.next_cleared(outbox, view))
            .or_else(|| self.next_online(view))
            .or_else(|| self.next_info(now, view))
            .or_else(|| self.next_discovery(now, view))
            .or_else(|| self.next_of_states_and_events(outbox, view))
    }

    /// This message is to be sent again.
    fn send_again(&mut self, sent: Sent, outbox: &mut Outbox) {
        match sent {
            Sent::Event(subject) => _ = outbox.put_back(&subject),
            Sent::Device(gateway, device_id) => self.changed.insert((gateway, device_id)),
            Sent::Cleared(topic) => self.cleared.push_back(topic),
            Sent::Emptied(of) => self.refusals.empty_again(*of),
            Sent::GatewayState(gateway) => self.gateway_changed(gateway),
            Sent::GatewayInfo(gateway) => {
                if let Some(desk) = self.gateways.get_mut(gateway.0) {
                    desk.info.forget();
                }
            }
            Sent::BridgeState if self.phase == Phase::Leaving => {
                self.bridge_state = Some("offline");
            }
            Sent::BridgeState => self.bridge_state = Some("online"),
            Sent::BridgeInfo => self.bridge_info.forget(),
            Sent::Answer(_) => {}
            sent @ (Sent::Discovery(_) | Sent::Undiscovered(_)) => self.discovery.again(sent),
        }
    }
}

/// Tells an event from the others of its subject.
fn number(sent: &Sent, outbox: &Outbox) -> u64 {
    match sent {
        Sent::Event(subject) => outbox.first_of(subject).map_or(0, |(number, _)| number),
        _ => 0,
    }
}
