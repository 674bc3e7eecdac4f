//! Everything that is published: a component for each kind of message, their order, and the effects
//! of an acknowledgement or a refusal.

use std::collections::BTreeSet;
use std::time::Instant;

use super::answers::AnswerQueue;
use super::clearing::Clearing;
use super::discovery::DiscoveryPublisher;
use super::info::{InfoOf, Infos};
use super::message::{MessageId, Outgoing, Rejected, View};
use super::refusals::Refusals;
use super::states::States;
use crate::fleet::{Fleet, GatewayIndex};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::mqtt::refusal::Refusal;
use crate::payload::{Directory, GatewayEntry, Subject};
use crate::store::Outbox;
use crate::topics::Topics;

/// While states, answers and events wait, each cycle of this many messages has one state, one
/// answer, and events else: a flood of the others holds up no event.
const CYCLE: u32 = 4;
const STATE_TURN: u32 = 0;
const ANSWER_TURN: u32 = 2;

/// The kinds of message, each with what waits to be sent.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) topics: Topics,
    pub(crate) states: States,
    pub(crate) clearing: Clearing,
    pub(crate) discovery: DiscoveryPublisher,
    pub(crate) answers: AnswerQueue,
    pub(crate) refusals: Refusals,
    /// The position in the cycle of states, answers and events.
    turn: u32,
}

impl Content {
    pub(crate) fn new(topics: Topics, discovery: DiscoveryPublisher) -> Self {
        Self {
            states: States::new(topics.clone()),
            clearing: Clearing::new(topics.clone()),
            topics,
            discovery,
            answers: AnswerQueue::default(),
            refusals: Refusals::default(),
            turn: 0,
        }
    }

    pub(crate) const fn infos(&mut self) -> &mut Infos {
        &mut self.states.infos
    }

    /// A new connection: the broker may have lost everything retained.
    pub(crate) fn connected(&mut self, fleet: &Fleet) {
        self.states.reset_bridge();
        self.discovery.connected(fleet);
    }

    /// The connection has ended, and with it everything in flight.
    pub(crate) fn disconnected(&mut self) {
        self.states.reset_bridge();
        self.answers = AnswerQueue::default();
        self.refusals.disconnected();
        self.clearing.queue.disconnected();
    }

    /// The session has lasted long enough to clear what no longer exists.
    pub(crate) const fn set_settled(&mut self) {
        self.clearing.queue.set_settled();
        self.discovery.removals.set_settled();
    }

    /// A gateway was discovered or recalled.
    pub(crate) fn gateway_added(&mut self, gateway: GatewayIndex) {
        self.infos().changed(InfoOf::Bridge);
        self.discovery.gateway_added(gateway);
    }

    /// A gateway is forgotten, after its devices.
    pub(crate) fn gateway_forgotten(&mut self, gateway: GatewayIndex, entry: &GatewayEntry) {
        self.states.gateway_forgotten(gateway);
        self.refusals.remove(&MessageId::GatewayState(gateway));
        self.refusals.remove(&MessageId::Info(InfoOf::Gateway(gateway)));
        self.discovery.gateway_forgotten(gateway, entry);
        self.clear_gateway(&entry.name, []);
    }

    /// A gateway's state has changed; device states that changed before it are published before it.
    pub(crate) fn gateway_changed(&mut self, gateway: GatewayIndex) {
        self.states.gateway_changed(gateway);
        self.discovery.gateway_changed();
    }

    /// A device no longer exists.
    pub(crate) fn device_removed(
        &mut self,
        gateway: GatewayIndex,
        device_id: DeviceId,
        entry: &GatewayEntry,
    ) {
        self.states.device_removed(gateway, device_id);
        self.refusals.remove(&MessageId::DeviceState(gateway, device_id));
        self.clearing.clear(self.topics.device_state(&entry.name, device_id));
        self.discovery.device_removed(gateway, device_id, entry);
    }

    /// Clears the topics of a gateway that is unconfigured or forgotten, and of these devices.
    pub(crate) fn clear_gateway(
        &mut self,
        gateway: &GatewayName,
        device_ids: impl IntoIterator<Item = DeviceId>,
    ) {
        let topics: Vec<String> = self.topics_of(gateway, device_ids).collect();
        topics.into_iter().for_each(|topic| self.clearing.clear(topic));
        self.discovery.clear_gateway(gateway.clone());
    }

    /// The topics of states and infos.
    fn topics_of(
        &self,
        gateway: &GatewayName,
        device_ids: impl IntoIterator<Item = DeviceId>,
    ) -> impl Iterator<Item = String> {
        let devices = device_ids.into_iter().map(|id| self.topics.device_state(gateway, id));
        let own = [self.topics.gateway_state(gateway), self.topics.gateway_info(gateway)];
        devices.chain(own)
    }

    /// Clears what is to be cleared of these devices and of their gateway itself, as `forget`
    /// requested, without waiting for the session to settle.
    pub(crate) fn prioritize_clearing(
        &mut self,
        entry: &GatewayEntry,
        device_ids: &BTreeSet<DeviceId>,
    ) {
        let topics = self.topics_of(&entry.name, device_ids.iter().copied()).collect();
        self.clearing.queue.prioritize(&topics);
        self.discovery.prioritize(entry, device_ids);
    }

    /// Whether nothing is left to be cleared.
    pub(crate) fn is_cleared(&self) -> bool {
        self.clearing.queue.is_empty() && self.discovery.has_nothing_to_remove()
    }

    /// When a message is due although nothing changes.
    pub(crate) fn wake_at(&self, is_checking: bool, is_online: bool) -> Option<Moment> {
        let info = self.states.info_due_at(is_checking);
        let discovery = if is_online { self.discovery.wake_at() } else { None };
        [info, self.refusals.wake_at(), discovery].into_iter().flatten().min()
    }

