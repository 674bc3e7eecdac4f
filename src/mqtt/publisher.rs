//! What is published next: the order and the pace of everything that goes to the broker. Pure.
//!
//! May not touch a socket or decide what is true: it is told what has changed and reads the values
//! at the moment of sending. States are a set and events are a queue (design, decision 5). After
//! every CONNACK the full state goes out and is acknowledged, then `online` (decision 6); the
//! outbox drains beside it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::changed::Changed;
use super::desk::{Desk, GatewayDesk};
use super::topics::Topics;
use crate::fleet::{Fleet, GatewayIndex};
use crate::ids::{DeviceId, Moment};
use crate::outbox::Outbox;
use crate::payload::{
    BridgeInfo, DeviceStatePayload, Directory, GatewayInfo, LinkFacts, Subject, to_bytes,
};

/// The least time between two infos of one topic, in milliseconds (contract, section 1).
const INFO_INTERVAL_MS: i64 = 10_000;
/// How long after a PUBACK with a failing reason the message is sent again, in milliseconds.
const REFUSED_RETRY_MS: i64 = 2_000;
/// Where states and events wait together, every so many-th message is a state.
const STATE_TURN: u32 = 4;

/// A message for the broker, QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Comes back with the acknowledgement.
    pub token: u64,
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// Whether the broker keeps it.
    pub retain: bool,
    /// Whether it is JSON; otherwise plain text.
    pub json: bool,
}

/// What kinds of message there are, as the metrics count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Of a device, a gateway or the bridge.
    Event,
    /// A retained state.
    State,
    /// A retained info.
    Info,
}

impl Kind {
    /// Its name as a label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::State => "state",
            Self::Info => "info",
        }
    }
}

/// What was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// What kind of message.
    pub kind: Kind,
    /// For an event that was taken: when it had been read from the stream.
    pub read_at: Option<Instant>,
}

/// Where the values are read at the moment of sending.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What is true.
    pub fleet: &'a Fleet,
    /// How things are called.
    pub directory: &'a Directory,
    /// What the links know, by gateway.
    pub links: &'a [LinkFacts],
    /// The bridge itself.
    pub bridge: &'a BridgeInfo<'a>,
}

/// What is in flight, or has to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Event(Subject),
    Device(GatewayIndex, DeviceId),
    Cleared(String),
    GatewayState(GatewayIndex),
    GatewayInfo(GatewayIndex),
    BridgeState,
    BridgeInfo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection: nothing is sent.
    Away,
    /// The full state is on its way. `mark`: what it consists of, once every gateway is decided;
    /// `last`: its last message, once that is sent.
    Filling { mark: Option<u64>, last: Option<u64> },
    /// `online` is the bridge's word.
    Online,
    /// A clean stop: `offline` for the gateways, then for the bridge.
    Leaving,
}

/// The order of what is published.
#[derive(Debug)]
pub struct Publisher {
    topics: Topics,
    phase: Phase,
    window: usize,
    token: u64,
    in_flight: BTreeMap<u64, Sent>,
    changed: Changed,
    cleared: VecDeque<String>,
    gateways: Vec<GatewayDesk>,
    bridge_info: Desk,
    bridge_state: Option<&'static str>,
    again: BTreeMap<Moment, Vec<Sent>>,
    turn: u32,
    requests_wanted: bool,
}

impl Publisher {
    /// For this many gateways, without a connection.
    #[must_use]
    pub fn new(topics: Topics, gateways: usize) -> Self {
        Self {
            topics,
            phase: Phase::Away,
            window: 0,
            token: 0,
            in_flight: BTreeMap::new(),
            changed: Changed::default(),
            cleared: VecDeque::new(),
            gateways: vec![GatewayDesk::default(); gateways],
            bridge_info: Desk::default(),
            bridge_state: None,
            again: BTreeMap::new(),
            turn: 0,
            requests_wanted: false,
        }
    }

    /// The topics in use.
    #[must_use]
    pub const fn topics(&self) -> &Topics {
        &self.topics
    }

    /// A new connection, which takes this many unacknowledged messages: all is published again.
    pub fn connected(&mut self, window: usize, fleet: &Fleet) {
        self.phase = Phase::Filling { mark: None, last: None };
        self.window = window.max(1);
        self.in_flight.clear();
        self.again.clear();
        self.all_changed(fleet);
        self.bridge_info.forget();
        for desk in &mut self.gateways {
            desk.info.forget();
        }
    }

