//! Retained states and infos: which have changed, and in which order they are published.
//!
//! Values are read when a message is sent, so the latest wins. A gateway's `online` follows the
//! device states that changed before it, and its info follows its state.

use bytes::Bytes;

use super::changed_devices::ChangedDevices;
use super::message::{MessageId, Outgoing, View};
use crate::fleet::{DeviceState, Fleet, GatewayIndex};
use crate::ids::{DeviceId, Moment};
use crate::mqtt::topics::Topics;
use crate::payload::{DeviceStatePayload, GatewayInfo, to_bytes};

/// The least time between two infos on one topic, in milliseconds (contract, section 1).
const INFO_INTERVAL_MS: i64 = 10_000;

/// The changed states and infos of devices, gateways and the bridge.
#[derive(Debug)]
pub(crate) struct States {
    devices: ChangedDevices,
    gateways: Vec<GatewayPublishState>,
    bridge_state: Option<&'static str>,
    bridge_info: PublishState,
    is_shut_down: bool,
}

/// The state and info of one gateway.
#[derive(Clone, Debug, Default)]
struct GatewayPublishState {
    /// `online` or `offline` is to be published.
    state_changed: bool,
    /// The device states up to this position are published before `online`.
    position: u64,
    info: PublishState,
}

impl GatewayPublishState {
    /// When its info may be published. It waits for the state, so that they never contradict.
    fn info_due_at(&self) -> Option<Moment> {
        self.info.due_at().filter(|_| !self.state_changed)
    }
}

impl States {
    pub(crate) fn new(gateways: usize) -> Self {
        Self {
            devices: ChangedDevices::default(),
            gateways: vec![GatewayPublishState::default(); gateways],
            bridge_state: None,
            bridge_info: PublishState::default(),
            is_shut_down: false,
        }
    }

    /// Nothing of the bridge itself is published yet on this connection.
    pub(crate) fn reset_bridge(&mut self) {
        (self.bridge_state, self.is_shut_down) = (None, false);
        self.bridge_info = PublishState::default();
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
        self.bridge_info.forget();
    }

