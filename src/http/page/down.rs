//! The devices that are not connected, those that went down last first.

use super::devices::{Condition, FirstDevices};
use crate::fleet::{DeviceMeasures, GatewayIndex};
use crate::http::query::DeviceChunk;
use crate::ids::{DeviceId, Moment};
use crate::net;

/// The most devices of each list.
const ROWS_MAX: usize = 100;
/// The page folds devices that have been down for longer: 7 days.
const LONG_MS: i64 = 7 * 24 * 3_600_000;

/// The devices that are not connected.
#[derive(Debug)]
pub(crate) struct DownDevices {
    now: Moment,
    /// For at most seven days, or since an unknown time.
    pub(crate) recent: NewestFirst,
    pub(crate) long: NewestFirst,
}

pub(crate) type NewestFirst = FirstDevices<(i64, GatewayIndex, DeviceId)>;

impl DownDevices {
    pub(crate) fn new() -> Self {
        let (recent, long) = (NewestFirst::new(ROWS_MAX), NewestFirst::new(ROWS_MAX));
        Self { now: net::wall_time(), recent, long }
    }

    pub(crate) fn add(&mut self, chunk: &DeviceChunk<'_>) {
        for DeviceMeasures { state: device, .. } in &chunk.devices {
            if Condition::of(device) != Condition::Down {
                continue;
            }
            let is_long = device.since.is_some_and(|since| self.now.since(since) > LONG_MS);
            let list = if is_long { &mut self.long } else { &mut self.recent };
            let newest_first = device.since.map_or(i64::MAX, |since| -since.millis());
            let place = (newest_first, chunk.index, device.device_id);
            list.add(place, chunk.gateway, device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Counts, DeviceState, Observed};

    const DAY_MS: i64 = 24 * 3_600_000;

    fn down_since(id: u32, since: Option<Moment>) -> DeviceMeasures {
        let state = DeviceState {
            device_id: DeviceId::new(id).unwrap(),
            connected: Some(false),
            status: None,
            since,
            since_exact: true,
            last_known: None,
            seq: 0,
            info: None,
            details: None,
            managed: true,
            expected: true,
            kept: false,
            updated_at: Moment::from_millis(0),
        };
        let (counts, observed) = (Counts::default(), Observed::default());
        DeviceMeasures { state, known: None, counts, observed }
    }

    #[test]
    fn the_newest_come_first_and_long_ones_are_apart() {
        let mut down = DownDevices::new();
        let gateway = crate::payload::GatewayEntry {
            name: "lobby".parse().unwrap(),
            address: String::new(),
            master: None,
            area: None,
            devices: std::sync::Arc::default(),
        };
        let ago = |days: i64| Some(down.now.plus(-days * DAY_MS));
        let mut devices = vec![down_since(1, None), down_since(2, ago(3)), down_since(3, ago(1))];
        devices.extend((10..).map(|id| down_since(id, ago(8))).take(ROWS_MAX + 5));
        down.add(&DeviceChunk { index: GatewayIndex(0), gateway: &gateway, devices });
        let ids = down.recent.rows.values().map(|row| row.device.device_id.get());
        assert_eq!(ids.collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!((down.long.count, down.long.rows.len()), (ROWS_MAX + 5, ROWS_MAX));
    }
}
