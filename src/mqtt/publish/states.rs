//! Retained states and infos: which have changed, and in which order they are published.
//!
//! Values are read when a message is sent, so the latest wins. A gateway's `online` follows the
//! device states that changed before it, and its info follows its state.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use super::info::Info;
use super::message::{MessageId, Outgoing, View};
use crate::fleet::{DeviceState, Fleet, GatewayIndex};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::{DeviceStatePayload, GatewayInfo, MasterInfo, to_bytes};
use crate::topics::Topics;

/// The changed states and infos of devices, gateways and the bridge.
#[derive(Debug)]
pub(crate) struct States {
    topics: Topics,
    devices: ChangedDevices,
    /// Gateways whose state is to be published, once the device states up to this position are.
    gateways: BTreeMap<GatewayIndex, u64>,
    /// By gateway.
    infos: Vec<Info>,
    /// The gateways whose infos have changed, by when they may be published.
    due_infos: BTreeSet<(Moment, GatewayIndex)>,
    bridge_state: Option<&'static str>,
    bridge_info: Info,
    /// By master.
    master_infos: BTreeMap<GatewayName, Info>,
    is_shut_down: bool,
}

impl States {
    pub(crate) fn new(topics: Topics, gateways: usize) -> Self {
        Self {
            topics,
            devices: ChangedDevices::default(),
            gateways: BTreeMap::new(),
            infos: vec![Info::default(); gateways],
            due_infos: BTreeSet::new(),
            bridge_state: None,
            bridge_info: Info::default(),
            master_infos: BTreeMap::new(),
            is_shut_down: false,
        }
    }

    /// A gateway was discovered, with the next index, or recalled.
    pub(crate) fn gateway_added(&mut self, gateway: GatewayIndex) {
        self.infos.resize(self.infos.len().max(gateway.0 + 1), Info::default());
        self.bridge_info_changed();
    }

    /// A gateway is forgotten: nothing of it is published any more.
    pub(crate) fn gateway_forgotten(&mut self, gateway: GatewayIndex) {
        self.gateways.remove(&gateway);
        self.change_info(gateway, |info| *info = Info::default());
        self.bridge_info_changed();
    }

    /// Nothing of the bridge itself is published yet on this connection.
    pub(crate) fn reset_bridge(&mut self) {
        (self.bridge_state, self.is_shut_down) = (None, false);
        self.bridge_info = Info::default();
    }

    /// Publishes everything again, but not the bridge's state.
    pub(crate) fn all_changed(&mut self, fleet: &Fleet) {
        for gateway in fleet.gateways() {
            if fleet.gateway_is_decided(gateway) {
                for device_id in fleet.device_ids(gateway) {
                    self.devices.insert((gateway, device_id));
                }
            }
            self.gateway_changed(gateway);
            self.info_again(gateway);
        }
        self.bridge_info.again();
        self.master_infos.values_mut().for_each(Info::again);
    }

    /// As [`States::all_changed`], but the bridge's info only if it is not published yet.
    pub(crate) fn start_full_publish(&mut self, fleet: &Fleet) {
        let bridge_info = self.bridge_info.clone();
        self.all_changed(fleet);
        if bridge_info.is_published() {
            self.bridge_info = bridge_info;
        }
    }

    pub(crate) fn device_changed(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        self.devices.insert((gateway, device_id));
        self.info_changed(gateway);
    }

    /// Publishes a device's state again that was refused.
    pub(crate) fn device_again(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        self.devices.insert((gateway, device_id));
    }

    pub(crate) fn device_removed(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        self.devices.members.remove(&(gateway, device_id));
        self.info_changed(gateway);
    }

    pub(crate) fn gateway_changed(&mut self, gateway: GatewayIndex) {
        self.gateways.insert(gateway, self.position());
        self.info_changed_at_once(gateway);
    }

    pub(crate) fn info_changed(&mut self, gateway: GatewayIndex) {
        self.change_info(gateway, Info::changed);
    }

    /// A field that does not wait for the interval has changed in a gateway's info.
    pub(crate) fn info_changed_at_once(&mut self, gateway: GatewayIndex) {
        self.change_info(gateway, Info::changed_at_once);
    }

    /// Publishes a gateway's info again even if it is unchanged.
    pub(crate) fn info_again(&mut self, gateway: GatewayIndex) {
        self.change_info(gateway, Info::again);
    }

