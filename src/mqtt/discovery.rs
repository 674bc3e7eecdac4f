//! Home Assistant's discovery: what of it is published next, and what is cleared.
//!
//! May not make payloads (`homeassistant` does) nor hold up events: it is paced, and begins only
//! once the full state is out and it is known what the broker keeps of earlier discovery. That is
//! not published again, unless Home Assistant has begun anew or somebody asks for it.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use super::clear_queue::ClearQueue;
use super::discovery_topics::{bridge_topics, device_topics, gateway_topics};
use super::outgoing::{Draft, View};
use super::publisher::Publisher;
use super::sent::Sent;
use super::topics::Topics;
use crate::fleet::{DeviceState, Fleet, GatewayIndex};
use crate::homeassistant::{self, Shape, Subject};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::{Directory, GatewayEntry};

/// Between two messages, in milliseconds. Home Assistant takes tens of milliseconds for a new
/// device, and brokers drop what a slow subscriber does not take.
const PACE_MS: i64 = 50;
/// Unacknowledged messages, so that a small window is not filled with them.
const IN_FLIGHT_MAX: usize = 4;
/// Between parents and children, in milliseconds: Home Assistant sets up an entity's platform
/// beside the others, and complains about a device whose parent it does not know yet.
const GENERATION_GAP_MS: i64 = 2_000;
/// How long the broker's own memory is waited for, in milliseconds, where our own topic is not
/// echoed; without it, what it keeps is published again.
const MEMORY_WAIT_MS: i64 = 10_000;
/// From the last message of a round to the states, in milliseconds: Home Assistant subscribes half
/// a second after it has read of a topic. Only a broker that keeps nothing makes this matter.
const STATES_AFTER_MS: i64 = 3_000;

/// Discovery as the configuration has it.
#[derive(Clone, Debug)]
pub struct DiscoverySettings {
    /// Whether it is published; otherwise what is there is cleared.
    pub enabled: bool,
    /// What its topics begin with.
    pub prefix: String,
    /// What the payloads have in common.
    pub discovery: homeassistant::Discovery,
}

/// What is known of discovery at the broker, and what is to be said.
#[derive(Debug)]
pub(super) struct DiscoveryDesk {
    settings: DiscoverySettings,
    /// What the broker keeps, by its hash; `None`: it is to be published again all the same.
    told: HashMap<Subject, Option<u64>>,
    shapes: HashMap<(GatewayIndex, DeviceId), Shape>,
    /// Parents first, as subjects are ordered.
    due: BTreeSet<Subject>,
    cleared: ClearQueue,
    /// Found and cleared on this connection.
    stale: HashSet<String>,
    /// What the broker keeps has been read.
    memory_read: bool,
    memory_wait: Option<Moment>,
    next_at: Moment,
    /// Of which generation what was published last is, until the gap after it has passed.
    parents_sent: Option<u8>,
    /// What is known of the broker's memory, or which gateways' views are live, has changed.
    strangers_due: bool,
    states_after: bool,
    states_at: Option<Moment>,
    in_flight: usize,
}

impl DiscoveryDesk {
    pub(super) fn new(settings: DiscoverySettings) -> Self {
        Self {
            settings,
            told: HashMap::new(),
            shapes: HashMap::new(),
            due: BTreeSet::new(),
            cleared: ClearQueue::default(),
            stale: HashSet::new(),
            memory_read: false,
            memory_wait: None,
            next_at: Moment::from_millis(0),
            parents_sent: None,
            strangers_due: false,
            states_after: false,
            states_at: None,
            in_flight: 0,
        }
    }

    /// A new connection: what the broker keeps is to be read anew.
    pub(super) fn connected(&mut self, fleet: &Fleet) {
        let settings = self.settings.clone();
        *self = Self::new(settings);
        self.all_due(fleet);
    }

    /// All that is known becomes due, unless discovery is switched off.
    fn all_due(&mut self, fleet: &Fleet) {
        if self.settings.enabled {
            self.due.insert(Subject::Bridge);
            self.due.extend(fleet.gateways().map(Subject::Gateway));
            self.due.extend(self.shapes.keys().map(|&(gateway, id)| Subject::Device(gateway, id)));
        }
    }

    /// A device's state goes out: its discovery follows, if it looks otherwise than before.
    pub(super) fn state_sent(&mut self, gateway: GatewayIndex, state: &DeviceState) {
        if !self.settings.enabled {
            return;
        }
        let shape = Shape::of(state);
        let known = self.shapes.insert((gateway, state.device_id), shape);
        if known != Some(shape) {
            self.due.insert(Subject::Device(gateway, state.device_id));
        }
    }

    fn topic(&self, id: &str) -> String {
        format!("{}/device/{id}/config", self.settings.prefix)
    }

