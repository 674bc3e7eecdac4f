//! Retained states and infos: which have changed, and in which order they are published.
//!
//! Values are read when a message is sent, so the latest wins. A gateway's `online` follows the
//! device states that changed before it, and its info follows its state.

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::Bytes;

use super::info::{InfoOf, Infos};
use super::message::{MessageId, Outgoing, View};
use crate::fleet::{DeviceState, Fleet, GatewayIndex};
use crate::ids::{DeviceId, Moment};
use crate::payload::{DeviceStatePayload, GatewayInfo, MasterInfo, to_bytes};
use crate::topics::Topics;

/// The changed states and infos of devices, gateways and the bridge.
#[derive(Debug)]
pub(crate) struct States {
    topics: Topics,
    devices: ChangedDevices,
    /// Gateways whose state is to be published, once the device states up to this position are.
    gateways: BTreeMap<GatewayIndex, u64>,
    pub(crate) infos: Infos,
    bridge_state: Option<&'static str>,
    /// The bridge's state that was sent last.
    sent_bridge_state: &'static str,
    /// When the links ended, at a clean stop.
    stopped_at: Option<Moment>,
}

impl States {
    pub(crate) fn new(topics: Topics) -> Self {
        Self {
            topics,
            devices: ChangedDevices::default(),
            gateways: BTreeMap::new(),
            infos: Infos::default(),
            bridge_state: None,
            sent_bridge_state: "offline",
            stopped_at: None,
        }
    }

    /// A gateway is forgotten: nothing of it is published any more.
    pub(crate) fn gateway_forgotten(&mut self, gateway: GatewayIndex) {
        self.gateways.remove(&gateway);
        self.infos.remove(&InfoOf::Gateway(gateway));
        self.infos.changed(InfoOf::Bridge);
    }

    /// Nothing of the bridge itself is published yet on this connection.
    pub(crate) fn reset_bridge(&mut self) {
        self.bridge_state = None;
        self.infos.remove(&InfoOf::Bridge);
    }

    /// Publishes everything again, but not the bridge's state.
    pub(crate) fn all_changed(&mut self, fleet: &Fleet) {
        self.start_full_publish(fleet);
        self.infos.again(InfoOf::Bridge);
    }

    /// As [`States::all_changed`], but the bridge's info only if it is not published yet.
    pub(crate) fn start_full_publish(&mut self, fleet: &Fleet) {
        for (index, gateway) in fleet.gateways() {
            if gateway.link().is_decided() {
                for device in gateway.devices().iter() {
                    self.devices.insert((index, device.id()));
                }
            }
            self.gateway_changed(index);
            self.infos.again(InfoOf::Gateway(index));
        }
        self.infos.masters_again();
        if !self.infos.is_published(&InfoOf::Bridge) {
            self.infos.again(InfoOf::Bridge);
        }
    }

    pub(crate) fn device_changed(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        self.devices.insert((gateway, device_id));
        self.infos.changed(InfoOf::Gateway(gateway));
    }

    /// Publishes a device's state again that was refused.
    pub(crate) fn device_again(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        self.devices.insert((gateway, device_id));
    }

    pub(crate) fn device_removed(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        self.devices.members.remove(&(gateway, device_id));
        self.infos.changed(InfoOf::Gateway(gateway));
    }

    pub(crate) fn gateway_changed(&mut self, gateway: GatewayIndex) {
        self.gateways.insert(gateway, self.position());
        self.infos.changed_at_once(InfoOf::Gateway(gateway));
    }

    pub(crate) const fn set_online(&mut self) {
        self.bridge_state = Some("online");
    }

    /// The broker retains `online` of an earlier connection.
    pub(crate) const fn set_offline(&mut self) {
        self.bridge_state = Some("offline");
    }

    /// Publishes the bridge's state again that was sent last, unless another one is to be sent.
    pub(crate) fn bridge_state_again(&mut self) {
        self.bridge_state.get_or_insert(self.sent_bridge_state);
    }

    pub(crate) const fn bridge_state_is_sent(&self) -> bool {
        self.bridge_state.is_none()
    }