    fn change_info(&mut self, gateway: GatewayIndex, change: impl FnOnce(&mut Info)) {
        let Some(info) = self.infos.get_mut(gateway.0) else { return };
        let before = info.due_at();
        change(info);
        if info.due_at() != before {
            before.map(|at| self.due_infos.remove(&(at, gateway)));
            self.due_infos.extend(info.due_at().map(|at| (at, gateway)));
        }
    }

    pub(crate) fn bridge_info_changed(&mut self) {
        self.bridge_info.changed();
    }

    /// Publishes the bridge's info again even if it is unchanged.
    pub(crate) fn bridge_info_again(&mut self) {
        self.bridge_info.again();
    }

    /// The info of a master has changed, in a field that does not wait for the interval if
    /// `at_once`.
    pub(crate) fn master_changed(&mut self, master: &GatewayName, at_once: bool) {
        let info = self.master_infos.entry(master.clone()).or_default();
        if at_once { info.changed_at_once() } else { info.changed() }
    }

    /// Publishes a master's info again even if it is unchanged.
    pub(crate) fn master_again(&mut self, master: GatewayName) {
        self.master_infos.entry(master).or_default().again();
    }

    pub(crate) const fn set_online(&mut self) {
        self.bridge_state = Some("online");
    }

    /// Publishes the bridge's state again that was published last.
    pub(crate) const fn bridge_state_again(&mut self) {
        self.bridge_state = Some(if self.is_shut_down { "offline" } else { "online" });
    }

    pub(crate) const fn bridge_state_is_sent(&self) -> bool {
        self.bridge_state.is_none()
    }

    /// From now on `offline` is published for all gateways, or for none.
    pub(crate) fn shut_down(&mut self, with_gateways: bool) {
        let gateways = (0..self.infos.len()).filter(|_| with_gateways);
        self.gateways = gateways.map(|at| (GatewayIndex(at), 0)).collect();
        self.bridge_state = Some("offline");
        self.is_shut_down = true;
    }

    /// A position in the order of device states: those that have changed so far are before it.
    pub(crate) const fn position(&self) -> u64 {
        self.devices.inserted
    }

    /// Whether the device states up to this position and all gateways' states are sent.
    pub(crate) fn are_sent_up_to(&self, position: u64) -> bool {
        self.gateways.is_empty() && self.devices.are_taken_up_to(position)
    }

    /// Whether a gateway's state waits to be sent.
    pub(crate) fn gateway_waits(&self, gateway: GatewayIndex) -> bool {
        self.gateways.contains_key(&gateway)
    }

    /// When the next info may be published: of the bridge, and of gateways if `with_gateways`.
    pub(crate) fn info_due_at(&self, with_gateways: bool) -> Option<Moment> {
        let mut gateways = self.due_infos.iter().filter(|_| with_gateways);
        let next = gateways.find(|(_, gateway)| !self.gateway_waits(*gateway));
        let masters = self.master_infos.values().filter(|_| with_gateways);
        let masters = masters.filter_map(Info::due_at);
        next.map(|(at, _)| *at).into_iter().chain(masters).chain(self.bridge_info.due_at()).min()
    }

    /// `offline` of a gateway, before anything else.
    pub(crate) fn next_offline(&mut self, view: &View) -> Option<Outgoing> {
        let mut gateways = self.gateways.keys().copied();
        let gateway = gateways.find(|&gateway| !view.fleet.gateway_is_live(gateway))?;
        self.gateway_state(gateway, "offline", view)
    }

    /// `online` of a gateway, once its devices' states are sent.
    pub(crate) fn next_online(&mut self, view: &View) -> Option<Outgoing> {
        let mut gateways = self.gateways.iter();
        let is_ready = |&(_, &position): &(_, &u64)| self.devices.are_taken_up_to(position);
        let (&gateway, _) = gateways.find(is_ready)?;
        self.gateway_state(gateway, "online", view)
    }

    /// `offline` of the gateways, then of the bridge.
    pub(crate) fn next_of_shutdown(&mut self, view: &View) -> Option<Outgoing> {
        while let Some((&gateway, _)) = self.gateways.first_key_value() {
            let state = self.gateway_state(gateway, "offline", view);
            if state.is_some() {
                return state;
            }
        }
        self.next_bridge_state()
    }

    fn gateway_state(
        &mut self,
        gateway: GatewayIndex,
        state: &'static str,
        view: &View,
    ) -> Option<Outgoing> {
        self.gateways.remove(&gateway)?;
        let topic = self.topics.gateway_state(&view.directory.gateway(gateway)?.name);
        Some(Outgoing::text(MessageId::GatewayState(gateway), topic, state))
    }