    fn id_of(&self, directory: &Directory, subject: Subject) -> Option<String> {
        let discovery = &self.settings.discovery;
        let name = |gateway| directory.gateway(gateway).map(|entry| &entry.name);
        Some(match subject {
            Subject::Bridge => discovery.bridge_id(&directory.bridge),
            Subject::Gateway(gateway) => discovery.gateway_id(name(gateway)?),
            Subject::Device(gateway, device_id) => discovery.device_id(name(gateway)?, device_id),
        })
    }

    /// The topic of a subject's discovery.
    pub(super) fn topic_of(&self, directory: &Directory, subject: Subject) -> String {
        self.topic(self.id_of(directory, subject).as_deref().unwrap_or("+"))
    }

    fn payload(&self, topics: &Topics, view: &View, subject: Subject) -> Option<Bytes> {
        let (discovery, directory) = (&self.settings.discovery, view.directory);
        Some(match subject {
            Subject::Bridge => discovery.bridge(directory, &bridge_topics(topics)),
            Subject::Gateway(gateway) => {
                let entry = directory.gateway(gateway)?;
                discovery.gateway(directory, entry, &gateway_topics(topics, entry))
            }
            Subject::Device(gateway, device_id) => {
                let entry = directory.gateway(gateway)?;
                let state = view.fleet.device(gateway, device_id)?;
                discovery.device(entry, &state, &device_topics(topics, entry, device_id))
            }
        })
    }

    /// What goes next.
    fn take(&mut self, now: Moment, topics: &Topics, view: &View) -> Option<(Sent, String, Bytes)> {
        if let Some(topic) = self.cleared.pop_front() {
            self.sent(now);
            return Some((Sent::Undiscovered(topic.clone()), topic, Bytes::new()));
        }
        while let Some(&subject) = self.due.first() {
            if self.parents_sent.is_some_and(|parents| parents < generation(subject)) {
                self.parents_sent = None;
                self.next_at = now.plus(GENERATION_GAP_MS);
                return None;
            }
            self.due.remove(&subject);
            let Some(id) = self.id_of(view.directory, subject) else { continue };
            let Some(payload) = self.payload(topics, view, subject) else { continue };
            let hash = Some(hash(&payload));
            if self.told.insert(subject, hash) != Some(hash) {
                self.parents_sent = Some(generation(subject));
                self.sent(now);
                return Some((Sent::Discovery(subject), self.topic(&id), payload));
            }
        }
        None
    }

    fn sent(&mut self, now: Moment) {
        self.next_at = now.plus(PACE_MS);
        self.in_flight += 1;
    }

    fn is_idle(&self) -> bool {
        self.due.is_empty() && !self.cleared.is_ready() && self.in_flight == 0
    }

    /// When there is something to do although nothing has changed.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        let waits = !self.due.is_empty() || self.cleared.is_ready();
        let ready = if self.memory_read { Some(self.next_at) } else { self.memory_wait };
        let next = ready.filter(|_| waits && self.in_flight < IN_FLIGHT_MAX);
        next.into_iter().chain(self.states_at).min()
    }

    /// The broker has answered.
    pub(super) fn answered(&mut self, now: Moment) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.is_idle() && std::mem::take(&mut self.states_after) {
            self.states_at = Some(now.plus(STATES_AFTER_MS));
        }
    }

    /// The session has stood so long that what is gone may be cleared.
    pub(super) const fn set_settled(&mut self) {
        self.cleared.set_settled(true);
    }

    /// Lets the discovery of these devices, which `forget` named, wait no longer.
    pub(super) fn hasten(&mut self, entry: &GatewayEntry, device_ids: &[DeviceId]) {
        let id = |&device_id| self.settings.discovery.device_id(&entry.name, device_id);
        let topics: BTreeSet<String> = device_ids.iter().map(|it| self.topic(&id(it))).collect();
        self.cleared.hasten(|topic| topics.contains(topic));
    }

    /// Whether what the broker keeps has been read, and nothing of it is left to be cleared.
    pub(super) fn is_cleared(&self) -> bool {
        self.memory_read && self.cleared.is_empty() && self.in_flight == 0
    }

    /// A gateway's view has changed.
    pub(super) const fn gateway_changed(&mut self) {
        self.strangers_due = true;
    }

    /// What was refused is to be said again.
    pub(super) fn again(&mut self, sent: Sent) {
        match sent {
            Sent::Discovery(subject) => {
                self.told.remove(&subject);
                self.due.insert(subject);
            }
            Sent::Undiscovered(topic) => self.cleared.push_back(topic),
            _ => {}
        }
    }
}

/// Which subjects come first: parents.
const fn generation(subject: Subject) -> u8 {
    match subject {
        Subject::Bridge => 0,
        Subject::Gateway(_) => 1,
        Subject::Device(..) => 2,
    }
}

