//! Home Assistant discovery: which part is published next, and which is removed.
//!
//! It is rate-limited, and starts once the bridge is online and earlier retained discovery was
//! read. Unchanged messages are published again only at an interval, on request, and when Home
//! Assistant has restarted.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};

use super::clearing::ClearQueue;
use super::message::{MessageId, Outgoing, View};
use super::pacing::Pacing;
use super::stale_discovery::StaleDiscovery;
use crate::fleet::{DeviceState, Fleet, GatewayIndex};
use crate::homeassistant::{Described, Discovery, Shape};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::{Directory, GatewayEntry};

/// From the last message after a restart of Home Assistant to the states, in milliseconds: Home
/// Assistant subscribes half a second after it has read a topic. Only a broker that retains nothing
/// makes this matter.
const STATES_AFTER_MS: i64 = 3_000;

/// What the broker retains of discovery, and what is to be published or removed.
#[derive(Debug)]
pub(crate) struct DiscoveryPublisher {
    pub(crate) discovery: Discovery,
    /// Whether it is published; otherwise what the broker retains of it is removed.
    is_enabled: bool,
    /// Hashes of the payloads at the broker; `None`: it is published again in any case.
    retained: HashMap<Described, Option<u64>>,
    stale: StaleDiscovery,
    shapes: HashMap<(GatewayIndex, DeviceId), Shape>,
    /// Those that the broker does not retain first (`false`), so that details of one device do not
    /// delay the appearance of another; then parents first, as subjects are ordered.
    due: BTreeSet<(bool, Described)>,
    /// The topics to be removed, in this order.
    pub(crate) removals: ClearQueue,
    /// Gateways that are unconfigured or forgotten, until nothing is left of them at the broker.
    cleared_gateways: BTreeSet<GatewayName>,
    /// Devices may no longer exist whose discovery is retained.
    check_devices: bool,
    pacing: Pacing,
    states: StatesAfterBirth,
}

/// All states are published again after the discovery that follows Home Assistant's birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatesAfterBirth {
    No,
    /// After the last message of discovery.
    AfterDiscovery,
    At(Moment),
}

impl DiscoveryPublisher {
    pub(crate) fn new(discovery: Discovery, is_enabled: bool) -> Self {
        Self {
            discovery,
            is_enabled,
            retained: HashMap::new(),
            stale: StaleDiscovery::default(),
            shapes: HashMap::new(),
            due: BTreeSet::new(),
            removals: ClearQueue::default(),
            cleared_gateways: BTreeSet::new(),
            check_devices: false,
            pacing: Pacing::default(),
            states: StatesAfterBirth::No,
        }
    }

    /// A new connection: what the broker retains is read again.
    pub(crate) fn connected(&mut self, fleet: &Fleet) {
        let cleared_gateways = std::mem::take(&mut self.cleared_gateways);
        let (stale, new) = (self.stale.again(), Self::new(self.discovery.clone(), self.is_enabled));
        *self = Self { cleared_gateways, stale, ..new };
        self.all_due(fleet);
    }

    fn all_due(&mut self, fleet: &Fleet) {
        if self.is_enabled {
            let gateways = fleet.gateways().map(|(index, _)| Described::Gateway(index));
            let devices = self.shapes.keys().map(|&(gateway, id)| Described::Device(gateway, id));
            let all: Vec<Described> = gateways.chain(devices).chain([Described::Bridge]).collect();
            all.into_iter().for_each(|subject| self.set_due(subject));
        }
    }

    fn set_due(&mut self, subject: Described) {
        self.due.insert((self.retained.contains_key(&subject), subject));
    }

    fn unset_due(&mut self, subject: Described) {
        self.due.remove(&(false, subject));
        self.due.remove(&(true, subject));
    }

    /// Publishes everything again, whatever the broker retains.
    pub(crate) fn publish_again(&mut self, fleet: &Fleet) {
        self.retained.values_mut().for_each(|hash| *hash = None);
        self.all_due(fleet);
    }

    /// The same at an interval, unless messages wait: if it is short, the last would wait forever.
    pub(crate) fn interval_elapsed(&mut self, fleet: &Fleet) {
        if self.due.is_empty() {
            self.publish_again(fleet);
        }
    }

