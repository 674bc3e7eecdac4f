//! Status reports of a gateway, with the time of its clock.

use super::time::Millis;
use crate::proto::connect::StatusChange;

/// What a gateway's clock shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatewayClock {
    /// Unix time in milliseconds when the simulation began.
    pub(crate) start_unix_ms: i64,
    /// How far the clock is ahead (behind, if negative).
    pub(crate) skew_ms: i64,
}

impl GatewayClock {
    /// The clock's Unix time in whole seconds, as the wire carries it.
    pub(crate) fn unix_seconds(self, now: Millis) -> u32 {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let millis = self.start_unix_ms.saturating_add(now).saturating_add(self.skew_ms);
        u32::try_from((millis / 1_000).clamp(0, i64::from(u32::MAX))).unwrap_or(0)
    }
}

/// The status changes that are not yet taken.
#[derive(Debug)]
pub(crate) struct Reports {
    clock: GatewayClock,
    changes: Vec<StatusChange>,
}

impl Reports {
    pub(crate) fn new(clock: GatewayClock) -> Self {
        Self { clock, changes: Vec::new() }
    }

    pub(crate) fn set_clock_skew(&mut self, skew_ms: i64) {
        self.clock.skew_ms = skew_ms;
    }

    pub(crate) fn unix_seconds(&self, now: Millis) -> u32 {
        self.clock.unix_seconds(now)
    }

    /// Reports a status of any device.
    pub(crate) fn status(&mut self, now: Millis, device_id: u32, status: i32) {
        let timestamp = self.unix_seconds(now);
        self.changes.push(StatusChange { device_id, status, timestamp });
    }

    /// The changes since the last call.
    pub(crate) fn take(&mut self) -> Vec<StatusChange> {
        std::mem::take(&mut self.changes)
    }
}