fn hash(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

impl Publisher {
    /// The filter of all devices' discovery, ours among it.
    #[must_use]
    pub fn discovery_filter(&self) -> String {
        self.discovery.topic("+")
    }

    /// Whether a topic is discovery of this gateway, which is not configured, or of its devices.
    #[must_use]
    pub fn is_discovery_of(&self, gateway: &GatewayName, topic: &str) -> bool {
        let settings = &self.discovery.settings;
        let id = topic
            .strip_prefix(settings.prefix.as_str())
            .and_then(|rest| rest.strip_prefix("/device/")?.strip_suffix("/config"));
        id.is_some_and(|id| settings.discovery.is_of(gateway, id))
    }

    /// A retained message: if it is discovery of ours, it is known from now on, or cleared where
    /// it is of nothing that there is (then it is true, once).
    pub fn discovery_found(&mut self, directory: &Directory, topic: &str, payload: &[u8]) -> bool {
        let desk = &mut self.discovery;
        let id = topic
            .strip_prefix(desk.settings.prefix.as_str())
            .and_then(|rest| rest.strip_prefix("/device/")?.strip_suffix("/config"));
        let Some(id) = id else { return false };
        let bridge_id = desk.settings.discovery.bridge_id(&directory.bridge);
        if !homeassistant::is_ours(payload, &self.topics.bridge_state(), &bridge_id) {
            return false;
        }
        match desk.settings.discovery.subject(directory, id) {
            Some(subject) if desk.settings.enabled => {
                desk.told.insert(subject, Some(hash(payload)));
                false
            }
            // Published by an earlier run with another state directory, or by another instance.
            None if !self.gone.iter().any(|gone| desk.settings.discovery.is_of(gone, id)) => false,
            Some(_) | None => {
                let new = desk.stale.insert(topic.to_owned());
                if new {
                    desk.cleared.push_back(topic.to_owned());
                }
                new
            }
        }
    }

    /// All that the broker kept of discovery has been seen.
    pub const fn discovery_memory_read(&mut self) {
        self.discovery.memory_read = true;
        self.discovery.strangers_due = true;
    }

    /// Whether nothing of discovery waits nor is on its way.
    #[must_use]
    pub fn discovery_is_idle(&self) -> bool {
        self.is_online() && self.discovery.is_idle() && self.discovery.is_cleared()
    }

    /// All discovery is to be published again, whatever the broker keeps.
    pub fn discovery_again(&mut self, fleet: &Fleet) {
        let desk = &mut self.discovery;
        desk.told.values_mut().for_each(|hash| *hash = None);
        desk.all_due(fleet);
    }

    /// Home Assistant has begun anew: all discovery, then all states.
    pub fn home_assistant_born(&mut self, fleet: &Fleet) {
        if self.discovery.settings.enabled {
            self.discovery_again(fleet);
            self.discovery.states_after = true;
        }
    }

    /// Discovery of a device that is no more is cleared, if there is any.
    pub(super) fn undiscover(
        &mut self,
        gateway: GatewayIndex,
        device_id: DeviceId,
        entry: &GatewayEntry,
    ) {
        let desk = &mut self.discovery;
        let subject = Subject::Device(gateway, device_id);
        desk.shapes.remove(&(gateway, device_id));
        desk.due.remove(&subject);
        // What Home Assistant never heard of, it would complain about.
        if desk.told.remove(&subject).is_some() {
            let id = desk.settings.discovery.device_id(&entry.name, device_id);
            desk.cleared.push_back(desk.topic(&id));
        }
    }

    /// A gateway's devices are known: discovery of others under its name is of none.
    fn undiscover_strangers(&mut self, view: &View) {
        let told: Vec<Subject> = self.discovery.told.keys().copied().collect();
        for subject in told {
            let Subject::Device(gateway, device_id) = subject else { continue };
            let gone = view.fleet.gateway_is_live(gateway)
                && view.fleet.device(gateway, device_id).is_none();
            if let Some(entry) = view.directory.gateway(gateway).filter(|_| gone) {
                self.undiscover(gateway, device_id, entry);
            }
        }
    }

    pub(super) fn next_discovery(&mut self, now: Moment, view: &View) -> Option<Draft> {
        if !self.is_online() {
            return None;
        }
        if self.discovery.states_at.is_some_and(|at| at <= now) {
            self.discovery.states_at = None;
            self.all_changed(view.fleet);
        }
        let desk = &mut self.discovery;
        let wait_until = *desk.memory_wait.get_or_insert(now.plus(MEMORY_WAIT_MS));
        if !desk.memory_read && wait_until <= now {
            self.discovery_memory_read();
        }
        let desk = &self.discovery;
        if !desk.memory_read || desk.next_at > now || desk.in_flight >= IN_FLIGHT_MAX {
            return None;
        }
        if std::mem::take(&mut self.discovery.strangers_due) {
            self.undiscover_strangers(view);
        }
        let (sent, topic, payload) = self.discovery.take(now, &self.topics, view)?;
        let json = !payload.is_empty();
        Some(Draft { sent, topic, payload, json })
    }
}