    pub(crate) fn next_bridge_state(&mut self) -> Option<Outgoing> {
        let state = self.bridge_state.take()?;
        Some(Outgoing::text(MessageId::BridgeState, self.topics.bridge_state(), state))
    }

    /// An info of a gateway or of the bridge. It waits for the gateway's state, so that they never
    /// contradict.
    pub(crate) fn next_info(&mut self, now: Moment, view: &View) -> Option<Outgoing> {
        loop {
            let mut due = self.due_infos.iter().take_while(|(at, _)| *at <= now);
            let next = due.find(|(_, gateway)| !self.gateway_waits(*gateway)).copied();
            let Some((at, gateway)) = next else {
                let master = self.next_master_info(now, view);
                return master.or_else(|| self.next_bridge_info(now, view));
            };
            self.due_infos.remove(&(at, gateway));
            let entry = view.directory.gateway(gateway)?;
            let (state, link) = (view.fleet.gateway(gateway)?, view.links.get(gateway.0)?);
            let info = to_bytes(&GatewayInfo::new(view.directory, entry, &state, link));
            if let Some(payload) = self.infos.get_mut(gateway.0)?.take(now, info) {
                let topic = self.topics.gateway_info(&entry.name);
                return Some(Outgoing::json(MessageId::GatewayInfo(gateway), topic, payload));
            }
        }
    }

    fn next_master_info(&mut self, now: Moment, view: &View) -> Option<Outgoing> {
        let mut masters = self.master_infos.iter_mut();
        masters.find_map(|(name, info)| {
            info.due_at().filter(|at| *at <= now)?;
            let directory = view.directory;
            let facts = directory.masters.get(name)?;
            let gateways = directory.behind(name).count();
            let is_online = |(gateway, _): &_| view.fleet.gateway_is_live(*gateway);
            let online = directory.behind(name).filter(is_online).count();
            let payload = MasterInfo::new(directory, name, facts, gateways, online);
            let payload = info.take(now, to_bytes(&payload))?;
            let (id, topic) = (MessageId::MasterInfo(name.clone()), self.topics.master_info(name));
            Some(Outgoing::json(id, topic, payload))
        })
    }

    pub(crate) fn next_bridge_info(&mut self, now: Moment, view: &View) -> Option<Outgoing> {
        self.bridge_info.due_at().filter(|at| *at <= now)?;
        let payload = self.bridge_info.take(now, to_bytes(view.bridge))?;
        Some(Outgoing::json(MessageId::BridgeInfo, self.topics.bridge_info(), payload))
    }

    /// The state of the device that has waited longest; `sent` is called with it.
    pub(crate) fn next_device(
        &mut self,
        view: &View,
        sent: impl FnOnce(GatewayIndex, &DeviceState),
    ) -> Option<Outgoing> {
        loop {
            let (gateway, device_id) = self.devices.take()?;
            let Some(state) = view.fleet.device(gateway, device_id) else { continue };
            let entry = view.directory.gateway(gateway)?;
            let payload = to_bytes(&DeviceStatePayload::new(view.directory, entry, &state));
            let topic = self.topics.device_state(&entry.name, device_id);
            sent(gateway, &state);
            let id = MessageId::DeviceState(gateway, device_id);
            return Some(Outgoing::json(id, topic, payload));
        }
    }
}

/// The devices whose states are to be published: a set, in the order in which they changed.
#[derive(Debug, Default)]
struct ChangedDevices {
    queue: VecDeque<(u64, (GatewayIndex, DeviceId))>,
    members: HashSet<(GatewayIndex, DeviceId)>,
    /// Counts insertions.
    inserted: u64,
}

impl ChangedDevices {
    /// Adds a device; one that waits already keeps its place.
    fn insert(&mut self, device: (GatewayIndex, DeviceId)) {
        if self.members.insert(device) {
            self.inserted += 1;
            self.queue.push_back((self.inserted, device));
        }
    }

    fn take(&mut self) -> Option<(GatewayIndex, DeviceId)> {
        loop {
            let (_, device) = self.queue.pop_front()?;
            if self.members.remove(&device) {
                return Some(device);
            }
        }
    }

    fn are_taken_up_to(&self, position: u64) -> bool {
        self.queue.front().is_none_or(|(number, _)| *number > position)
    }
}