    /// From now on `offline` is published, of the bridge and of the gateways of this fleet, with
    /// infos that agree with it. The links ended `at`, by the wall clock.
    pub(crate) fn shut_down(&mut self, at: Moment, fleet: Option<&Fleet>) {
        self.gateways.clear();
        self.stopped_at = fleet.map(|_| at);
        let gateways = fleet.into_iter().flat_map(Fleet::gateways);
        gateways.for_each(|(gateway, _)| self.gateway_changed(gateway));
        self.infos.masters_again();
        self.set_offline();
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

    /// When the next info may be published; `is_checking`: of the bridge only.
    pub(crate) fn info_due_at(&self, is_checking: bool) -> Option<Moment> {
        let next = self.infos.due().find(|(_, of)| self.may_publish(of, is_checking));
        next.map(|(at, _)| *at)
    }

    /// A gateway's info waits for its state, so that they never contradict.
    fn may_publish(&self, of: &InfoOf, is_checking: bool) -> bool {
        match of {
            InfoOf::Gateway(gateway) => !is_checking && !self.gateway_waits(*gateway),
            InfoOf::Master(_) => !is_checking,
            InfoOf::Bridge => true,
        }
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

    /// `offline` of the gateways, then their infos, and last of the bridge.
    pub(crate) fn next_of_shutdown(&mut self, now: Moment, view: &View) -> Option<Outgoing> {
        while let Some((&gateway, _)) = self.gateways.first_key_value() {
            let state = self.gateway_state(gateway, "offline", view);
            if state.is_some() {
                return state;
            }
        }
        let with_infos = self.stopped_at.is_some() && !self.bridge_state_is_sent();
        let info = if with_infos { self.next_info(now, view, false) } else { None };
        info.or_else(|| self.next_bridge_state())
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
        self.sent_bridge_state = state;
        Some(Outgoing::text(MessageId::BridgeState, self.topics.bridge_state(), state))
    }

    /// The next info; `is_checking`: of the bridge only.
    pub(crate) fn next_info(
        &mut self,
        now: Moment,
        view: &View,
        is_checking: bool,
    ) -> Option<Outgoing> {
        loop {
            let is_next = |(_, of): &&(Moment, InfoOf)| self.may_publish(of, is_checking);
            let (_, of) = self.infos.due().take_while(|(at, _)| *at <= now).find(is_next)?.clone();
            let Some((topic, payload)) = self.info(&of, view) else {
                self.infos.remove(&of);
                continue;
            };
            if let Some(payload) = self.infos.take(now, &of, payload) {
                return Some(Outgoing::json(MessageId::Info(of), topic, payload));
            }
        }
    }

    /// The topic and the payload of an info; `None` for a gateway that is forgotten.
    fn info(&self, of: &InfoOf, view: &View) -> Option<(String, Bytes)> {
        let View { fleet, directory, links } = view;
        Some(match of {
            InfoOf::Gateway(gateway) => {
                let entry = directory.gateway(*gateway)?;
                let (state, link) = (fleet.gateway(*gateway)?.state(), links.get(gateway.0)?);
                let info = GatewayInfo::new(&directory.info, entry, &state, link);
                let info = if let Some(at) = self.stopped_at { info.stopped(at) } else { info };
                (self.topics.gateway_info(&entry.name), to_bytes(&info))
            }
            InfoOf::Master(name) => {
                let facts = directory.masters.get(name)?;
                let gateways = directory.behind(name).count();
                let is_online = |(gateway, _): &_| fleet.gateway_is_live(*gateway);
                let online = directory.behind(name).filter(is_online).count();
                let info = MasterInfo::new(&directory.info, name, facts, gateways, online);
                let info = if let Some(at) = self.stopped_at { info.stopped(at) } else { info };
                (self.topics.master_info(name), to_bytes(&info))
            }
            InfoOf::Bridge => (self.topics.bridge_info(), to_bytes(&directory.info)),
        })
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
            let payload = to_bytes(&DeviceStatePayload::new(&view.directory.info, entry, &state));
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