    /// Home Assistant has started: publishes everything again, then all states.
    pub(crate) fn home_assistant_started(&mut self, fleet: &Fleet) {
        if self.is_enabled {
            self.publish_again(fleet);
            self.states = StatesAfterBirth::AfterDiscovery;
        }
    }

    /// Whether all states are due after Home Assistant's birth; true once.
    pub(crate) fn take_states_due(&mut self, now: Moment) -> bool {
        let due = matches!(self.states, StatesAfterBirth::At(at) if at <= now);
        if due {
            self.states = StatesAfterBirth::No;
        }
        due
    }

    /// A device's state is sent: its discovery follows if it differs from before.
    pub(crate) fn state_sent(&mut self, gateway: GatewayIndex, state: &DeviceState) {
        if !self.is_enabled {
            return;
        }
        let shape = Shape::of(state);
        if self.shapes.get(&(gateway, state.device_id)) != Some(&shape) {
            self.shapes.insert((gateway, state.device_id), shape);
            self.set_due(Described::Device(gateway, state.device_id));
        }
    }

    pub(crate) fn gateway_added(&mut self, gateway: GatewayIndex) {
        if self.is_enabled {
            self.set_due(Described::Gateway(gateway));
        }
    }

    pub(crate) const fn gateway_changed(&mut self) {
        self.check_devices = true;
    }

    /// Removes the discovery of a gateway that is forgotten.
    pub(crate) fn gateway_forgotten(&mut self, gateway: GatewayIndex, entry: &GatewayEntry) {
        self.unset_due(Described::Gateway(gateway));
        if self.retained.remove(&Described::Gateway(gateway)).is_some() {
            self.removals.push(self.discovery.gateway_topic(&entry.name));
        }
    }

    /// Removes the discovery of a gateway that is unconfigured or forgotten, as scans find it.
    pub(crate) fn clear_gateway(&mut self, gateway: GatewayName) {
        self.cleared_gateways.insert(gateway);
    }

    /// Gateways that are unconfigured or forgotten, and of which something may be left.
    pub(crate) const fn cleared_gateways(&self) -> &BTreeSet<GatewayName> {
        &self.cleared_gateways
    }

    /// Nothing is left of these gateways.
    pub(crate) fn take_cleared_gateways(&mut self) -> BTreeSet<GatewayName> {
        std::mem::take(&mut self.cleared_gateways)
    }

    /// Discovery of this gateway is not removed any more.
    pub(crate) fn keep(&mut self, gateway: &GatewayName) {
        self.cleared_gateways.remove(gateway);
        self.removals.remove(|topic| self.discovery.is_of(gateway, topic));
    }

    /// Removes the discovery of a device that no longer exists, if there is any: Home Assistant
    /// reports the removal of unknown ones.
    pub(crate) fn device_removed(
        &mut self,
        gateway: GatewayIndex,
        device_id: DeviceId,
        entry: &GatewayEntry,
    ) {
        let subject = Described::Device(gateway, device_id);
        self.shapes.remove(&(gateway, device_id));
        self.unset_due(subject);
        if self.retained.remove(&subject).is_some() {
            self.removals.push(self.discovery.device_topic(&entry.name, device_id));
        }
    }

    /// Removes these devices, or their gateway itself, before the session has settled if they are
    /// to be removed.
    pub(crate) fn prioritize(&mut self, entry: &GatewayEntry, device_ids: &BTreeSet<DeviceId>) {
        let topics = device_ids.iter().map(|&id| self.discovery.device_topic(&entry.name, id));
        let own = self.discovery.gateway_topic(&entry.name);
        self.removals.prioritize(&topics.chain([own]).collect());
    }

    /// A retained message. Discovery of this bridge is noted, or removed if it is of nothing that
    /// is published.
    pub(crate) fn found(&mut self, directory: &Directory, topic: &str, payload: &[u8]) {
        if !self.discovery.is_ours(directory, topic, payload) {
            return;
        }
        match self.discovery.subject(directory, topic) {
            Some(subject) if self.is_enabled && self.discovery.includes(directory, subject) => {
                self.retained.insert(subject, Some(hash(payload)));
                return;
            }
            // Of an earlier run with another state directory, or of another instance.
            None if !self.cleared_gateways.iter().any(|it| self.discovery.is_of(it, topic)) => {
                return;
            }
            Some(_) | None => {}
        }
        if self.stale.found(topic) {
            self.removals.push(topic.to_owned());
        }
    }

