//! Each kind of message, made at the moment of sending.
//!
//! May not decide which kind goes first: `publisher` asks in its order.

use bytes::Bytes;

use super::desk::GatewayDesk;
use super::outgoing::{Draft, Outgoing, View};
use super::publisher::{INFO_INTERVAL_MS, Publisher};
use super::sent::Sent;
use crate::fleet::GatewayIndex;
use crate::ids::{GatewayName, Moment};
use crate::payload::{DeviceStatePayload, Directory, GatewayInfo, Subject, to_bytes};
use crate::store::Outbox;

/// Where states and events wait together, every so many-th message is a state.
const STATE_TURN: u32 = 4;
/// And one of so many an answer: a flood of requests holds up no event.
const ANSWER_TURN: u32 = 2;

impl Publisher {
    pub(super) fn send(&mut self, draft: Draft) -> Outgoing {
        let Draft { sent, topic, payload, json } = draft;
        self.token += 1;
        let retain = sent.is_retained();
        let correlation_data = match &sent {
            Sent::Answer(answer) => answer.correlation_data.clone(),
            _ => None,
        };
        self.in_flight.insert(self.token, sent);
        Outgoing { token: self.token, topic, payload, retain, json, correlation_data }
    }

    /// A message's topic.
    pub(super) fn topic_of(&self, sent: &Sent, directory: &Directory, outbox: &Outbox) -> String {
        let topics = &self.topics;
        let of_gateway = |gateway: &GatewayIndex, topic: &dyn Fn(&GatewayName) -> String| {
            directory.gateway(*gateway).map_or_else(|| topics.all(), |entry| topic(&entry.name))
        };
        match sent {
            Sent::Answer(answer) => answer.topic.clone(),
            Sent::Cleared(topic) | Sent::Undiscovered(topic) => topic.clone(),
            Sent::Emptied(of) => self.topic_of(of, directory, outbox),
            Sent::Discovery(subject) => self.discovery.topic_of(directory, *subject),
            Sent::Event(subject) => {
                topics.event(subject, outbox.first_of(subject).map_or("+", |(_, name)| name))
            }
            Sent::BridgeState => topics.bridge_state(),
            Sent::BridgeInfo => topics.bridge_info(),
            Sent::Device(gateway, id) => {
                of_gateway(gateway, &|name| topics.device_state(name, *id))
            }
            Sent::GatewayState(gateway) => of_gateway(gateway, &|name| topics.gateway_state(name)),
            Sent::GatewayInfo(gateway) => of_gateway(gateway, &|name| topics.gateway_info(name)),
        }
    }

    /// An empty message for the topic of a state that is refused.
    pub(super) fn next_emptied(&mut self) -> Option<Draft> {
        let (of, topic) = self.refusals.take_to_empty()?;
        let sent = Sent::Emptied(Box::new(of));
        Some(Draft { sent, topic, payload: Bytes::new(), json: false })
    }

    pub(super) fn next_goodbye(&mut self, view: &View) -> Option<Draft> {
        if let Some(at) = self.gateways.iter().position(|desk| desk.state_dirty) {
            return self.send_gateway_state(GatewayIndex(at), "offline", view);
        }
        self.next_bridge_state()
    }

    pub(super) fn next_bridge_state(&mut self) -> Option<Draft> {
        let state = self.bridge_state.take()?;
        let topic = self.topics.bridge_state();
        let payload = Bytes::from_static(state.as_bytes());
        Some(Draft { sent: Sent::BridgeState, topic, payload, json: false })
    }

    /// A gateway whose view is not live says so before anything else.
    pub(super) fn next_offline(&mut self, view: &View) -> Option<Draft> {
        let gone = |at: usize| !view.fleet.gateway_is_live(GatewayIndex(at));
        let at = (0..self.gateways.len())
            .find(|&at| self.gateways.get(at).is_some_and(|desk| desk.state_dirty) && gone(at))?;
        self.send_gateway_state(GatewayIndex(at), "offline", view)
    }

    /// A gateway whose view is live says so once its devices' states are out.
    pub(super) fn next_online(&mut self, view: &View) -> Option<Draft> {
        if self.isolation.has_states() {
            return None;
        }
        let passed = |desk: &GatewayDesk| desk.state_dirty && self.changed.has_passed(desk.mark);
        let at = self.gateways.iter().position(passed)?;
        self.send_gateway_state(GatewayIndex(at), "online", view)
    }