    /// The connection is lost, and with it all that was in flight.
    pub fn disconnected(&mut self, outbox: &mut Outbox) {
        self.phase = Phase::Away;
        self.bridge_state = None;
        self.requests_wanted = false;
        self.in_flight.clear();
        self.again.clear();
        outbox.put_all_back();
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
        self.bridge_info.dirty = true;
    }

    /// This device's state has changed.
    pub fn device_changed(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        self.changed.insert((gateway, device_id));
        self.info_changed(gateway);
    }

    /// This device is no more.
    pub fn device_forgotten(&mut self, gateway: GatewayIndex, device_id: DeviceId, view: &View) {
        self.changed.remove((gateway, device_id));
        if let Some(entry) = view.directory.gateway(gateway) {
            self.cleared.push_back(self.topics.device_state(&entry.name, device_id));
        }
        self.info_changed(gateway);
    }

    /// This gateway's state has changed; what changed of its devices before goes out before it.
    pub fn gateway_changed(&mut self, gateway: GatewayIndex) {
        let mark = self.changed.mark();
        if let Some(desk) = self.gateways.get_mut(gateway.0) {
            desk.state_changed(mark);
        }
    }

    /// Something in this gateway's info has changed.
    pub fn info_changed(&mut self, gateway: GatewayIndex) {
        if let Some(desk) = self.gateways.get_mut(gateway.0) {
            desk.info.dirty = true;
        }
    }

    /// Something in the bridge's info has changed.
    pub const fn bridge_info_changed(&mut self) {
        self.bridge_info.dirty = true;
    }

    /// `offline` was seen on the bridge's own topic: a late last will, unless we are leaving.
    pub fn offline_seen(&mut self) {
        if self.phase == Phase::Online {
            self.bridge_state = Some("online");
        }
    }

    /// A clean stop: from now on only `offline` is said, of the gateways, then of the bridge.
    pub fn leave(&mut self) {
        if self.phase == Phase::Away {
            return;
        }
        self.phase = Phase::Leaving;
        self.bridge_state = Some("offline");
        for desk in &mut self.gateways {
            desk.state_changed(0);
        }
    }

