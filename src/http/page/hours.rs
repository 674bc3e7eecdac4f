//! The last 24 hours of each device: how long it was observed, and how long of that it was not
//! connected. Kept in memory from the start of the process.

use std::collections::BTreeMap;

use crate::fleet::{GatewayIndex, Observed};
use crate::ids::DeviceId;

/// The hours of the availability bar.
pub(crate) const HOURS: usize = 24;
/// The seconds of an hour.
pub(crate) const HOUR_S: u16 = 3600;
/// The resolution of an hour that has ended: a quarter of a minute, so that it fits a byte.
const UNIT_S: u16 = 15;

/// One device.
pub(crate) type DeviceKey = (GatewayIndex, DeviceId);

/// One hour of a device, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hour {
    pub(crate) observed_s: u16,
    /// Rounded up, so that no outage is hidden.
    pub(crate) down_s: u16,
}

/// The last hours of all devices. 64 bytes a device.
#[derive(Debug)]
pub(crate) struct Hours {
    /// The current hour, counted from 1970.
    current: i64,
    devices: BTreeMap<DeviceKey, Day>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Day {
    /// The counters at the beginning of the current hour, in milliseconds. Their low half is
    /// enough for a difference.
    observed_ms: u32,
    connected_ms: u32,
    /// By hour modulo 24, in units: observed, down. That of the current hour is not used yet.
    ended: [(u8, u8); HOURS],
}

impl Hours {
    /// `hour` is the current hour, counted from 1970.
    pub(crate) const fn new(hour: i64) -> Self {
        Self { current: hour, devices: BTreeMap::new() }
    }

    /// Whether the current hour is over at `hour`.
    pub(crate) const fn is_over(&self, hour: i64) -> bool {
        hour > self.current
    }

    /// Ends the current hour with what has been observed by now of each device that still exists.
    pub(crate) fn end(&mut self, hour: i64, observed: impl Iterator<Item = (DeviceKey, Observed)>) {
        let mut before = std::mem::take(&mut self.devices);
        for (key, observed) in observed {
            let mut day = before.remove(&key).unwrap_or_default();
            let ended = in_units(day.current(observed));
            // Several hours end at once only after a standstill, in which nothing was observed.
            for skipped in (self.current..hour).take(HOURS) {
                day.ended[slot(skipped)] = (0, 0);
            }
            day.ended[slot(self.current)] = ended;
            day.observed_ms = low_half(observed.observed_ms);
            day.connected_ms = low_half(observed.connected_ms);
            self.devices.insert(key, day);
        }
        self.current = hour;
    }

    /// A device's last hours, the current one last.
    pub(crate) fn of(&self, key: &DeviceKey, observed: Observed) -> [Hour; HOURS] {
        let day = self.devices.get(key).copied().unwrap_or_default();
        let mut hours = [Hour::default(); HOURS];
        for (at, hour) in (self.current - (HOURS as i64 - 1)..).zip(&mut hours) {
            *hour = if at == self.current { day.current(observed) } else { day.ended_hour(at) };
        }
        hours
    }
}

impl Day {
    fn current(&self, now: Observed) -> Hour {
        let seconds = |ms: u32| u16::try_from(ms.div_ceil(1000)).unwrap_or(HOUR_S).min(HOUR_S);
        let observed_ms = increase(now.observed_ms, self.observed_ms);
        let connected_ms = increase(now.connected_ms, self.connected_ms);
        let down_ms = observed_ms.saturating_sub(connected_ms);
        Hour { observed_s: seconds(observed_ms), down_s: seconds(down_ms) }
    }

    fn ended_hour(&self, hour: i64) -> Hour {
        let (observed, down) = self.ended[slot(hour)];
        Hour { observed_s: u16::from(observed) * UNIT_S, down_s: u16::from(down) * UNIT_S }
    }
}

fn slot(hour: i64) -> usize {
    usize::try_from(hour.rem_euclid(HOURS as i64)).unwrap_or(0)
}

fn low_half(millis: i64) -> u32 {
    u32::try_from(millis & i64::from(u32::MAX)).unwrap_or(0)
}

/// The increase of a counter; 0 where it has been corrected downwards.
fn increase(now: i64, before: u32) -> u32 {
    let increase = low_half(now).wrapping_sub(before);
    if increase > u32::MAX / 2 { 0 } else { increase }
}

fn in_units(hour: Hour) -> (u8, u8) {
    let units = |seconds: u16| u8::try_from(seconds.div_ceil(UNIT_S)).unwrap_or(u8::MAX);
    (units(hour.observed_s), units(hour.down_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (GatewayIndex, u32) = (GatewayIndex(0), 7);

    fn observed(observed_s: i64, down_s: i64) -> Observed {
        Observed { observed_ms: observed_s * 1000, connected_ms: (observed_s - down_s) * 1000 }
    }

    fn hour(observed_s: u16, down_s: u16) -> Hour {
        Hour { observed_s, down_s }
    }

    #[test]
    fn an_hour_hides_no_outage() {
        let day = Day::default();
        assert_eq!(day.current(observed(3600, 0)), hour(3600, 0));
        assert_eq!(day.current(observed(3600, 3600)), hour(3600, 3600));
        assert_eq!(day.current(observed(0, 0)), hour(0, 0));
        assert_eq!(in_units(hour(3600, 1)), (240, 1));
        assert_eq!(in_units(hour(3600, 3600)), (240, 240));
        let months = 10_000_000;
        let then = observed(months, 100);
        let later = Day {
            observed_ms: low_half(then.observed_ms),
            connected_ms: low_half(then.connected_ms),
            ..day
        };
        assert_eq!(later.current(observed(months + 1800, 100)), hour(1800, 0));
        assert_eq!(later.current(observed(months + 1800, 130)), hour(1800, 30));
        // The gateway turned out to have been silent for a while: less was observed.
        assert_eq!(later.current(observed(months - 60, 100)), hour(0, 0));
    }

    #[test]
    fn hours_move_on_and_removed_devices_are_forgotten() {
        let key = (KEY.0, DeviceId::new(KEY.1).unwrap());
        let mut hours = Hours::new(100);
        assert!(!hours.is_over(100) && hours.is_over(101));
        hours.end(101, [(key, observed(3600, 30))].into_iter());
        let shown = hours.of(&key, observed(3610, 30));
        assert_eq!(shown[HOURS - 2..], [hour(3600, 30), hour(10, 0)]);
        hours.end(103, [(key, observed(3610, 30))].into_iter());
        let shown = hours.of(&key, observed(3610, 30));
        let expected = [hour(3600, 30), hour(15, 0), hour(0, 0), hour(0, 0)];
        assert_eq!(shown[HOURS - 4..], expected);
        hours.end(104, std::iter::empty());
        assert!(hours.devices.is_empty());
    }
}
