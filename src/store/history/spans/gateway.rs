//! One gateway of the tracker: its devices, and the open rows of both.

use std::collections::BTreeMap;

use super::{ObservedDevice, Row, SpanState, UnobservedReason};
use crate::fleet::DeviceType;
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::GatewayEntry;

#[derive(Debug)]
pub(crate) struct GatewaySpans {
    name: GatewayName,
    /// Its names for people; `None` until the configuration is known.
    entry: Option<GatewayEntry>,
    /// Why its devices are not observed; `None`: they are.
    loss: Option<UnobservedReason>,
    /// Its open row of time not observed.
    open: Option<(UnobservedReason, Moment)>,
    devices: BTreeMap<DeviceId, DeviceSpans>,
    /// Since when it is observed, or is not.
    since: Moment,
    /// Nothing of it may be written before.
    newest: Moment,
}

#[derive(Debug, Default)]
struct DeviceSpans {
    device_type: Option<DeviceType>,
    /// What it is; `None`: an earlier process knew it, this one has not seen it.
    state: Option<SpanState>,
    /// Its open row.
    open: Option<(SpanState, Moment)>,
    /// Where its last row begins, or ends.
    reached: Moment,
}

impl GatewaySpans {
    pub(crate) const fn new(name: GatewayName) -> Self {
        Self {
            name,
            entry: None,
            loss: Some(UnobservedReason::BridgeStopped),
            open: None,
            devices: BTreeMap::new(),
            since: Moment::from_millis(0),
            newest: Moment::from_millis(0),
        }
    }

    pub(crate) const fn newest(&self) -> Moment {
        self.newest
    }

    /// It is in the configuration.
    pub(crate) fn configure(&mut self, entry: GatewayEntry) {
        if self.entry.replace(entry).is_none() {
            self.loss = Some(UnobservedReason::BridgeStopped);
        }
    }

    /// It is not in the configuration.
    pub(crate) fn remove(&mut self) {
        (self.entry, self.loss) = (None, Some(UnobservedReason::NotConfigured));
        self.unseen_are_absent();
    }

    pub(crate) fn online(&mut self) {
        self.loss = None;
        self.unseen_are_absent();
    }

    pub(crate) const fn lose(&mut self, reason: UnobservedReason) {
        self.loss = Some(reason);
    }

    /// Devices of an earlier process that there are no more.
    fn unseen_are_absent(&mut self) {
        for device in self.devices.values_mut() {
            device.state.get_or_insert(SpanState::Absent);
        }
    }

    /// What the database has of it.
    pub(crate) const fn restore(&mut self, absent_since: Option<Moment>) {
        if let Some(since) = absent_since {
            self.open = Some((UnobservedReason::NotConfigured, since));
            if self.entry.is_none() {
                self.loss = Some(UnobservedReason::NotConfigured);
            }
        }
    }

    /// What the database has of a device.
    pub(crate) fn restore_device(&mut self, device_id: DeviceId, absent_since: Option<Moment>) {
        let device = self.devices.entry(device_id).or_default();
        if let Some(since) = absent_since {
            device.state.get_or_insert(SpanState::Absent);
            device.open = Some((SpanState::Absent, since));
            device.reached = device.reached.max(since);
        }
    }

    /// No row is open any more.
    pub(crate) fn forget_rows(&mut self) {
        self.open = None;
        self.devices.values_mut().for_each(|device| device.open = None);
    }

    /// The rows of what has no beginning and no end, for a database that may not have them.
    pub(crate) fn describe(&self, at: Moment, rows: &mut Vec<Row>) {
        rows.push(Row::Gateway { gateway: self.name.clone(), first_seen_at: at });
        for (&device_id, device) in &self.devices {
            if device.state.is_some() {
                self.describe_device(device_id, device.device_type, at, rows);
            }
        }
    }

    fn describe_device(
        &self,
        device_id: DeviceId,
        device_type: Option<DeviceType>,
        at: Moment,
        rows: &mut Vec<Row>,
    ) {
        let Some(entry) = &self.entry else { return };
        let name = entry.device_name(device_id, device_type).into_owned();
        let is_typed = device_type.is_some_and(|known| !known.is_undefined());
        let configured = entry.devices.get(&device_id).and_then(|entry| entry.name.as_ref());
        rows.push(Row::Device {
            gateway: self.name.clone(),
            device_id,
            name,
            is_final: is_typed || configured.is_some(),
            first_seen_at: at,
        });
    }

