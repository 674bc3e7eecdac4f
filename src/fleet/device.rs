//! One device: its connection, its place in the event chain, its uptime.
//!
//! Retries are not reported as changes: while `connected` is the same, each status of a retry loop
//! makes one event; repeats are only counted.

use std::sync::Arc;

use super::connection::ConnectionState;
use super::event::{DeviceEvent, EventType, Source, StatusReport};
use super::link::ViewContext;
use super::list_check::{Comparison, ListCheck, ListContext};
use super::listed::DeviceInfo;
use super::presence::Presence;
use super::remembered::{DeviceDetails, Remembered};
use super::state::{Counts, DeviceMeasures, DeviceState};
use super::status::Status;
use super::uptime::UptimeCounter;
use crate::ids::{DeviceId, Moment};

#[derive(Clone, Debug)]
pub(crate) struct Device {
    id: DeviceId,
    presence: Presence,
    info: Option<DeviceInfo>,
    details: Option<Arc<DeviceDetails>>,
    connection: ConnectionState,
    /// The last event's number; 0 before the first.
    seq: u64,
    uptime: UptimeCounter,
    counts: Counts,
    updated_at: Moment,
    check: ListCheck,
    /// When its connection ended, by the wall clock, if its gateway does not connect to it again
    /// and therefore drops it from its list.
    ended_at: Option<Moment>,
}

impl Device {
    pub(crate) fn new(id: DeviceId, wall_time: Moment, presence: Presence) -> Self {
        Self {
            id,
            presence,
            info: None,
            details: None,
            connection: ConnectionState::Unseen,
            seq: 0,
            uptime: UptimeCounter::default(),
            counts: Counts::default(),
            updated_at: wall_time,
            check: ListCheck::default(),
            ended_at: None,
        }
    }

    /// Restores what an earlier process knew; nothing of it has been observed since.
    pub(crate) fn restore(&mut self, remembered: Remembered) {
        let Remembered { seq, status, known, reported_retries, managed, absent_ms, .. } =
            remembered;
        self.seq = seq;
        self.connection = ConnectionState::restore(status, known, reported_retries);
        self.presence.restore(managed, absent_ms);
        (self.info, self.details) = (remembered.info, remembered.details);
    }

    /// Sets its details; returns whether that changed its state.
    pub(crate) fn set_details(&mut self, details: DeviceDetails, wall_time: Moment) -> bool {
        let details = Some(Arc::new(details.or(self.details.as_deref())));
        if self.details == details {
            return false;
        }
        (self.details, self.updated_at) = (details, wall_time);
        true
    }

    pub(crate) fn remember(&self) -> Remembered {
        Remembered {
            seq: self.seq,
            status: self.connection.status(),
            known: self.connection.known(),
            reported_retries: self.connection.retries(),
            managed: self.presence.is_listed(),
            info: self.info,
            absent_ms: self.presence.absent_ms(),
            forgotten: false,
            details: self.details.clone(),
        }
    }

    pub(crate) const fn id(&self) -> DeviceId {
        self.id
    }

    pub(crate) fn is_expected(&self) -> bool {
        self.presence.is_expected()
    }

    pub(crate) const fn absent_ms(&self) -> i64 {
        self.presence.absent_ms()
    }

    /// Adds to its absence while it is not expected; returns the new value.
    pub(crate) fn add_absence(&mut self, passed_ms: i64) -> Option<i64> {
        self.presence.add_absence(passed_ms)
    }

    /// The value of `connected` while its gateway's view is live.
    pub(crate) const fn connected(&self) -> Option<bool> {
        self.connection.connected()
    }

    /// Starts a new event chain.
    pub(crate) const fn reset_seq(&mut self) {
        self.seq = 0;
    }

    /// The number of the next event.
    pub(crate) const fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Records that the stream reported a status; returns whether it is new.
    pub(crate) fn note_report(&mut self, status: Status, stream_seq: u64) -> bool {
        self.check.set_last_stream_seq(stream_seq);
        let is_new = !self.connection.is_repeat(status);
        if !is_new {
            self.counts.count_failure(status);
        }
        is_new
    }

    /// Whether the list has to be read after the stream has reported this status.
    pub(crate) fn needs_list_after(&self, status: Status) -> bool {
        let is_connected = status.connected() == Some(true);
        // A gateway has a device's type only after the device connected, and only in the list.
        let type_is_new =
            is_connected && self.info.is_some_and(|info| info.device_type.is_undefined());
        self.ends_with(status) || type_is_new || !self.presence.is_listed()
    }

    /// Changes to a new status.
    pub(crate) fn change(&mut self, report: &StatusReport, view: &ViewContext) -> DeviceEvent {
        let StatusReport { status, source, timestamp, at, read_at } = *report;
        let wall_time = view.wall_time(at);
        let is_gapless = view.frozen_at.is_none();
        let previous = self.connection.status();
        let is_observed = source == Source::Stream && is_gapless;
        let duration_ms = if is_observed { self.connection.observed_ms(at) } else { None };

        if self.ends_with(status) {
            self.ended_at = Some(wall_time);
        } else if status.connected() != Some(false) {
            self.ended_at = None;
        }
        self.uptime.stop(view.observed_until(at), self.connected());
        self.connection.change(at, wall_time, status, source, is_gapless);
        self.start_observing(at);
        self.check.clear();
        self.updated_at = wall_time;
        let event_type = EventType::of(previous, status);
        self.counts.count(event_type, status);
        DeviceEvent {
            gateway: view.gateway,
            device_id: self.id,
            device_type: self.info.map(|info| info.device_type),
            event_type,
            seq: self.next_seq(),
            status,
            previous,
            timestamp,
            received_at: wall_time,
            observed_until: view.wall_time(view.observed_until(at)),
            duration_ms,
            source,
            read_at,
        }
    }