    fn send_gateway_state(
        &mut self,
        gateway: GatewayIndex,
        state: &'static str,
        view: &View,
    ) -> Option<Draft> {
        self.gateways.get_mut(gateway.0)?.state_dirty = false;
        self.gateway_said = true;
        let topic = self.topics.gateway_state(&view.directory.gateway(gateway)?.name);
        let payload = Bytes::from_static(state.as_bytes());
        Some(Draft { sent: Sent::GatewayState(gateway), topic, payload, json: false })
    }

    pub(super) fn next_of_states_and_events(
        &mut self,
        outbox: &mut Outbox,
        view: &View,
    ) -> Option<Draft> {
        self.turn = (self.turn + 1) % STATE_TURN;
        if self.turn == ANSWER_TURN
            && let Some(answer) = self.next_answer()
        {
            return Some(answer);
        }
        let next = if self.turn == 0 {
            self.next_state(view).or_else(|| self.next_event(outbox, view))
        } else {
            self.next_event(outbox, view).or_else(|| self.next_state(view))
        };
        next.or_else(|| self.next_answer())
    }

    /// Answers wait until the full state is out.
    fn next_answer(&mut self) -> Option<Draft> {
        let answer = if self.is_online() { self.answers.take()? } else { return None };
        let (topic, payload) = (answer.topic.clone(), answer.payload.clone());
        Some(Draft { sent: Sent::Answer(answer), topic, payload, json: true })
    }

    pub(super) fn next_state(&mut self, view: &View) -> Option<Draft> {
        while let Some((gateway, device_id)) = self.changed.take() {
            let Some(state) = view.fleet.device(gateway, device_id) else { continue };
            let entry = view.directory.gateway(gateway)?;
            let payload = to_bytes(&DeviceStatePayload::new(view.directory, entry, &state));
            let topic = self.topics.device_state(&entry.name, device_id);
            self.discovery.state_sent(gateway, &state);
            return Some(Draft {
                sent: Sent::Device(gateway, device_id),
                topic,
                payload,
                json: true,
            });
        }
        None
    }

    pub(super) fn next_event(&mut self, outbox: &mut Outbox, view: &View) -> Option<Draft> {
        if std::mem::take(&mut self.gateway_said) {
            outbox.release();
        }
        let gateways = &self.gateways;
        // What happened to a gateway is told after the state that it led to.
        let may_go = |subject: &Subject| match subject {
            Subject::Gateway(name) => {
                let at = view.directory.gateways.iter().position(|entry| entry.name == *name);
                !at.and_then(|at| gateways.get(at)).is_some_and(|desk| desk.state_dirty)
            }
            Subject::Bridge | Subject::Device(..) => true,
        };
        let (record, lost) = outbox.next(may_go)?;
        let topic = self.topics.event(&record.subject, &record.event_type);
        let payload = with_lost(&record.payload, lost);
        let subject = record.subject.clone();
        Some(Draft { sent: Sent::Event(subject), topic, payload, json: true })
    }

    pub(super) fn next_info(&mut self, now: Moment, view: &View) -> Option<Draft> {
        for at in 0..self.gateways.len() {
            let gateway = GatewayIndex(at);
            let desk = self.gateways.get_mut(at)?;
            if desk.info_at(INFO_INTERVAL_MS).is_none_or(|at| at > now) {
                continue;
            }
            let entry = view.directory.gateway(gateway)?;
            let state = view.fleet.gateway(gateway)?;
            let info = GatewayInfo::new(view.directory, entry, &state, view.links.get(at)?);
            if let Some(payload) = desk.info.take(now, to_bytes(&info)) {
                let topic = self.topics.gateway_info(&entry.name);
                return Some(Draft {
                    sent: Sent::GatewayInfo(gateway),
                    topic,
                    payload,
                    json: true,
                });
            }
        }
        self.next_bridge_info(now, view)
    }

    pub(super) fn next_bridge_info(&mut self, now: Moment, view: &View) -> Option<Draft> {
        if self.bridge_info.next_at(INFO_INTERVAL_MS).is_none_or(|at| at > now) {
            return None;
        }
        let payload = self.bridge_info.take(now, to_bytes(view.bridge))?;
        let topic = self.topics.bridge_info();
        Some(Draft { sent: Sent::BridgeInfo, topic, payload, json: true })
    }
}

/// The payload, telling how many events of its subject were dropped before it.
fn with_lost(payload: &Bytes, lost: u64) -> Bytes {
    match payload.strip_suffix(b"}") {
        Some(open) if lost > 0 => {
            let mut told = open.to_vec();
            told.extend_from_slice(format!(",\"lost\":{lost}}}").as_bytes());
            told.into()
        }
        _ => payload.clone(),
    }
}
