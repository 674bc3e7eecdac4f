//! What is published next: the order and the pace of everything that goes to the broker. Pure.
//!
//! May not touch a socket or decide what is true: it is told what has changed and reads the values
//! at the moment of sending. States are a set and events are a queue (design, decision 5). After
//! every CONNACK the full state goes out and is acknowledged, then `online` (decision 6); the
//! outbox drains beside it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::answers::{AnswerDropped, AnswerQueue};
use super::changed::Changed;
use super::desk::{Desk, GatewayDesk};
use super::discovery::{DiscoveryDesk, DiscoverySettings};
use super::outgoing::{Acknowledged, Kind, Outgoing, View};
use super::phase::Phase;
use super::refusal::Refusal;
use super::requests::Answer;
use super::topics::Topics;
use crate::fleet::{Fleet, GatewayIndex};
use crate::homeassistant;
use crate::ids::{DeviceId, Moment};
use crate::outbox::Outbox;
use crate::outbox::store::Key;
use crate::payload::Subject;

/// The least time between two infos of one topic, in milliseconds (contract, section 1).
pub(super) const INFO_INTERVAL_MS: i64 = 10_000;
/// How long after a PUBACK with a failing reason the message is sent again, in milliseconds.
const REFUSED_RETRY_MS: i64 = 2_000;
/// As many refusals in a row double that time: to a minute.
const REFUSALS_COUNTED_MAX: u32 = 5;
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
    Answer(Answer),
    Discovery(homeassistant::Subject),
    Undiscovered(String),
}

/// The order of what is published.
#[derive(Debug)]
pub struct Publisher {
    pub(super) topics: Topics,
    pub(super) phase: Phase,
    pub(super) window: usize,
    pub(super) token: u64,
    pub(super) in_flight: BTreeMap<u64, Sent>,
    pub(super) changed: Changed,
    pub(super) cleared: VecDeque<String>,
    pub(super) gateways: Vec<GatewayDesk>,
    pub(super) bridge_info: Desk,
    pub(super) bridge_state: Option<&'static str>,
    pub(super) again: BTreeMap<Moment, Vec<Sent>>,
    /// Devices whose state the broker will never take.
    pub(super) unfit: BTreeSet<(GatewayIndex, DeviceId)>,
    /// In a row.
    refusals: u32,
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
            cleared: VecDeque::new(),
            gateways: vec![GatewayDesk::default(); gateways],
            bridge_info: Desk::default(),
            bridge_state: None,
            again: BTreeMap::new(),
            unfit: BTreeSet::new(),
            refusals: 0,
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
    /// not known to be cleared are cleared on the next one.
    pub fn disconnected(&mut self, closed_by_broker: bool, outbox: &mut Outbox) {
        self.phase = Phase::Away;
        self.bridge_state = None;
        self.requests_wanted = false;
        self.answers.disconnected(closed_by_broker);
        for (_, sent) in std::mem::take(&mut self.in_flight).into_iter().rev() {
            if let Sent::Cleared(topic) = sent {
                self.cleared.push_front(topic);
            }
        }
        for sent in std::mem::take(&mut self.again).into_values().flatten() {
            if let Sent::Cleared(topic) = sent {
                self.cleared.push_back(topic);
            }
        }
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

    /// How many retained states the broker has refused, and are to be sent again.
    #[must_use]
    pub fn states_refused(&self) -> usize {
        self.again.values().flatten().filter(|sent| sent.is_state()).count()
    }

    /// Of how many devices the broker takes no state, however often it is sent.
    #[must_use]
    pub fn states_unfit(&self) -> usize {
        self.unfit.len()
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
        if idle || self.in_flight.len() >= self.window {
            return None;
        }
        let looking = self.phase == Phase::Looking;
        let gateways: &[GatewayDesk] = if looking { &[] } else { &self.gateways };
        let infos = gateways.iter().map(|desk| &desk.info).chain([&self.bridge_info]);
        let info = infos.filter(|desk| desk.dirty).map(|desk| desk.next_at(INFO_INTERVAL_MS)).min();
        let again = self.again.first_key_value().map(|(&at, _)| at);
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

    /// An acknowledgement, or a PUBACK with a failing reason; `None` for an unknown token.
    pub fn acknowledged(
        &mut self,
        now: Moment,
        token: u64,
        result: Result<(), Refusal>,
        outbox: &mut Outbox,
    ) -> Option<Acknowledged> {
        let sent = self.in_flight.remove(&token)?;
        let taken = result.is_ok();
        let kind = match &sent {
            Sent::Event(_) => Kind::Event,
            Sent::GatewayInfo(_) | Sent::BridgeInfo => Kind::Info,
            Sent::Device(..) | Sent::Cleared(_) | Sent::GatewayState(_) | Sent::BridgeState => {
                Kind::State
            }
            Sent::Answer(_) => Kind::Answer,
            Sent::Discovery(_) | Sent::Undiscovered(_) => Kind::Discovery,
        };
        if kind == Kind::Discovery {
            self.discovery.answered(now);
        }
        let read_at = match &sent {
            Sent::Event(subject) if taken => outbox.acknowledge(subject),
            _ => None,
        };
        if let (Sent::Cleared(topic), true) = (&sent, taken) {
            outbox.note(Key::Clearing(topic.clone()), None);
        }
        let refused_at = (!taken).then(|| self.topics_of(&sent));
        match sent {
            Sent::Answer(answer) => self.answers.answered(answer, result),
            _ if taken => self.refusals = 0,
            sent => {
                let wait = REFUSED_RETRY_MS << self.refusals.min(REFUSALS_COUNTED_MAX);
                self.refusals += 1;
                self.again.entry(now.plus(wait)).or_default().push(sent);
            }
        }
        Some(Acknowledged { kind, read_at, refused_at })
    }

    /// The next message, if the window has room for one.
    pub fn next(&mut self, now: Moment, outbox: &mut Outbox, view: &View) -> Option<Outgoing> {
        if self.phase == Phase::Away || self.in_flight.len() >= self.window {
            return None;
        }
        self.take_up_again(now, outbox);
        match self.phase {
            Phase::Looking => return self.next_bridge_info(now, view),
            Phase::Leaving => return self.next_goodbye(view),
            _ => {}
        }
        self.see_whether_filled(view);
        self.next_offline(view)
            .or_else(|| self.next_bridge_state())
            .or_else(|| self.next_cleared(outbox, view))
            .or_else(|| self.next_online(view))
            .or_else(|| self.next_info(now, view))
            .or_else(|| self.next_discovery(now, view))
            .or_else(|| self.next_of_states_and_events(outbox, view))
    }

    fn take_up_again(&mut self, now: Moment, outbox: &mut Outbox) {
        while let Some(due) = self.again.first_entry().filter(|due| *due.key() <= now) {
            for sent in due.remove() {
                if let Phase::Filling { mark, last } = &mut self.phase
                    && sent.is_state()
                {
                    // The full state is not out yet after all.
                    (*mark, *last) = (None, None);
                }
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
                    Sent::Answer(_) => {}
                    sent @ (Sent::Discovery(_) | Sent::Undiscovered(_)) => {
                        self.discovery.again(sent);
                    }
                }
            }
        }
    }
}

impl Sent {
    pub(super) const fn is_state(&self) -> bool {
        matches!(
            self,
            Self::Device(..) | Self::Cleared(_) | Self::GatewayState(_) | Self::BridgeState
        )
    }

    pub(super) const fn is_retained(&self) -> bool {
        !matches!(self, Self::Event(_) | Self::Answer(_))
    }
}
