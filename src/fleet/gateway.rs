//! One gateway: whether its view is live, when its list is to be read, who its devices are.
//!
//! May not decide whether a list's difference is believed (`compare` does). The one thing easily
//! got wrong: a link that breaks is not yet a loss. Until `unknown_after` past the last sign of
//! life the view stands, its seconds frozen; a link that is back in time makes them good.

use std::collections::{BTreeMap, BTreeSet};

use super::device::{Change, Device, Remembered};
use super::event::{DeviceEvent, GatewayEvent, Source};
use super::status::Status;
use super::strangers::Strangers;
use super::{GatewayIndex, Output};
use crate::ids::{DeviceId, Moment};

/// The least time between two requests for a gateway's list, in milliseconds: whoever makes the
/// gateway talk of strangers cannot make the bridge flood it.
const LIST_INTERVAL_MIN_MS: i64 = 1_000;
/// How long after a difference the second look is due, in milliseconds (design, decision 2).
pub(super) const SECOND_LOOK_MS: i64 = 2_000;
/// How long after a failed list the next is tried, in milliseconds.
const LIST_RETRY_MS: i64 = 2_000;
/// Unknown status numbers that get a count of their own; later ones share one.
const UNKNOWN_CODES_MAX: usize = 32;

/// What the core is told of a gateway when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Milliseconds between two audits.
    pub audit_interval_ms: i64,
    /// Milliseconds after the last sign of life until the view is lost.
    pub unknown_after_ms: i64,
    /// Milliseconds after which a device that has left the list is forgotten; `None`: never.
    pub forget_after_ms: Option<i64>,
}

/// How the bridge stands to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Not heard yet.
    Connecting,
    /// The stream is open, the list is not read yet.
    Syncing,
    /// The view is live.
    Online,
    /// Nothing heard for `unknown_after`.
    Lost,
}

impl LinkState {
    /// Its name, as in `info`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Syncing => "syncing",
            Self::Online => "online",
            Self::Lost => "lost",
        }
    }
}

/// Counts of one gateway since the process began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayCounts {
    /// Links made.
    pub stream_starts: u64,
    /// Changes that became events, by status.
    pub status_changes: BTreeMap<Status, u64>,
    /// Changes to unknown statuses beyond the first few kinds.
    pub status_changes_other: u64,
    /// Statuses that were no news.
    pub repeated: u64,
    /// Differences that audits found.
    pub corrections: u64,
    /// Statuses of devices neither listed nor configured.
    pub strangers: u64,
}

#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) index: GatewayIndex,
    pub(super) settings: GatewaySettings,
    pub(super) devices: BTreeMap<DeviceId, Device>,
    /// Forgotten devices' places in the chain.
    pub(super) past: BTreeMap<DeviceId, Remembered>,
    /// Given to the gateway again because of a command, whether known here or not.
    pub(super) kept: BTreeSet<DeviceId>,
    pub(super) strangers: Strangers,
    pub(super) state: LinkState,
    pub(super) state_since: Moment,
    /// Whether what is known of the devices may be told as true.
    pub(super) live: bool,
    linked: bool,
    /// The list of this link has been read.
    pub(super) synced: bool,
    /// The last sign of life before the link broke, until the list is read again.
    pub(super) frozen_at: Option<Moment>,
    lost_at: Option<Moment>,
    /// A link was made since the view was last read anew.
    heard_again: bool,
    /// Counts the stream's statuses: an order between them and the lists.
    pub(super) heard: u64,
    /// The list is on its way, and was asked for at this count once the mark has come.
    pub(super) listing: Option<u64>,
    pub(super) list_wanted: bool,
    list_asked_at: Option<Moment>,
    list_due: Option<Moment>,
    pub(super) list_number: u64,
    pub(super) last_list_at: Option<Moment>,
    /// Up to when absence has been counted on this link; `None` before its first list.
    pub(super) absence_counted_to: Option<Moment>,
    pub(super) counts: GatewayCounts,
    pub(super) skew: super::skew::Skew,
    /// How far the wall's clock is ahead of the core's `now`, in milliseconds.
    pub(super) ahead_ms: i64,
}