    /// The next message in the fixed order. Device states that are held back hold back
    /// `online` of their gateways.
    pub(crate) fn next(
        &mut self,
        now: Moment,
        outbox: &mut Outbox,
        view: &View,
        is_online: bool,
        holds_states: bool,
    ) -> Option<Outgoing> {
        let Self { states, clearing, discovery, refusals, .. } = self;
        states
            .next_offline(view)
            .or_else(|| clearing.next_offline())
            .or_else(|| states.next_bridge_state())
            .or_else(|| refusals.next_empty())
            .or_else(|| clearing.next(view))
            .or_else(|| if holds_states { None } else { states.next_online(view) })
            .or_else(|| states.next_info(now, view, false))
            .or_else(|| if is_online { discovery.next(now, view) } else { None })
            .or_else(|| self.next_in_cycle(outbox, view, is_online))
    }

    /// States, answers and events by turns; answers wait until the bridge is online.
    fn next_in_cycle(
        &mut self,
        outbox: &mut Outbox,
        view: &View,
        is_online: bool,
    ) -> Option<Outgoing> {
        self.turn = (self.turn + 1) % CYCLE;
        let turn = self.turn;
        if turn == ANSWER_TURN
            && is_online
            && let Some(answer) = self.answers.next()
        {
            return Some(answer);
        }
        let next = if turn == STATE_TURN {
            self.next_device(view).or_else(|| self.next_event(outbox, view.directory))
        } else {
            self.next_event(outbox, view.directory).or_else(|| self.next_device(view))
        };
        next.or_else(|| if is_online { self.answers.next() } else { None })
    }

    /// The next device state; the device's discovery follows it.
    fn next_device(&mut self, view: &View) -> Option<Outgoing> {
        let Self { states, discovery, .. } = self;
        states.next_device(view, |gateway, state| discovery.state_sent(gateway, state))
    }

    /// The next event that may be sent. A gateway's event follows the state that it led to.
    fn next_event(&self, outbox: &mut Outbox, directory: &Directory) -> Option<Outgoing> {
        let may_be_sent = |subject: &Subject| match subject {
            Subject::Gateway(name) => {
                !directory.find(name).is_some_and(|gateway| self.states.gateway_waits(gateway))
            }
            Subject::Bridge | Subject::Device(..) => true,
        };
        let (event, lost) = outbox.next(may_be_sent)?;
        let topic = self.topics.event(&event.subject, &event.event_type);
        Some(Outgoing::event(&event, lost, topic))
    }

    /// Queues the refused messages that are due to be sent again.
    pub(crate) fn retry_due(&mut self, now: Moment, outbox: &mut Outbox) {
        while let Some(id) = self.refusals.take_due(now) {
            self.send_again(id, outbox);
        }
    }

    /// The broker has accepted a message; returns when an event was read from the stream.
    pub(crate) fn accepted(
        &mut self,
        now: Moment,
        id: MessageId,
        outbox: &mut Outbox,
    ) -> Option<Instant> {
        self.refusals.remove(&id);
        match id {
            MessageId::Event(subject) => return outbox.acknowledge(&subject),
            MessageId::Clear(topic) => self.clearing.finish(topic),
            MessageId::Answer(answer) => self.answers.acknowledged(*answer, Ok(())),
            MessageId::Discovery(_) | MessageId::RemoveDiscovery(_) => {
                self.discovery.acknowledged(now, &id);
            }
            // A value that was accepted meanwhile has been overwritten.
            MessageId::Empty(of) if !self.refusals.contains(&of) => self.send_again(*of, outbox),
            _ => {}
        }
        None
    }

    /// The broker does not accept a message: it is sent again later, or set aside where that cannot
    /// succeed.
    pub(crate) fn rejected(
        &mut self,
        now: Moment,
        message: Outgoing,
        refusal: Refusal,
        outbox: &mut Outbox,
    ) -> Rejected {
        let (id, topic) = (message.id, message.publish.topic);
        let kind = id.kind();
        let mut lost = None;
        match &id {
            MessageId::Event(subject) if refusal.is_permanent() => {
                lost = outbox.give_up(subject).map(Box::new);
            }
            MessageId::Clear(topic) if refusal.is_permanent() => {
                self.clearing.finish(topic.clone());
            }
            MessageId::Discovery(_) | MessageId::RemoveDiscovery(_) => {
                self.discovery.acknowledged(now, &id);
            }
            _ => {}
        }
        let is_new = match id {
            MessageId::Answer(answer) => {
                self.answers.acknowledged(*answer, Err(refusal));
                false
            }
            MessageId::Empty(of) => {
                self.refusals.not_emptied(now, *of, refusal);
                false
            }
            // Its topic is cleared soon.
            MessageId::Offline(_) => false,
            id => self.refusals.add(now, id, topic.clone(), refusal),
        };
        Rejected { kind, topic, refusal, is_new, lost }
    }

    fn send_again(&mut self, id: MessageId, outbox: &mut Outbox) {
        match id {
            MessageId::Event(subject) => _ = outbox.put_back(&subject),
            MessageId::DeviceState(gateway, id) => self.states.device_again(gateway, id),
            MessageId::GatewayState(gateway) => self.gateway_changed(gateway),
            MessageId::Info(of) => self.infos().again(of),
            MessageId::BridgeState => self.states.bridge_state_again(),
            MessageId::Clear(topic) => self.clearing.queue.retry(topic),
            MessageId::Empty(of) => self.refusals.empty_again(*of),
            MessageId::Answer(_) | MessageId::Offline(_) => {}
            MessageId::Discovery(subject) => self.discovery.retry(subject),
            MessageId::RemoveDiscovery(topic) => self.discovery.removals.push(topic),
        }
    }
}
