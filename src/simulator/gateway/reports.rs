//! What a gateway reports: the status of devices, with the time of its clock, and the connection
//! entries in their logs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::time::Millis;
use crate::proto::connect::StatusChange;
use crate::proto::event::EventLog;

/// Entries that a device keeps; when full, the oldest is dropped.
const ENTRIES_MAX: usize = 100;

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

/// An entry's code, as devices number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogCode {
    TcpConnected = 0x3B00,
    TcpDisconnected = 0x3C00,
}

#[derive(Debug, Default)]
struct DeviceLog {
    /// The number of dropped entries.
    dropped: u32,
    /// Code and Unix seconds.
    entries: VecDeque<(LogCode, u32)>,
}

/// The logs of the devices in a subnet.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    devices: BTreeMap<u32, DeviceLog>,
    monitored: BTreeSet<u32>,
    /// Entries of monitored devices that are not yet taken.
    fresh: Vec<EventLog>,
}

impl Logs {
    /// Records that a device was connected, and reports it at once if the device is monitored.
    pub(crate) fn connected(&mut self, id: u32, unix_s: u32) {
        let entry = self.record(id, LogCode::TcpConnected, unix_s);
        if self.monitored.contains(&id) {
            self.fresh.push(entry);
        }
    }

    /// Records that a device lost its connection; it cannot be reported without one.
    pub(crate) fn disconnected(&mut self, id: u32, unix_s: u32) {
        self.record(id, LogCode::TcpDisconnected, unix_s);
    }

    fn record(&mut self, id: u32, code: LogCode, unix_s: u32) -> EventLog {
        let log = self.devices.entry(id).or_default();
        if log.entries.len() >= ENTRIES_MAX {
            log.entries.pop_front();
            log.dropped = log.dropped.saturating_add(1);
        }
        log.entries.push_back((code, unix_s));
        entry(id, log, log.entries.len() - 1, (code, unix_s))
    }

    /// The entries of a device from an ID on; 0 is no limit of their number.
    pub(crate) fn of(&self, id: u32, first: u32, count_max: u32) -> Vec<EventLog> {
        let Some(log) = self.devices.get(&id) else { return Vec::new() };
        let count_max = if count_max == 0 { u32::MAX } else { count_max };
        let entries =
            log.entries.iter().enumerate().map(|(place, &one)| entry(id, log, place, one));
        let wanted = entries.filter(|entry| entry.id >= first);
        wanted.take(usize::try_from(count_max).unwrap_or(usize::MAX)).collect()
    }

    pub(crate) fn monitor(&mut self, id: u32, on: bool) {
        if on {
            self.monitored.insert(id);
        } else {
            self.monitored.remove(&id);
        }
    }

    /// What a gateway forgets when it restarts.
    pub(crate) fn forget_monitored(&mut self) {
        self.monitored.clear();
    }

    /// The entries since the last call.
    pub(crate) fn take(&mut self) -> Vec<EventLog> {
        std::mem::take(&mut self.fresh)
    }
}

fn entry(
    device_id: u32,
    log: &DeviceLog,
    place: usize,
    (code, unix_s): (LogCode, u32),
) -> EventLog {
    let place = u32::try_from(place).unwrap_or(u32::MAX);
    EventLog {
        id: log.dropped.saturating_add(place).saturating_add(1),
        timestamp: unix_s,
        device_id,
        event_code: code as u32,
        ..EventLog::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_numbered_and_the_oldest_make_room() {
        let mut logs = Logs::default();
        for second in 0..60 {
            logs.connected(7, second * 2);
            logs.disconnected(7, second * 2 + 1);
        }
        let all = logs.of(7, 0, 0);
        assert_eq!((all.len(), all[0].id, all[99].id), (100, 21, 120));
        assert_eq!((all[0].timestamp, all[0].event_code), (20, 0x3B00));
        let page: Vec<u32> = logs.of(7, 118, 2).iter().map(|one| one.id).collect();
        assert_eq!(page, [118, 119]);
        assert!(logs.of(8, 0, 0).is_empty());
        assert!(logs.take().is_empty(), "not monitored");
        logs.monitor(7, true);
        logs.connected(7, 200);
        logs.disconnected(7, 201);
        let codes: Vec<u32> = logs.take().iter().map(|one| one.event_code).collect();
        assert_eq!(codes, [0x3B00], "a device without a connection reports nothing");
    }
}