impl Gateway {
    pub(super) fn new(
        index: GatewayIndex,
        settings: GatewaySettings,
        declared: &[DeviceId],
        now: Moment,
    ) -> Self {
        let devices = declared.iter().map(|&id| (id, Device::declared(now))).collect();
        Self {
            index,
            settings,
            devices,
            past: BTreeMap::new(),
            kept: BTreeSet::new(),
            strangers: Strangers::default(),
            state: LinkState::Connecting,
            state_since: now,
            live: false,
            linked: false,
            synced: false,
            frozen_at: None,
            lost_at: Some(now.plus(settings.unknown_after_ms)),
            heard_again: false,
            heard: 0,
            listing: None,
            list_wanted: false,
            list_asked_at: None,
            list_due: None,
            list_number: 0,
            last_list_at: None,
            absence_counted_to: None,
            counts: GatewayCounts::default(),
            skew: super::skew::Skew::default(),
            ahead_ms: 0,
        }
    }

    pub(super) fn link_up(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.linked = true;
        self.synced = false;
        self.counts.stream_starts += 1;
        // A sign of life: time for the list. Only once, so that links without a list do not last.
        if let Some(at) = self.lost_at.filter(|_| !std::mem::replace(&mut self.heard_again, true)) {
            self.lost_at = Some(at.max(now.plus(self.settings.unknown_after_ms)));
        }
        if !self.live {
            self.turn(now, LinkState::Syncing, out);
        }
        self.listing = None;
        self.list_due = Some(now);
        self.ask_if_due(now, out);
    }

    pub(super) fn link_down(&mut self, now: Moment, last_sign: Moment, out: &mut Vec<Output>) {
        if !self.linked {
            return;
        }
        let last_sign = last_sign.min(now);
        if self.synced {
            self.lost_at = Some(now.max(last_sign.plus(self.settings.unknown_after_ms)));
        }
        self.count_absence(last_sign, out);
        self.absence_counted_to = None;
        self.linked = false;
        self.synced = false;
        self.listing = None;
        self.list_due = None;
        self.frozen_at.get_or_insert(last_sign);
        // What was said of strangers is of a time that ends here: their list will never come.
        self.counts.strangers += self.strangers.drop_heard_until(u64::MAX).count;
        for device in self.devices.values_mut() {
            device.suspect = None;
            if !self.live {
                device.stop_observing(last_sign);
            }
        }
        if self.state == LinkState::Syncing {
            self.turn(now, self.unheard_state(), out);
        }
        self.lose_if_due(now, out);
    }

    const fn unheard_state(&self) -> LinkState {
        if self.lost_at.is_some() { LinkState::Connecting } else { LinkState::Lost }
    }

    pub(super) fn status(
        &mut self,
        device_id: DeviceId,
        status: Status,
        timestamp: Moment,
        received_at: Moment,
        out: &mut Vec<Output>,
    ) {
        self.heard += 1;
        self.skew.sample(timestamp, received_at);
        let shown = self.shown(received_at);
        let Some(device) = self.devices.get_mut(&device_id) else {
            if !self.strangers.hold(device_id, status, timestamp, received_at, self.heard) {
                self.counts.strangers += 1;
            }
            return self.want_list(received_at, out);
        };
        device.spoke_at = self.heard;
        if device.repeats(status) {
            device.count_failure(status);
            self.counts.repeated += 1;
            return;
        }
        let managed = device.managed;
        let auto_reconnect = device.info.is_some_and(|info| info.auto_reconnect);
        let type_unknown = device.info.is_some_and(|info| info.device_type.is_undefined());
        let was_connected = device.connected() == Some(true);
        let change = device.change(received_at, shown, status, Source::Stream, self.frozen_at);
        self.tell(device_id, change, status, timestamp, received_at, Source::Stream, out);
        let gone = was_connected && status.connected() != Some(true) && !auto_reconnect;
        // A gateway learns a device's type when the device connects, and only the list carries it.
        let type_to_read = type_unknown && status.connected() == Some(true);
        if gone || !managed || type_to_read {
            self.want_list(received_at, out);
        }
    }

    /// Sends a change off as an event, and the state that it leaves.
    #[expect(clippy::too_many_arguments, reason = "an event has this many parts")]
    pub(super) fn tell(
        &mut self,
        device_id: DeviceId,
        change: Change,
        status: Status,
        timestamp: Moment,
        received_at: Moment,
        source: Source,
        out: &mut Vec<Output>,
    ) {
        let known = self.counts.status_changes.len() < Status::KNOWN.len() + UNKNOWN_CODES_MAX;
        match self.counts.status_changes.get_mut(&status) {
            Some(count) => *count += 1,
            None if known => _ = self.counts.status_changes.insert(status, 1),
            None => self.counts.status_changes_other += 1,
        }
        let received_at = self.shown(received_at);
        let Some(device) = self.devices.get(&device_id) else { return };
        out.push(Output::Event(DeviceEvent {
            gateway: self.index,
            device_id,
            device_type: device.info.map(|info| info.device_type),
            event_type: change.event_type,
            seq: device.seq,
            status,
            previous: change.previous,
            timestamp,
            received_at,
            duration_ms: change.duration_ms,
            source,
        }));
        self.state_changed(device_id, out);
    }

