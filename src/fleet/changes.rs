//! Applies the stream's statuses and the rows of lists to devices, and collects the resulting
//! events and states.

use super::device::Device;
use super::device_table::DeviceTable;
use super::event::{DeviceEvent, GatewayEvent, Source, StatusReport};
use super::io::Output;
use super::link::ViewContext;
use super::list_check::{Comparison, ListContext};
use super::listed::Listed;
use super::state::GatewayCounts;
use super::status::Status;
use super::unknown_devices::{HeldStatus, UnknownDevices};
use crate::ids::DeviceId;

/// The changes of one gateway's devices in one step.
pub(crate) struct Changes<'a> {
    view: ViewContext,
    /// Whether states are known well enough to be published.
    is_decided: bool,
    counts: &'a mut GatewayCounts,
    out: &'a mut Vec<Output>,
    /// How many differences an audit has corrected.
    corrected: u64,
    /// Whether a list has changed anything that the stream had not reported.
    has_unreported: bool,
}

impl<'a> Changes<'a> {
    pub(crate) const fn new(
        view: ViewContext,
        is_decided: bool,
        counts: &'a mut GatewayCounts,
        out: &'a mut Vec<Output>,
    ) -> Self {
        Self { view, is_decided, counts, out, corrected: 0, has_unreported: false }
    }

    pub(crate) const fn view(&self) -> &ViewContext {
        &self.view
    }

    fn event(&mut self, event: DeviceEvent) {
        self.counts.count_change(event.status);
        let device_id = event.device_id;
        self.out.push(Output::Event(event));
        self.state(device_id);
    }

    pub(crate) const fn count_stranger(&mut self) {
        self.counts.strangers += 1;
    }

    /// A device's published state has changed.
    pub(crate) fn state(&mut self, device_id: DeviceId) {
        if self.is_decided {
            self.out.push(Output::StateChanged { gateway: self.view.gateway, device_id });
        }
    }

    /// Applies a status from the stream; returns whether the list has to be read after it.
    pub(crate) fn apply_report(
        &mut self,
        device: &mut Device,
        report: &StatusReport,
        stream_seq: u64,
    ) -> bool {
        if !device.note_report(report.status, stream_seq) {
            self.counts.repeated += 1;
            return false;
        }
        let needs_list = device.needs_list_after(report.status);
        let event = device.change(report, &self.view);
        self.event(event);
        needs_list
    }

    /// Compares all devices with a list, which is in the order of their IDs; returns whether that
    /// has changed anything that the stream had not reported.
    pub(crate) fn reconcile(
        &mut self,
        devices: &mut DeviceTable,
        unknown_devices: &mut UnknownDevices,
        rows: &[Listed],
        list: &ListContext,
    ) -> bool {
        debug_assert!(rows.is_sorted_by(|row, next| row.device_id < next.device_id));
        let wall_time = self.view.wall_time(list.now);
        for &Listed { device_id, status, info } in rows {
            let (device, is_new) = devices.get_or_add(device_id, wall_time);
            if device.set_listed(info, list, &self.view) {
                self.state(device_id);
            }
            if is_new {
                self.apply_held(device, &unknown_devices.take(device_id));
            }
            self.compare(device, Some(status), list);
        }
        let mut listed = rows.iter().map(|row| row.device_id).peekable();
        for device in devices.iter_mut() {
            if listed.next_if_eq(&device.id()).is_some() || device.is_settled_as_absent() {
                continue;
            }
            self.compare(device, None, list);
            if device.leave_list(list.now, &self.view) {
                let (gateway, device_id) = (self.view.gateway, device.id());
                let since = device.ended_at().map_or(wall_time, |ended| ended.min(wall_time));
                self.has_unreported |= device.ended_at().is_none();
                self.out.push(Output::LeftList { gateway, device_id, since });
                self.state(device_id);
            }
        }
        if self.corrected > 0 {
            self.counts.corrections += self.corrected;
            let event = GatewayEvent::Corrected { count: self.corrected };
            self.out.push(Output::GatewayEvent(self.view.gateway, event));
        }
        self.has_unreported
    }

    /// Applies what the stream reported of a device before a list showed it.
    fn apply_held(&mut self, device: &mut Device, held: &[HeldStatus]) {
        // All of it was observed: the device was not known before the link broke.
        let view = ViewContext { frozen_at: None, ..self.view };
        for HeldStatus { report, stream_seq, observed_until } in held {
            if device.note_report(report.status, *stream_seq) {
                let event = device.change(report, &view);
                self.event(event);
            } else {
                self.counts.repeated += 1;
            }
            if let Some(until) = observed_until.filter(|_| !view.is_live) {
                device.lose(until, view.wall_time(until));
            }
        }
    }

    /// Compares one device with its status in a list.
    fn compare(&mut self, device: &mut Device, listed: Option<Status>, list: &ListContext) {
        match device.compare(listed, list) {
            Comparison::Unchanged => {}
            Comparison::FirstSeen(status) => {
                device.set_first_seen(status, list.now, &self.view);
                self.state(device.id());
            }
            Comparison::Changed(status, source) => {
                let (at, timestamp) = (list.now, self.view.wall_time(list.now));
                let report = StatusReport { status, source, timestamp, at, read_at: None };
                let event = device.change(&report, &self.view);
                self.event(event);
                self.corrected += u64::from(source == Source::Audit);
                self.has_unreported = true;
            }
        }
    }
}