    /// Whether a scan has to read what the broker retains: where discovery is disabled, until none
    /// is left.
    pub(crate) const fn wants_scan(&self) -> bool {
        self.is_enabled || !self.stale.is_clean()
    }

    /// Whether another scan is to be made now; true once.
    pub(crate) fn take_wanted_scan(&mut self) -> bool {
        self.is_idle() && self.stale.take_wanted_scan()
    }

    /// A scan has ended; if it is complete, everything that the broker retains has been read.
    pub(crate) fn scan_ended(&mut self, is_complete: bool) {
        self.stale.scan_ended(is_complete);
        self.check_devices = true;
    }

    /// Whether nothing waits to be sent, nor is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.due.is_empty() && self.has_nothing_to_remove()
    }

    /// Whether what the broker retains is known, and nothing is left to be removed.
    pub(crate) fn has_nothing_to_remove(&self) -> bool {
        self.stale.is_read() && self.removals.is_empty() && self.pacing.is_idle()
    }

    /// When there is something to do although nothing has changed.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        let waits = !self.due.is_empty() || self.removals.is_ready();
        let next = self.pacing.next_at().filter(|_| waits && self.stale.is_read());
        match self.states {
            StatesAfterBirth::At(at) => next.into_iter().chain([at]).min(),
            StatesAfterBirth::No | StatesAfterBirth::AfterDiscovery => next,
        }
    }

    /// The next message of a bridge that is online.
    pub(crate) fn next(&mut self, now: Moment, view: &View) -> Option<Outgoing> {
        let may_send = self.pacing.next_at().is_some_and(|at| at <= now);
        if !self.stale.is_read() || !may_send {
            return None;
        }
        if std::mem::take(&mut self.check_devices) {
            self.remove_missing_devices(view);
        }
        self.next_removal(now).or_else(|| self.next_subject(now, view))
    }

    /// Removes discovery of devices that an online gateway does not have.
    fn remove_missing_devices(&mut self, view: &View) {
        let subjects: Vec<Described> = self.retained.keys().copied().collect();
        for subject in subjects {
            let Described::Device(gateway, device_id) = subject else { continue };
            let is_missing = view.fleet.gateway_is_live(gateway)
                && view.fleet.device(gateway, device_id).is_none();
            if let Some(entry) = view.directory.gateway(gateway).filter(|_| is_missing) {
                self.device_removed(gateway, device_id, entry);
            }
        }
    }

    fn next_removal(&mut self, now: Moment) -> Option<Outgoing> {
        let topic = self.removals.pop()?;
        self.pacing.sent(now, None);
        Some(Outgoing::text(MessageId::RemoveDiscovery(topic.clone()), topic, ""))
    }

    fn next_subject(&mut self, now: Moment, view: &View) -> Option<Outgoing> {
        while let Some(&(_, subject)) = self.due.first() {
            if self.pacing.starts_gap(now, subject) {
                return None;
            }
            self.due.pop_first();
            let message = self.discovery.message(view.fleet, view.directory, subject);
            let Some((topic, payload)) = message else { continue };
            let hash = Some(hash(&payload));
            if self.retained.insert(subject, hash) != Some(hash) {
                self.pacing.sent(now, Some(subject));
                return Some(Outgoing::json(MessageId::Discovery(subject), topic, payload));
            }
        }
        None
    }

    /// The broker has accepted or refused a message.
    pub(crate) fn acknowledged(&mut self, now: Moment, id: &MessageId) {
        if let MessageId::RemoveDiscovery(topic) = id {
            self.removals.finish(topic);
        }
        self.pacing.acknowledged();
        let is_idle = self.due.is_empty() && !self.removals.is_ready() && self.pacing.is_idle();
        if is_idle && self.states == StatesAfterBirth::AfterDiscovery {
            self.states = StatesAfterBirth::At(now.plus(STATES_AFTER_MS));
        }
    }

    /// Publishes a subject again that was refused.
    pub(crate) fn retry(&mut self, subject: Described) {
        self.retained.remove(&subject);
        self.set_due(subject);
    }
}

fn hash(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}