    /// A gateway that has not been heard, nor its loss established, has nothing to say yet.
    pub(super) fn decided(&self) -> bool {
        !matches!(self.state, LinkState::Connecting) && (self.live || self.lost_at.is_none())
    }

    pub(super) fn state_changed(&self, device_id: DeviceId, out: &mut Vec<Output>) {
        if self.decided() {
            out.push(Output::State { gateway: self.index, device_id });
        }
    }

    pub(super) fn turn(&mut self, now: Moment, state: LinkState, out: &mut Vec<Output>) {
        if self.state != state {
            self.state = state;
            self.state_since = self.shown(now);
            out.push(Output::Gateway(self.index));
        }
    }

    /// The first list of a link has been taken in: the view is live again.
    pub(super) fn come_alive(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.synced = true;
        self.heard_again = false;
        self.frozen_at = None;
        self.lost_at = None;
        let (returned, shown) = (!self.live, self.shown(now));
        self.live = true;
        for (device_id, device) in &mut self.devices {
            device.start_observing(now);
            if returned {
                device.updated_at = shown;
                out.push(Output::State { gateway: self.index, device_id: *device_id });
            }
        }
        if returned {
            self.turn(now, LinkState::Online, out);
            out.push(Output::GatewayEvent(self.index, GatewayEvent::Reachable));
        }
    }

    fn lose_if_due(&mut self, now: Moment, out: &mut Vec<Output>) {
        if self.lost_at.is_none_or(|at| at > now) {
            return;
        }
        self.lost_at = None;
        self.live = false;
        let (until, shown) = (self.frozen_at.take().unwrap_or(now), self.shown(now));
        for (device_id, device) in &mut self.devices {
            device.lose(shown, until);
            out.push(Output::State { gateway: self.index, device_id: *device_id });
        }
        let state = if self.linked { LinkState::Syncing } else { LinkState::Lost };
        self.turn(now, LinkState::Lost, out);
        self.turn(now, state, out);
        out.push(Output::GatewayEvent(self.index, GatewayEvent::Unreachable));
    }

    pub(super) fn want_list(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.list_wanted = true;
        self.ask_if_due(now, out);
    }

    pub(super) fn list_asked(&mut self) {
        self.listing = Some(self.heard);
    }

    pub(super) fn list_failed(&mut self, now: Moment) {
        self.listing = None;
        self.list_due = Some(now.plus(LIST_RETRY_MS));
    }

    /// The list has been taken in: when is the next due?
    pub(super) fn list_done(&mut self, now: Moment, look_again: bool, out: &mut Vec<Output>) {
        self.listing = None;
        self.last_list_at = Some(self.shown(now));
        let wait = if look_again { SECOND_LOOK_MS } else { self.settings.audit_interval_ms };
        self.list_due = Some(now.plus(wait));
        self.ask_if_due(now, out);
    }

    fn next_list(&self) -> Option<Moment> {
        if !self.linked || self.listing.is_some() {
            return None;
        }
        let wanted_at = || {
            self.list_asked_at.map_or(Moment::from_millis(0), |at| at.plus(LIST_INTERVAL_MIN_MS))
        };
        match (self.list_due, self.list_wanted.then(wanted_at)) {
            (Some(due), Some(wanted)) => Some(due.min(wanted)),
            (due, wanted) => due.or(wanted),
        }
    }

    fn ask_if_due(&mut self, now: Moment, out: &mut Vec<Output>) {
        if self.next_list().is_some_and(|due| due <= now) {
            self.list_asked_at = Some(now);
            self.list_wanted = false;
            // Until its mark has passed through the queue, everything heard counts as before it.
            self.listing = Some(u64::MAX);
            out.push(Output::ListGateway(self.index));
        }
    }

    pub(super) fn wake(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.lose_if_due(now, out);
        self.ask_if_due(now, out);
    }

    /// When this gateway wants to be woken.
    pub(super) fn due(&self) -> Option<Moment> {
        match (self.lost_at.filter(|_| !self.synced), self.next_list()) {
            (Some(lost), Some(list)) => Some(lost.min(list)),
            (lost, list) => lost.or(list),
        }
    }
}