    /// Applies what was observed of a device. `is_observed`: the bridge writes spans now.
    pub(crate) fn device(
        &mut self,
        observed: ObservedDevice,
        is_observed: bool,
        rows: &mut Vec<Row>,
    ) {
        let ObservedDevice { device_id, device_type, state, .. } = observed;
        let (until, from) = (observed.until.max(self.since), observed.from.max(self.since));
        let known = self.devices.get(&device_id);
        let is_named = known.is_some_and(|it| {
            // A device that was absent for long may have been removed from the database.
            !matches!(it.state, None | Some(SpanState::Absent)) && it.device_type == device_type
        });
        if known.is_some_and(|it| (it.state, it.device_type) == (Some(state), device_type)) {
            return;
        }
        if !is_named && is_observed {
            self.describe_device(device_id, device_type, from, rows);
        }
        let device = self.devices.entry(device_id).or_default();
        (device.device_type, device.state) = (device_type, Some(state));
        let wanted = device.wanted(is_observed, self.loss.is_none());
        let newest = device.update(&self.name, device_id, wanted, (until, from), rows);
        self.newest = self.newest.max(newest.unwrap_or(self.newest));
    }

    /// Ends and begins rows at this instant, so that the open ones are those that there should be.
    pub(crate) fn update(&mut self, at: Moment, is_observed: bool, rows: &mut Vec<Row>) {
        let at = at.max(self.newest);
        let wanted = self.loss.filter(|loss| match loss {
            UnobservedReason::NotConfigured => is_observed || self.open.is_some(),
            _ => is_observed,
        });
        let mut changed = self.open.map(|(reason, _)| reason) != wanted;
        if changed {
            if let Some((reason, from)) = self.open.take() {
                rows.push(self.unobserved(reason, from, Some(at)));
            }
            if let Some(reason) = wanted {
                self.open = Some((reason, at));
                rows.push(self.unobserved(reason, at, None));
            }
        }
        for (&device_id, device) in &mut self.devices {
            let wanted = device.wanted(is_observed, self.loss.is_none());
            changed |= device.update(&self.name, device_id, wanted, (at, at), rows).is_some();
        }
        if changed {
            (self.since, self.newest) = (at, at);
        }
    }

    fn unobserved(&self, reason: UnobservedReason, from: Moment, to: Option<Moment>) -> Row {
        Row::Unobserved { gateway: Some(self.name.clone()), reason, from, to }
    }
}

impl DeviceSpans {
    /// The state of the row that should be open.
    fn wanted(&self, is_observed: bool, is_online: bool) -> Option<SpanState> {
        let is_open = |state| self.open.is_some_and(|(open, _)| open == state);
        self.state.filter(|&state| match state {
            SpanState::Absent => is_observed || is_open(state),
            SpanState::Connected | SpanState::Disconnected | SpanState::Unknown => {
                is_observed && is_online
            }
        })
    }

    /// Ends the open row and begins the requested one; returns the newest written time.
    fn update(
        &mut self,
        gateway: &GatewayName,
        device_id: DeviceId,
        wanted: Option<SpanState>,
        (until, from): (Moment, Moment),
        rows: &mut Vec<Row>,
    ) -> Option<Moment> {
        if self.open.map(|(state, _)| state) == wanted {
            return None;
        }
        let mut row = |state, from, to| {
            rows.push(Row::Span { gateway: gateway.clone(), device_id, state, from, to });
        };
        let until = until.max(self.reached);
        let newest = from.max(until);
        if let Some((state, began)) = self.open.take() {
            row(state, began, Some(until));
            if wanted.is_some() && until < from {
                row(SpanState::Unknown, until, Some(from));
            }
        }
        if let Some(state) = wanted {
            self.open = Some((state, newest));
            row(state, newest, None);
        }
        self.reached = newest;
        Some(newest)
    }
}
