//! Each kind of message, made at the moment of sending.
//!
//! May not decide which kind goes first: `publisher` asks in its order.

use bytes::Bytes;

use super::desk::GatewayDesk;
use super::outgoing::{Outgoing, View};
use super::publisher::{INFO_INTERVAL_MS, Publisher, Sent};
use crate::fleet::GatewayIndex;
use crate::ids::Moment;
use crate::outbox::Outbox;
use crate::payload::{DeviceStatePayload, GatewayInfo, Subject, to_bytes};

/// Where states and events wait together, every so many-th message is a state.
const STATE_TURN: u32 = 4;
/// And one of so many an answer: a flood of requests holds up no event.
const ANSWER_TURN: u32 = 2;

impl Publisher {
    pub(super) fn send(
        &mut self,
        sent: Sent,
        topic: String,
        payload: Bytes,
        json: bool,
    ) -> Outgoing {
        self.token += 1;
        let retain = sent.is_retained();
        let correlation_data = match &sent {
            Sent::Answer(answer) => answer.correlation_data.clone(),
            _ => None,
        };
        self.in_flight.insert(self.token, sent);
        Outgoing { token: self.token, topic, payload, retain, json, correlation_data }
    }

    /// A message's topic, or a filter of topics like it: for people.
    pub(super) fn topics_of(&self, sent: &Sent) -> String {
        match sent {
            Sent::Answer(answer) => answer.topic.clone(),
            Sent::Cleared(topic) | Sent::Undiscovered(topic) => topic.clone(),
            Sent::Discovery(_) => self.discovery_filter(),
            Sent::Event(subject) => self.topics.event(subject, "+"),
            Sent::BridgeState => self.topics.bridge_state(),
            Sent::BridgeInfo => self.topics.bridge_info(),
            Sent::Device(..) | Sent::GatewayState(_) | Sent::GatewayInfo(_) => self.topics.all(),
        }
    }

    pub(super) fn next_goodbye(&mut self, view: &View) -> Option<Outgoing> {
        if let Some(at) = self.gateways.iter().position(|desk| desk.state_dirty) {
            return self.send_gateway_state(GatewayIndex(at), "offline", view);
        }
        self.next_bridge_state()
    }

    pub(super) fn next_bridge_state(&mut self) -> Option<Outgoing> {
        let state = self.bridge_state.take()?;
        let topic = self.topics.bridge_state();
        Some(self.send(Sent::BridgeState, topic, Bytes::from_static(state.as_bytes()), false))
    }

    /// A gateway whose view is not live says so before anything else.
    pub(super) fn next_offline(&mut self, view: &View) -> Option<Outgoing> {
        let gone = |at: usize| !view.fleet.gateway_is_live(GatewayIndex(at));
        let at = (0..self.gateways.len())
            .find(|&at| self.gateways.get(at).is_some_and(|desk| desk.state_dirty) && gone(at))?;
        self.send_gateway_state(GatewayIndex(at), "offline", view)
    }

    /// A gateway whose view is live says so once its devices' states are out.
    pub(super) fn next_online(&mut self, view: &View) -> Option<Outgoing> {
        let passed = |desk: &GatewayDesk| desk.state_dirty && self.changed.has_passed(desk.mark);
        let at = self.gateways.iter().position(passed)?;
        self.send_gateway_state(GatewayIndex(at), "online", view)
    }

    fn send_gateway_state(
        &mut self,
        gateway: GatewayIndex,
        state: &'static str,
        view: &View,
    ) -> Option<Outgoing> {
        self.gateways.get_mut(gateway.0)?.state_dirty = false;
        self.gateway_said = true;
        let topic = self.topics.gateway_state(&view.directory.gateway(gateway)?.name);
        let payload = Bytes::from_static(state.as_bytes());
        Some(self.send(Sent::GatewayState(gateway), topic, payload, false))
    }

    pub(super) fn next_of_states_and_events(
        &mut self,
        outbox: &mut Outbox,
        view: &View,
    ) -> Option<Outgoing> {
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
    fn next_answer(&mut self) -> Option<Outgoing> {
        let answer = if self.is_online() { self.answers.take()? } else { return None };
        let (topic, payload) = (answer.topic.clone(), answer.payload.clone());
        Some(self.send(Sent::Answer(answer), topic, payload, true))
    }

    pub(super) fn next_state(&mut self, view: &View) -> Option<Outgoing> {
        while let Some((gateway, device_id)) = self.changed.take() {
            let Some(state) = view.fleet.device(gateway, device_id) else { continue };
            let entry = view.directory.gateway(gateway)?;
            let payload = to_bytes(&DeviceStatePayload::new(view.directory, entry, &state));
            let topic = self.topics.device_state(&entry.name, device_id);
            self.discovery.state_sent(gateway, &state);
            return Some(self.send(Sent::Device(gateway, device_id), topic, payload, true));
        }
        None
    }

    pub(super) fn next_event(&mut self, outbox: &mut Outbox, view: &View) -> Option<Outgoing> {
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
        Some(self.send(Sent::Event(subject), topic, payload, true))
    }

    pub(super) fn next_info(&mut self, now: Moment, view: &View) -> Option<Outgoing> {
        for at in 0..self.gateways.len() {
            let gateway = GatewayIndex(at);
            let desk = self.gateways.get_mut(at).map(|desk| &mut desk.info)?;
            if !desk.is_due(now, INFO_INTERVAL_MS) {
                continue;
            }
            let entry = view.directory.gateway(gateway)?;
            let state = view.fleet.gateway(gateway)?;
            let info = GatewayInfo::new(view.directory, entry, &state, view.links.get(at)?);
            if let Some(payload) = desk.take(now, to_bytes(&info)) {
                let topic = self.topics.gateway_info(&entry.name);
                return Some(self.send(Sent::GatewayInfo(gateway), topic, payload, true));
            }
        }
        self.next_bridge_info(now, view)
    }

    pub(super) fn next_bridge_info(&mut self, now: Moment, view: &View) -> Option<Outgoing> {
        if !self.bridge_info.is_due(now, INFO_INTERVAL_MS) {
            return None;
        }
        let payload = self.bridge_info.take(now, to_bytes(view.bridge))?;
        let topic = self.topics.bridge_info();
        Some(self.send(Sent::BridgeInfo, topic, payload, true))
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
