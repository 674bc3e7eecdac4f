//! One gateway: applies the events of its link to the view of its devices.

use std::collections::BTreeSet;

use super::changes::Changes;
use super::device_table::DeviceTable;
use super::event::{GatewayEvent, GatewayIndex, StatusReport};
use super::io::{GatewaySettings, Output};
use super::link::{LinkTracker, ViewContext};
use super::list_check::ListContext;
use super::list_schedule::ListSchedule;
use super::listed::Listed;
use super::remembered::DeviceDetails;
use super::skew::Skew;
use super::state::{GatewayCounts, GatewayState};
use super::unknown_devices::UnknownDevices;
use crate::ids::{DeviceId, Moment};

#[derive(Debug)]
pub(crate) struct Gateway {
    index: GatewayIndex,
    devices: DeviceTable,
    unknown_devices: UnknownDevices,
    link: LinkTracker,
    lists: ListSchedule,
    /// Counts the stream's statuses, which gives them and the lists an order.
    stream_seq: u64,
    counts: GatewayCounts,
    skew: Skew,
    /// How far the wall clock is ahead of the core's `now`, in milliseconds.
    wall_offset_ms: i64,
}

impl Gateway {
    pub(crate) fn new(
        index: GatewayIndex,
        settings: GatewaySettings,
        declared: &[DeviceId],
        now: Moment,
        wall_offset_ms: i64,
    ) -> Self {
        let wall_time = now.plus(wall_offset_ms);
        Self {
            index,
            devices: DeviceTable::new(wall_time, declared, settings.forget_after_ms),
            unknown_devices: UnknownDevices::default(),
            link: LinkTracker::new(now, wall_time, settings.unknown_after_ms),
            lists: ListSchedule::new(settings.audit_interval_ms),
            stream_seq: 0,
            counts: GatewayCounts::default(),
            skew: Skew::default(),
            wall_offset_ms,
        }
    }

    pub(crate) const fn view(&self) -> ViewContext {
        ViewContext {
            gateway: self.index,
            is_live: self.link.is_live(),
            frozen_at: self.link.frozen_at(),
            wall_offset_ms: self.wall_offset_ms,
        }
    }