    /// Records its row in a list; returns whether that changed its state.
    pub(crate) fn set_listed(
        &mut self,
        info: DeviceInfo,
        list: &ListContext,
        view: &ViewContext,
    ) -> bool {
        self.ended_at = self.ended_at.filter(|_| !info.auto_reconnect);
        let info = Some(info.or_type_of(self.info));
        let is_changed = !self.presence.is_listed() || self.info != info;
        self.presence.enter_list();
        self.info = info;
        if view.is_live {
            self.start_observing(list.now);
        }
        if is_changed {
            self.updated_at = view.wall_time(list.now);
        }
        is_changed
    }

    /// Whether a list without it shows nothing new.
    pub(crate) fn is_settled_as_absent(&self) -> bool {
        !self.presence.is_listed()
            && self.connection.matches_list(None)
            && !self.connection.is_determined_by_list()
    }

    /// Compares with its status in a list, `None` if it is missing from it.
    pub(crate) fn compare(&mut self, listed: Option<Status>, list: &ListContext) -> Comparison {
        self.check.compare(&self.connection, listed, list)
    }

    /// Sets its first status, which is a state and not an event.
    pub(crate) fn set_first_seen(&mut self, status: Status, now: Moment, view: &ViewContext) {
        let wall_time = view.wall_time(now);
        self.connection = ConnectionState::first_seen(wall_time, status);
        self.updated_at = wall_time;
        if view.is_live {
            self.start_observing(now);
        }
    }

    /// Records that a list lacks it; returns whether that changed its state. A device that is still
    /// known as connected remains until its disconnect is applied.
    pub(crate) fn leave_list(&mut self, now: Moment, view: &ViewContext) -> bool {
        if !self.presence.is_listed() || !self.connection.matches_list(None) {
            return false;
        }
        self.presence.leave_list();
        self.stop_unless_expected(now, view);
        self.updated_at = view.wall_time(now);
        true
    }

    pub(crate) const fn ended_at(&self) -> Option<Moment> {
        self.ended_at
    }

    /// Whether this status ends a connection that the gateway does not make again: it drops the
    /// device from its list.
    fn ends_with(&self, status: Status) -> bool {
        self.connected() == Some(true)
            && status.connected() != Some(true)
            && !self.info.is_some_and(|info| info.auto_reconnect)
    }

    pub(crate) fn set_kept(&mut self, kept: bool, now: Moment, view: &ViewContext) {
        self.presence.set_kept(kept);
        self.stop_unless_expected(now, view);
        if view.is_live {
            self.start_observing(now);
        }
        self.updated_at = view.wall_time(now);
    }

    /// Whether an unbelieved difference needs a second list.
    pub(crate) const fn is_suspect(&self) -> bool {
        self.check.is_suspect()
    }

    /// The link broke at `last_activity`. A view that is live is kept for a while.
    pub(crate) fn end_link(&mut self, last_activity: Moment, view: &ViewContext) {
        self.check.clear();
        if !view.is_live {
            self.stop_observing(last_activity);
        }
    }

    /// The view is lost: the time up to `until` was observed, what follows was not.
    pub(crate) fn lose(&mut self, until: Moment, wall_time: Moment) {
        self.stop_observing(until);
        self.check.clear();
        self.updated_at = wall_time;
    }

    /// The view is current again.
    pub(crate) fn mark_online(&mut self, now: Moment, wall_time: Moment, is_returned: bool) {
        self.start_observing(now);
        if is_returned {
            self.updated_at = wall_time;
        }
    }

    fn start_observing(&mut self, now: Moment) {
        if self.is_expected() && self.connected().is_some() {
            self.uptime.start(now);
        }
    }

    fn stop_observing(&mut self, until: Moment) {
        self.uptime.stop(until, self.connected());
        self.connection.stop_observing();
    }

    fn stop_unless_expected(&mut self, now: Moment, view: &ViewContext) {
        if !self.is_expected() {
            self.uptime.stop(view.observed_until(now), self.connected());
        }
    }

    pub(crate) fn state(&self, is_live: bool) -> DeviceState {
        let known = self.connection.known();
        let connected = self.connected().filter(|_| is_live);
        DeviceState {
            device_id: self.id,
            connected,
            status: self.connection.status().filter(|_| is_live),
            since: connected.and(known).map(|known| known.since),
            since_exact: connected.is_some() && known.is_some_and(|known| known.exact),
            last_known: known.filter(|_| !is_live),
            seq: self.seq,
            info: self.info,
            details: self.details.clone(),
            managed: self.presence.is_listed(),
            expected: self.is_expected(),
            kept: self.presence.is_kept(),
            updated_at: self.updated_at,
        }
    }

    /// Its measures, with sums that never decrease.
    pub(crate) fn measures(&mut self, is_live: bool, until: Moment) -> DeviceMeasures {
        DeviceMeasures {
            state: self.state(is_live),
            known: self.connection.known(),
            counts: self.counts,
            observed: self.uptime.read_monotonic(until, self.connected()),
        }
    }

    /// The invariant that does not hold, if any.
    pub(crate) fn broken_invariant(&self, is_live: bool, is_kept: bool) -> Option<&'static str> {
        if self.presence.is_kept() != is_kept {
            return Some("a device is kept where its table says so");
        }
        let should_run = self.is_expected() && self.connected().is_some();
        if self.uptime.is_running() && !should_run {
            return Some("uptime runs only while the device is expected and known");
        }
        if is_live && should_run && !self.uptime.is_running() {
            return Some("uptime runs while the view is live and the device expected and known");
        }
        (self.seq > 0 && self.connection == ConnectionState::Unseen)
            .then_some("a device with events has a status")
    }
}
