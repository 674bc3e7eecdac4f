//! Converts observations into rows: pure, without a database and without a clock.
//!
//! Rows of a device never overlap, and none begins before the newest time that was written, so that
//! setting the wall clock back changes no earlier row.

use std::collections::BTreeMap;

use super::gateway::GatewaySpans;
use super::{Observation, ObservedDevice, Row, StoredSpans, UnobservedReason};
use crate::ids::{GatewayName, Moment};

/// 2026-01-01, before any build of this program: an earlier wall clock is implausible.
const PLAUSIBLE_FROM: Moment = Moment::from_millis(1_767_225_600_000);

/// What is known of every device, and which rows are open.
#[derive(Debug)]
pub(crate) struct Tracker {
    gateways: BTreeMap<GatewayName, GatewaySpans>,
    view: TrackerState,
    /// Nothing may be written before.
    newest: Moment,
    rows: Vec<Row>,
}

/// Whether the bridge writes spans.
#[derive(Clone, Copy, Debug)]
enum TrackerState {
    /// There is no database, for this reason.
    Detached(UnobservedReason),
    /// Time is not observed, with an open row since `from` unless nothing came before.
    Unobserved {
        reason: UnobservedReason,
        from: Option<Moment>,
    },
    Observed {
        from: Moment,
    },
}

impl Tracker {
    /// The tracker of a process that has started.
    pub(crate) const fn new() -> Self {
        Self {
            gateways: BTreeMap::new(),
            view: TrackerState::Detached(UnobservedReason::BridgeStopped),
            newest: PLAUSIBLE_FROM,
            rows: Vec::new(),
        }
    }

    /// The rows that are to be written.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The rows are written.
    pub(crate) fn written(&mut self) {
        // Gives the memory back: the first rows are as many as there are devices.
        self.rows = Vec::new();
    }

    /// Up to when the rows are complete; `None` while there are none.
    pub(crate) const fn proven_at(&self) -> Option<Moment> {
        match self.view {
            TrackerState::Observed { .. } | TrackerState::Unobserved { from: Some(_), .. } => {
                Some(self.newest)
            }
            TrackerState::Detached(_) | TrackerState::Unobserved { from: None, .. } => None,
        }
    }

    /// Whether the wall clock is earlier than what is written.
    pub(crate) const fn is_clock_implausible(&self) -> bool {
        matches!(self.view, TrackerState::Unobserved { reason: UnobservedReason::ClockUnset, .. })
    }

    /// Up to when the wall clock is implausible.
    pub(crate) const fn newest(&self) -> Moment {
        self.newest
    }

    /// Continues with what this database has. What was open in it ends at its last proven instant.
    pub(crate) fn attach(&mut self, stored: StoredSpans) {
        let TrackerState::Detached(reason) = self.view else { return };
        let StoredSpans { proven_at, gateways, devices } = stored;
        for (name, absent_since) in gateways {
            self.gateway(&name).restore(absent_since);
        }
        for (name, device_id, absent_since) in devices {
            self.gateway(&name).restore_device(device_id, absent_since);
        }
        if let Some(at) = proven_at {
            self.newest = self.newest.max(at);
            self.rows.push(Row::EndAll { at });
            self.rows.push(Row::Unobserved { gateway: None, reason, from: at, to: None });
        }
        self.view = TrackerState::Unobserved { reason, from: proven_at };
    }

    /// The database is lost or cannot be written: what is not written yet never will be.
    pub(crate) fn detach(&mut self, reason: UnobservedReason) {
        self.view = TrackerState::Detached(reason);
        self.rows.clear();
        self.gateways.values_mut().for_each(GatewaySpans::forget_rows);
    }

    fn gateway(&mut self, name: &GatewayName) -> &mut GatewaySpans {
        let new = || GatewaySpans::new(name.clone());
        self.gateways.entry(name.clone()).or_insert_with(new)
    }

    /// Applies an observation. None may be later than the `now` of the next [`Self::advance`].
    pub(crate) fn apply(&mut self, observation: Observation) {
        let (is_observed, start) = match self.view {
            TrackerState::Observed { from } => (true, from),
            TrackerState::Detached(_) | TrackerState::Unobserved { .. } => (false, self.newest),
        };
        let clamp = |at: Moment| if is_observed { at.max(start) } else { start };
        match observation {
            Observation::Gateways { entries, at } => {
                let removed = self
                    .gateways
                    .iter_mut()
                    .filter(|(name, _)| !entries.iter().any(|entry| entry.name == **name));
                removed.for_each(|(_, gateway)| gateway.remove());
                for entry in entries {
                    let name = entry.name.clone();
                    self.gateway(&name).configure(entry);
                }
                self.update_all(clamp(at), is_observed);
            }
            Observation::Device { gateway, device } => {
                let ObservedDevice { until, from, .. } = device;
                let (until, from) = (clamp(until.min(from)), clamp(from));
                let observed = ObservedDevice { until, from, ..device };
                if let Some(gateway) = self.gateways.get_mut(&gateway) {
                    gateway.device(observed, is_observed, &mut self.rows);
                }
            }
            Observation::GatewayOnline { gateway, from } => {
                if let Some(gateway) = self.gateways.get_mut(&gateway) {
                    gateway.online();
                    gateway.update(clamp(from), is_observed, &mut self.rows);
                }
            }
            Observation::GatewayLost { gateway, until, reason } => {
                if let Some(gateway) = self.gateways.get_mut(&gateway) {
                    gateway.lose(reason);
                    gateway.update(clamp(until), is_observed, &mut self.rows);
                }
            }
            Observation::ClockSet { before, after } => {
                if is_observed {
                    self.stop(clamp(before));
                }
                self.advance(after);
            }
        }
    }

    /// The bridge ran until now, by its wall clock. Begins to observe where that is plausible.
    pub(crate) fn advance(&mut self, now: Moment) {
        match self.view {
            TrackerState::Detached(_) => {}
            TrackerState::Observed { .. } => self.newest = self.newest.max(now),
            TrackerState::Unobserved { reason, from } if now >= self.newest => {
                if let Some(from) = from {
                    let to = Some(now);
                    self.rows.push(Row::Unobserved { gateway: None, reason, from, to });
                }
                (self.view, self.newest) = (TrackerState::Observed { from: now }, now);
                self.update_all(now, true);
            }
            TrackerState::Unobserved { reason: UnobservedReason::ClockUnset, .. } => {}
            TrackerState::Unobserved { from, .. } => {
                let reason = UnobservedReason::ClockUnset;
                if let Some(from) = from {
                    self.rows.push(Row::Unobserved { gateway: None, reason, from, to: None });
                }
                self.view = TrackerState::Unobserved { reason, from };
            }
        }
    }

    /// From here on time is not observed, because of the clock.
    fn stop(&mut self, at: Moment) {
        let newest =
            self.gateways.values().map(GatewaySpans::newest).chain([self.newest, at]).max();
        let (at, reason) = (newest.unwrap_or(at), UnobservedReason::ClockUnset);
        self.update_all(at, false);
        self.rows.push(Row::Unobserved { gateway: None, reason, from: at, to: None });
        self.view = TrackerState::Unobserved { reason, from: Some(at) };
        self.newest = at;
    }

    fn update_all(&mut self, at: Moment, is_observed: bool) {
        for gateway in self.gateways.values_mut() {
            gateway.update(at, is_observed, &mut self.rows);
            if is_observed {
                gateway.describe(at, &mut self.rows);
            }
        }
    }
}