    /// The devices, and where their changes go.
    fn changing<'a>(
        &'a mut self,
        out: &'a mut Vec<Output>,
    ) -> (&'a mut DeviceTable, &'a mut UnknownDevices, Changes<'a>) {
        let changes = Changes::new(self.view(), self.link.is_decided(), &mut self.counts, out);
        (&mut self.devices, &mut self.unknown_devices, changes)
    }

    pub(crate) const fn set_wall_offset(&mut self, ms: i64) {
        self.wall_offset_ms = ms;
    }

    pub(crate) const fn link(&self) -> &LinkTracker {
        &self.link
    }

    pub(crate) const fn devices(&self) -> &DeviceTable {
        &self.devices
    }

    pub(crate) const fn devices_mut(&mut self) -> &mut DeviceTable {
        &mut self.devices
    }

    pub(crate) fn link_up(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.counts.stream_starts += 1;
        self.synchronize(now, out);
    }

    /// What happened from `until` to `now` was not observed, although the link may have lasted.
    pub(crate) fn interrupt(&mut self, now: Moment, until: Moment, out: &mut Vec<Output>) {
        if self.link.is_up() {
            self.link_down(now, until, out);
            self.synchronize(now, out);
        }
    }

    fn synchronize(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.link.up(now);
        self.lists.start(now);
        self.update_state(now, out);
        self.request_list_if_due(now, out);
    }

    pub(crate) fn link_down(&mut self, now: Moment, last_activity: Moment, out: &mut Vec<Output>) {
        if !self.link.is_up() {
            return;
        }
        let last_activity = last_activity.min(now);
        self.link.down(now, last_activity);
        self.lists.stop();
        self.count_absence(last_activity, out);
        self.devices.pause_absence();
        self.unknown_devices.end_link(last_activity);
        let view = self.view();
        self.devices.iter_mut().for_each(|device| device.end_link(last_activity, &view));
        self.update_state(now, out);
        self.expire_if_due(now, out);
    }

    pub(crate) fn absent(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.link.absent(now);
        self.expire_if_due(now, out);
    }

    /// Applies a status from the stream.
    pub(crate) fn status(
        &mut self,
        device_id: DeviceId,
        report: StatusReport,
        out: &mut Vec<Output>,
    ) {
        self.stream_seq += 1;
        self.skew.sample(report.timestamp, report.at);
        let stream_seq = self.stream_seq;
        let (devices, unknown_devices, mut changes) = self.changing(out);
        let needs_list = match devices.get_mut(device_id) {
            Some(device) => changes.apply_report(device, &report, stream_seq),
            None => {
                let is_new = !unknown_devices.is_repeat(device_id, &report);
                if !is_new || !unknown_devices.hold(device_id, report, stream_seq) {
                    changes.count_stranger();
                }
                is_new
            }
        };
        if needs_list {
            self.request_list(report.at, out);
        }
    }

    pub(crate) fn list_requested(&mut self) {
        self.lists.sent(self.stream_seq);
    }

    pub(crate) fn list_failed(&mut self, now: Moment) {
        self.lists.failed(now);
    }

    /// Compares a list with what is known.
    pub(crate) fn list(&mut self, now: Moment, rows: &[Listed], out: &mut Vec<Output>) {
        let Some(requested_seq) = self.lists.requested_seq() else { return };
        let (is_first, stream_seq) = (!self.link.is_synced(), self.stream_seq);
        let list = ListContext { now, is_first, requested_seq, stream_seq };
        self.count_absence(now, out);
        self.skew.expire(now);
        let (devices, unknown_devices, mut changes) = self.changing(out);
        let has_changed = changes.reconcile(devices, unknown_devices, rows, &list);
        self.discard_unknown_devices(now, requested_seq, out);
        if is_first {
            self.mark_online(now, out);
        }
        self.forget(&self.devices.absent_too_long(), out);
        let is_suspect = self.devices.iter().any(|device| device.is_suspect());
        self.lists.finish(now, self.view().wall_time(now), is_suspect, has_changed);
        self.request_list_if_due(now, out);
    }

    /// Discards the statuses of devices that the list would have shown, if it had them.
    fn discard_unknown_devices(&mut self, now: Moment, requested_seq: u64, out: &mut Vec<Output>) {
        let discarded = self.unknown_devices.discard_until(requested_seq, now);
        self.counts.strangers += discarded.count;
        let stranger = |(device_id, status)| GatewayEvent::Stranger { device_id, status };
        out.extend(discarded.to_report.map(|it| Output::GatewayEvent(self.index, stranger(it))));
        if !self.unknown_devices.is_empty() {
            self.lists.want();
        }
    }

    /// The first list of the link was read.
    fn mark_online(&mut self, now: Moment, out: &mut Vec<Output>) {
        let (is_returned, wall_time) = (self.link.mark_online(), self.view().wall_time(now));
        for device in self.devices.iter_mut() {
            device.mark_online(now, wall_time, is_returned);
            if is_returned {
                out.push(Output::StateChanged { gateway: self.index, device_id: device.id() });
            }
        }
        if is_returned {
            self.update_state(now, out);
            out.push(Output::GatewayEvent(self.index, GatewayEvent::Reachable));
        }
    }

    /// Makes the devices' states unknown, if that is due.
    fn expire_if_due(&mut self, now: Moment, out: &mut Vec<Output>) {
        let wall_time = self.view().wall_time(now);
        let Some(until) = self.link.expire_if_due(now, wall_time) else { return };
        for device in self.devices.iter_mut() {
            device.lose(until, wall_time);
            out.push(Output::StateChanged { gateway: self.index, device_id: device.id() });
        }
        out.push(Output::GatewayChanged(self.index));
        self.update_state(now, out);
        out.push(Output::GatewayEvent(self.index, GatewayEvent::Unreachable));
    }

    fn update_state(&mut self, now: Moment, out: &mut Vec<Output>) {
        if self.link.update_state(self.view().wall_time(now)) {
            out.push(Output::GatewayChanged(self.index));
        }
    }

    /// Requests a list before the next audit.
    pub(crate) fn request_list(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.lists.want();
        self.request_list_if_due(now, out);
    }

    /// Requests a list that confirms what the gateway has just shown.
    pub(crate) fn request_second_look(&mut self, now: Moment) {
        self.lists.want_second_look(now);
    }

    fn request_list_if_due(&mut self, now: Moment, out: &mut Vec<Output>) {
        if self.lists.request_if_due(now) {
            out.push(Output::RequestList(self.index));
        }
    }

    pub(crate) fn wake(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.expire_if_due(now, out);
        self.request_list_if_due(now, out);
    }

    /// When [`Gateway::wake`] is due.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        [self.link.expires_at(), self.lists.next()].into_iter().flatten().min()
    }

    pub(crate) fn set_kept(
        &mut self,
        now: Moment,
        kept: BTreeSet<DeviceId>,
        out: &mut Vec<Output>,
    ) {
        let (devices, _, mut changes) = self.changing(out);
        for (device_id, is_kept) in devices.set_kept(kept) {
            if let Some(device) = devices.get_mut(device_id) {
                device.set_kept(is_kept, now, changes.view());
                changes.state(device_id);
            }
        }
    }

    pub(crate) fn set_details(
        &mut self,
        now: Moment,
        device_id: DeviceId,
        details: DeviceDetails,
        out: &mut Vec<Output>,
    ) {
        let wall_time = self.view().wall_time(now);
        let device = self.devices.get_mut(device_id);
        if device.is_some_and(|device| device.set_details(details, wall_time)) {
            out.push(Output::StateChanged { gateway: self.index, device_id });
        }
    }

    fn count_absence(&mut self, until: Moment, out: &mut Vec<Output>) {
        for device_id in self.devices.count_absence(until) {
            out.push(Output::StoreState { gateway: self.index, device_id });
        }
    }

    /// Forgets devices that are not expected; returns those that are.
    pub(crate) fn forget(&mut self, ids: &[DeviceId], out: &mut Vec<Output>) -> Vec<DeviceId> {
        let mut expected = Vec::new();
        for &device_id in ids {
            match self.devices.forget(device_id) {
                Some(true) => out.push(Output::Forgotten { gateway: self.index, device_id }),
                Some(false) => expected.push(device_id),
                None => {}
            }
        }
        expected
    }

    /// Forgets the gateway with all its devices, also those that are expected; returns them.
    pub(crate) fn forget_all(&mut self, out: &mut Vec<Output>) -> BTreeSet<DeviceId> {
        let ids = self.devices.forget_all();
        out.extend(ids.iter().map(|&id| Output::Forgotten { gateway: self.index, device_id: id }));
        self.counts.strangers += self.unknown_devices.discard_all();
        self.link.forget();
        ids
    }

    /// The forgotten gateway exists again.
    pub(crate) fn recall(&mut self, now: Moment) {
        self.link.recall(now, self.view().wall_time(now));
    }

    pub(crate) const fn counts(&self) -> &GatewayCounts {
        &self.counts
    }

    pub(crate) fn state(&self) -> GatewayState {
        let live = self.link.is_live();
        let (connected, disconnected, unknown) = self.devices.count(live);
        let skew_ms = self.skew.estimate_ms().filter(|_| live);
        GatewayState {
            state: self.link.state(),
            since: self.link.state_since(),
            live,
            connected,
            disconnected,
            unknown,
            clock_skew_ms: skew_ms.map(|skew| skew - self.wall_offset_ms),
            last_list_at: self.lists.last_list_at(),
            audit_interval_ms: self.lists.audit_interval_ms(),
        }
    }

    /// The invariant that does not hold, if any; `device_id`: the only device to check.
    pub(crate) fn broken_invariant(&self, device_id: Option<DeviceId>) -> Option<&'static str> {
        let is_up = self.link.is_up();
        let broken = [
            (is_up != self.lists.is_running(), "lists are scheduled while the link is up"),
            (self.link.is_synced() && !is_up, "the view is current only while the link is up"),
            (self.link.is_forgotten() && is_up, "a forgotten gateway has no link"),
        ];
        let broken = broken.into_iter().find_map(|(is_broken, what)| is_broken.then_some(what));
        broken.or_else(|| self.devices.broken_invariant(device_id, self.link.is_live()))
    }
}