    /// As [`States::all_changed`], but the bridge's info only if it is not published yet.
    pub(crate) fn start_full_publish(&mut self, fleet: &Fleet) {
        let bridge_info = std::mem::take(&mut self.bridge_info);
        self.all_changed(fleet);
        if bridge_info.published.is_some() {
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
        self.devices.remove((gateway, device_id));
        self.info_changed(gateway);
    }

    pub(crate) fn gateway_changed(&mut self, gateway: GatewayIndex) {
        let position = self.position();
        if let Some(state) = self.gateways.get_mut(gateway.0) {
            (state.state_changed, state.position) = (true, position);
            state.info.changed_at_once();
        }
    }

    pub(crate) fn info_changed(&mut self, gateway: GatewayIndex) {
        if let Some(state) = self.gateways.get_mut(gateway.0) {
            state.info.changed();
        }
    }

    /// A field that does not wait for the interval has changed in a gateway's info.
    pub(crate) fn info_changed_at_once(&mut self, gateway: GatewayIndex) {
        if let Some(state) = self.gateways.get_mut(gateway.0) {
            state.info.changed_at_once();
        }
    }

    /// Publishes a gateway's info again even if it is unchanged.
    pub(crate) fn info_again(&mut self, gateway: GatewayIndex) {
        if let Some(state) = self.gateways.get_mut(gateway.0) {
            state.info.forget();
        }
    }

    pub(crate) const fn bridge_info_changed(&mut self) {
        self.bridge_info.changed();
    }

    /// Publishes the bridge's info again even if it is unchanged.
    pub(crate) fn bridge_info_again(&mut self) {
        self.bridge_info.forget();
    }

    pub(crate) const fn set_online(&mut self) {
        self.bridge_state = Some("online");
    }

    /// Publishes the bridge's state again that was published last.
    pub(crate) fn bridge_state_again(&mut self) {
        self.bridge_state = Some(if self.is_shut_down { "offline" } else { "online" });
    }

    pub(crate) const fn bridge_state_is_sent(&self) -> bool {
        self.bridge_state.is_none()
    }

    /// From now on `offline` is published for all gateways, or for none.
    pub(crate) fn shut_down(&mut self, with_gateways: bool) {
        for state in &mut self.gateways {
            state.state_changed = with_gateways;
        }
        self.bridge_state = Some("offline");
        self.is_shut_down = true;
    }

    /// A position in the order of device states: those that have changed so far are before it.
    pub(crate) const fn position(&self) -> u64 {
        self.devices.position()
    }

    /// Whether the device states up to this position and all gateways' states are sent.
    pub(crate) fn are_sent_up_to(&self, position: u64) -> bool {
        self.devices.are_taken_up_to(position)
            && self.gateways.iter().all(|state| !state.state_changed)
    }

    /// Whether a gateway's state waits to be sent.
    pub(crate) fn gateway_waits(&self, gateway: GatewayIndex) -> bool {
        self.gateways.get(gateway.0).is_some_and(|state| state.state_changed)
    }

    /// When the next info may be published: of the bridge, and of gateways if `with_gateways`.
    pub(crate) fn info_due_at(&self, with_gateways: bool) -> Option<Moment> {
        let gateways = self.gateways.iter().filter(|_| with_gateways);
        let gateways = gateways.filter_map(GatewayPublishState::info_due_at);
        gateways.chain(self.bridge_info.due_at()).min()
    }

    /// `offline` of a gateway, before anything else.
    pub(crate) fn next_offline(&mut self, topics: &Topics, view: &View) -> Option<Outgoing> {
        let is_live = |at| view.fleet.gateway_is_live(GatewayIndex(at));
        let mut gateways = self.gateways.iter().enumerate();
        let at = gateways.find(|(at, state)| state.state_changed && !is_live(*at))?.0;
        self.gateway_state(GatewayIndex(at), "offline", topics, view)
    }

    /// `online` of a gateway, once its devices' states are sent.
    pub(crate) fn next_online(&mut self, topics: &Topics, view: &View) -> Option<Outgoing> {
        let is_ready = |state: &GatewayPublishState| {
            state.state_changed && self.devices.are_taken_up_to(state.position)
        };
        let at = self.gateways.iter().position(is_ready)?;
        self.gateway_state(GatewayIndex(at), "online", topics, view)
    }

    /// `offline` of the gateways, then of the bridge.
    pub(crate) fn next_of_shutdown(&mut self, topics: &Topics, view: &View) -> Option<Outgoing> {
        if let Some(at) = self.gateways.iter().position(|state| state.state_changed) {
            return self.gateway_state(GatewayIndex(at), "offline", topics, view);
        }
        self.next_bridge_state(topics)
    }

    fn gateway_state(
        &mut self,
        gateway: GatewayIndex,
        state: &'static str,
        topics: &Topics,
        view: &View,
    ) -> Option<Outgoing> {
        self.gateways.get_mut(gateway.0)?.state_changed = false;
        let topic = topics.gateway_state(&view.directory.gateway(gateway)?.name);
        Some(Outgoing::text(MessageId::GatewayState(gateway), topic, state))
    }

    pub(crate) fn next_bridge_state(&mut self, topics: &Topics) -> Option<Outgoing> {
        let state = self.bridge_state.take()?;
        Some(Outgoing::text(MessageId::BridgeState, topics.bridge_state(), state))
    }

    /// An info of a gateway or of the bridge.
    pub(crate) fn next_info(
        &mut self,
        now: Moment,
        topics: &Topics,
        view: &View,
    ) -> Option<Outgoing> {
        for (at, state) in self.gateways.iter_mut().enumerate() {
            if state.info_due_at().is_none_or(|due_at| due_at > now) {
                continue;
            }
            let gateway = GatewayIndex(at);
            let entry = view.directory.gateway(gateway)?;
            let (fleet_state, link) = (view.fleet.gateway(gateway)?, view.links.get(at)?);
            let info = GatewayInfo::new(view.directory, entry, &fleet_state, link);
            if let Some(payload) = state.info.take(now, to_bytes(&info)) {
                let topic = topics.gateway_info(&entry.name);
                return Some(Outgoing::json(MessageId::GatewayInfo(gateway), topic, payload));
            }
        }
        self.next_bridge_info(now, topics, view)
    }

    pub(crate) fn next_bridge_info(
        &mut self,
        now: Moment,
        topics: &Topics,
        view: &View,
    ) -> Option<Outgoing> {
        if self.bridge_info.due_at().is_none_or(|due_at| due_at > now) {
            return None;
        }
        let payload = self.bridge_info.take(now, to_bytes(view.bridge))?;
        Some(Outgoing::json(MessageId::BridgeInfo, topics.bridge_info(), payload))
    }

    /// The state of the device that has waited longest; `sent` is called with it.
    pub(crate) fn next_device(
        &mut self,
        topics: &Topics,
        view: &View,
        sent: impl FnOnce(GatewayIndex, &DeviceState),
    ) -> Option<Outgoing> {
        while let Some((gateway, device_id)) = self.devices.take() {
            let Some(state) = view.fleet.device(gateway, device_id) else { continue };
            let entry = view.directory.gateway(gateway)?;
            let payload = to_bytes(&DeviceStatePayload::new(view.directory, entry, &state));
            let topic = topics.device_state(&entry.name, device_id);
            sent(gateway, &state);
            return Some(Outgoing::json(
                MessageId::DeviceState(gateway, device_id),
                topic,
                payload,
            ));
        }
        None
    }
}

/// An info: published on change, not too often, and not twice the same.
#[derive(Clone, Debug, Default)]
struct PublishState {
    changed: bool,
    /// A field has changed that does not wait for the interval.
    at_once: bool,
    published: Option<(Moment, Bytes)>,
}

impl PublishState {
    const fn changed(&mut self) {
        self.changed = true;
    }

    const fn changed_at_once(&mut self) {
        (self.changed, self.at_once) = (true, true);
    }

    /// Publishes it again even if it is unchanged.
    fn forget(&mut self) {
        (self.changed, self.published) = (true, None);
    }

    /// When it may be published, if it has changed.
    fn due_at(&self) -> Option<Moment> {
        let published = self.published.as_ref().filter(|_| !self.at_once);
        let due_at = published.map_or(Moment::from_millis(0), |(at, _)| at.plus(INFO_INTERVAL_MS));
        self.changed.then_some(due_at)
    }

    /// The payload, unless it is what was published last.
    fn take(&mut self, now: Moment, payload: Bytes) -> Option<Bytes> {
        (self.changed, self.at_once) = (false, false);
        if self.published.as_ref().is_some_and(|(_, published)| *published == payload) {
            return None;
        }
        self.published = Some((now, payload.clone()));
        Some(payload)
    }
}