    /// Whether `offline` has been said and acknowledged, or nobody is there to hear it.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.phase == Phase::Away
            || (self.phase == Phase::Leaving
                && self.bridge_state.is_none()
                && !self.in_flight.values().any(|sent| matches!(sent, Sent::BridgeState)))
    }

    /// Whether `online` is the bridge's word.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.phase == Phase::Online
    }

    /// Whether a connection stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.phase != Phase::Away
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
        if self.phase == Phase::Away {
            return None;
        }
        let infos = self.gateways.iter().map(|desk| &desk.info).chain([&self.bridge_info]);
        let info = infos.filter(|desk| desk.dirty).map(|desk| desk.next_at(INFO_INTERVAL_MS)).min();
        let again = self.again.first_key_value().map(|(&at, _)| at);
        info.into_iter().chain(again).min()
    }

    /// An acknowledgement, or a PUBACK with a failing reason; `None` for an unknown token.
    pub fn acknowledged(
        &mut self,
        now: Moment,
        token: u64,
        taken: bool,
        outbox: &mut Outbox,
    ) -> Option<Acknowledged> {
        let sent = self.in_flight.remove(&token)?;
        let kind = match &sent {
            Sent::Event(_) => Kind::Event,
            Sent::GatewayInfo(_) | Sent::BridgeInfo => Kind::Info,
            Sent::Device(..) | Sent::Cleared(_) | Sent::GatewayState(_) | Sent::BridgeState => {
                Kind::State
            }
        };
        let read_at = match &sent {
            Sent::Event(subject) if taken => outbox.acknowledge(subject),
            _ => None,
        };
        if !taken {
            self.again.entry(now.plus(REFUSED_RETRY_MS)).or_default().push(sent);
        }
        Some(Acknowledged { kind, read_at })
    }

    /// The next message, if the window has room for one.
    pub fn next(&mut self, now: Moment, outbox: &mut Outbox, view: &View) -> Option<Outgoing> {
        if self.phase == Phase::Away || self.in_flight.len() >= self.window {
            return None;
        }
        self.take_up_again(now, outbox);
        if self.phase == Phase::Leaving {
            return self.next_goodbye(view);
        }
        self.see_whether_filled(view);
        self.next_offline(view)
            .or_else(|| self.next_bridge_state())
            .or_else(|| self.next_cleared())
            .or_else(|| self.next_of_states_and_events(outbox, view))
            .or_else(|| self.next_online(view))
            .or_else(|| self.next_info(now, view))
    }

    fn take_up_again(&mut self, now: Moment, outbox: &mut Outbox) {
        while let Some(due) = self.again.first_entry().filter(|due| *due.key() <= now) {
            for sent in due.remove() {
                match sent {
                    Sent::Event(subject) => outbox.put_back(&subject),
                    Sent::Device(gateway, device_id) => self.changed.insert((gateway, device_id)),
                    Sent::Cleared(topic) => self.cleared.push_back(topic),
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
                }
            }
        }
    }

    /// The full state is out when all that it consisted of has been sent and acknowledged.
    fn see_whether_filled(&mut self, view: &View) {
        let Phase::Filling { mark, last } = &mut self.phase else { return };
        if mark.is_none() {
            if view.fleet.gateways().all(|gateway| view.fleet.gateway_is_decided(gateway)) {
                *mark = Some(self.changed.mark());
            }
        }
        let states_out = |desk: &GatewayDesk| !desk.state_dirty;
        if last.is_none()
            && mark.is_some_and(|mark| self.changed.has_passed(mark))
            && self.gateways.iter().all(states_out)
        {
            *last = Some(self.token);
        }
        let acknowledged = |last: u64| {
            !self.in_flight.iter().any(|(&token, sent)| token <= last && !sent.is_event())
        };
        if last.is_some_and(acknowledged) {
            self.phase = Phase::Online;
            self.bridge_state = Some("online");
            self.requests_wanted = true;
        }
    }

    fn send(&mut self, sent: Sent, topic: String, payload: Bytes, json: bool) -> Outgoing {
        self.token += 1;
        let retain = !sent.is_event();
        self.in_flight.insert(self.token, sent);
        Outgoing { token: self.token, topic, payload, retain, json }
    }

    fn next_goodbye(&mut self, view: &View) -> Option<Outgoing> {
        if let Some(at) = self.gateways.iter().position(|desk| desk.state_dirty) {
            return self.send_gateway_state(GatewayIndex(at), "offline", view);
        }
        self.next_bridge_state()
    }

    fn next_bridge_state(&mut self) -> Option<Outgoing> {
        let state = self.bridge_state.take()?;
        let topic = self.topics.bridge_state();
        Some(self.send(Sent::BridgeState, topic, Bytes::from_static(state.as_bytes()), false))
    }

    fn next_cleared(&mut self) -> Option<Outgoing> {
        let topic = self.cleared.pop_front()?;
        Some(self.send(Sent::Cleared(topic.clone()), topic, Bytes::new(), false))
    }

    /// A gateway whose view is not live says so before anything else.
    fn next_offline(&mut self, view: &View) -> Option<Outgoing> {
        let gone = |at: usize| !view.fleet.gateway_is_live(GatewayIndex(at));
        let at = (0..self.gateways.len())
            .find(|&at| self.gateways.get(at).is_some_and(|desk| desk.state_dirty) && gone(at))?;
        self.send_gateway_state(GatewayIndex(at), "offline", view)
    }

    /// A gateway whose view is live says so once its devices' states are out.
    fn next_online(&mut self, view: &View) -> Option<Outgoing> {
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
        let topic = self.topics.gateway_state(&view.directory.gateway(gateway)?.name);
        let payload = Bytes::from_static(state.as_bytes());
        Some(self.send(Sent::GatewayState(gateway), topic, payload, false))
    }

    fn next_of_states_and_events(&mut self, outbox: &mut Outbox, view: &View) -> Option<Outgoing> {
        self.turn = (self.turn + 1) % STATE_TURN;
        if self.turn == 0 {
            self.next_state(view).or_else(|| self.next_event(outbox, view))
        } else {
            self.next_event(outbox, view).or_else(|| self.next_state(view))
        }
    }

    fn next_state(&mut self, view: &View) -> Option<Outgoing> {
        while let Some((gateway, device_id)) = self.changed.take() {
            let Some(state) = view.fleet.device(gateway, device_id) else { continue };
            let entry = view.directory.gateway(gateway)?;
            let payload = to_bytes(&DeviceStatePayload::new(view.directory, entry, &state));
            let topic = self.topics.device_state(&entry.name, device_id);
            return Some(self.send(Sent::Device(gateway, device_id), topic, payload, true));
        }
        None
    }

    fn next_event(&mut self, outbox: &mut Outbox, view: &View) -> Option<Outgoing> {
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
        let topic = self.topics.event(&record.subject, record.event_type);
        let payload = with_lost(&record.payload, lost);
        let subject = record.subject.clone();
        Some(self.send(Sent::Event(subject), topic, payload, true))
    }

    fn next_info(&mut self, now: Moment, view: &View) -> Option<Outgoing> {
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

impl Sent {
    const fn is_event(&self) -> bool {
        matches!(self, Self::Event(_))
    }
}
