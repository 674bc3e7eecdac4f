//! The devices that the status page shows: filtered and sorted here, not in the event loop.

use std::collections::BTreeMap;

use serde::de::value::CowStrDeserializer;
use serde::de::{Deserialize, Deserializer};

use super::bars::{CELLS_MAX, PageRange};
use crate::fleet::{DeviceMeasures, DeviceState, GatewayIndex};
use crate::http::api::searchable;
use crate::http::query::DeviceChunk;
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::net;
use crate::payload::GatewayEntry;

/// The most devices on one page.
const ROWS_MAX: usize = 200;
/// The most devices of each list of those that are not connected.
const DOWN_MAX: usize = 100;
/// The page folds devices that have been down for longer: 7 days.
const LONG_MS: i64 = 7 * 24 * 3_600_000;

/// The parameters in the page's address.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub(in crate::http) struct Filter {
    /// A text that name, ID, type, address, gateway, model, firmware or MAC address contains.
    #[serde(rename = "q", deserialize_with = "trimmed")]
    pub(crate) text: String,
    /// `None` for all devices.
    #[serde(rename = "show", deserialize_with = "none_if_empty")]
    pub(crate) condition: Option<Condition>,
    /// The period of the bars.
    pub(crate) range: PageRange,
    /// Pages to skip.
    pub(crate) page: usize,
}

/// The condition of a device. Devices are listed in this order.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(crate) enum Condition {
    /// Expected and not connected.
    Down,
    /// Expected, and its state is unknown.
    Unknown,
    /// Connected.
    Up,
    /// Neither expected nor connected.
    Absent,
}

/// A device as the page shows it.
#[derive(Clone, Debug)]
pub(crate) struct DeviceRow {
    pub(crate) gateway: GatewayName,
    pub(crate) name: String,
    pub(crate) device: DeviceState,
}

/// The first devices of a sorted list, and how many it has.
#[derive(Debug)]
pub(crate) struct FirstDevices<K> {
    pub(crate) rows: BTreeMap<K, DeviceRow>,
    pub(crate) count: usize,
    rows_max: usize,
}

fn trimmed<'de, D: Deserializer<'de>>(text: D) -> Result<String, D::Error> {
    Ok(String::deserialize(text)?.trim().to_lowercase())
}

/// A form sends an empty value where nothing was chosen.
fn none_if_empty<'de, D: Deserializer<'de>>(text: D) -> Result<Option<Condition>, D::Error> {
    let text = String::deserialize(text)?;
    if text.is_empty() {
        return Ok(None);
    }
    Condition::deserialize(CowStrDeserializer::new(text.into())).map(Some)
}

impl Condition {
    pub(crate) const fn of(device: &DeviceState) -> Self {
        match device.connected {
            Some(true) => Self::Up,
            _ if !device.expected => Self::Absent,
            Some(false) => Self::Down,
            None => Self::Unknown,
        }
    }

    /// Its name for people.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Down => "not connected",
            Self::Unknown => "unknown",
            Self::Up => "connected",
            Self::Absent => "not expected",
        }
    }
}

impl Filter {
    /// Devices on one page: fewer where their bars have more cells.
    pub(crate) fn rows_max(&self) -> usize {
        ROWS_MAX.min(CELLS_MAX / self.range.cells())
    }

    fn matches(&self, gateway: &GatewayEntry, device: &DeviceState) -> bool {
        self.condition.is_none_or(|wanted| wanted == Condition::of(device))
            && (self.text.is_empty() || searchable(gateway, device).contains(&self.text))
    }
}

impl DeviceRow {
    fn new(gateway: &GatewayEntry, device: DeviceState) -> Self {
        let device_type = device.info.map(|info| info.device_type);
        let name = gateway.device_name(device.device_id, device_type).into_owned();
        Self { gateway: gateway.name.clone(), name, device }
    }
}

impl<K: Ord> FirstDevices<K> {
    pub(crate) const fn new(rows_max: usize) -> Self {
        Self { rows: BTreeMap::new(), count: 0, rows_max }
    }

    pub(crate) fn add(&mut self, place: K, gateway: &GatewayEntry, device: &DeviceState) {
        self.count += 1;
        let last = self.rows.last_key_value().filter(|_| self.rows.len() >= self.rows_max);
        if last.is_some_and(|(last, _)| place > *last) {
            return;
        }
        self.rows.insert(place, DeviceRow::new(gateway, device.clone()));
        if self.rows.len() > self.rows_max {
            self.rows.pop_last();
        }
    }
}

/// What the status page shows of the devices: one page of those that match its filter, and those
/// that are not connected. Keeps no more devices than stand up to the end of that page.
#[derive(Debug)]
pub(crate) struct ShownDevices<'a> {
    pub(crate) filter: &'a Filter,
    now: Moment,
    /// By gateway, the down ones first, those that went down last before the others.
    matching: FirstDevices<(GatewayIndex, Condition, i64, DeviceId)>,
    /// Down for at most seven days, or since an unknown time.
    pub(crate) down: NewestFirst,
    pub(crate) long_down: NewestFirst,
}

pub(crate) type NewestFirst = FirstDevices<(i64, GatewayIndex, DeviceId)>;

impl<'a> ShownDevices<'a> {
    pub(crate) fn new(filter: &'a Filter) -> Self {
        let rows_max = filter.page.saturating_add(1).saturating_mul(filter.rows_max());
        Self {
            filter,
            now: net::wall_time(),
            matching: FirstDevices::new(rows_max),
            down: FirstDevices::new(DOWN_MAX),
            long_down: FirstDevices::new(DOWN_MAX),
        }
    }

    pub(crate) fn add(&mut self, DeviceChunk { index, gateway, devices }: &DeviceChunk<'_>) {
        for DeviceMeasures { state: device, .. } in devices {
            let (id, condition) = (device.device_id, Condition::of(device));
            let is_down = condition == Condition::Down;
            let newest_first = device.since.map_or(i64::MAX, |since| -since.millis());
            if self.filter.matches(gateway, device) {
                let place = (*index, condition, if is_down { newest_first } else { 0 }, id);
                self.matching.add(place, gateway, device);
            }
            if is_down {
                let is_long = device.since.is_some_and(|since| self.now.since(since) > LONG_MS);
                let list = if is_long { &mut self.long_down } else { &mut self.down };
                list.add((newest_first, *index, id), gateway, device);
            }
        }
    }

    /// The devices of the page.
    pub(crate) fn rows(&self) -> Vec<&DeviceRow> {
        self.matching.rows.values().skip(self.skipped()).collect()
    }

    /// The devices on all pages before.
    pub(crate) fn skipped(&self) -> usize {
        self.filter.page.saturating_mul(self.filter.rows_max())
    }

    /// The devices on all pages.
    pub(crate) const fn matching(&self) -> usize {
        self.matching.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Counts, Observed};

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
        let filter = Filter::default();
        let mut shown = ShownDevices::new(&filter);
        let gateway = crate::payload::GatewayEntry {
            name: "lobby".parse().unwrap(),
            address: String::new(),
            master: None,
            area: None,
            devices: std::sync::Arc::default(),
        };
        let ago = |days: i64| Some(shown.now.plus(-days * DAY_MS));
        let mut devices = vec![down_since(1, None), down_since(2, ago(3)), down_since(3, ago(1))];
        devices.extend((10..).map(|id| down_since(id, ago(8))).take(DOWN_MAX + 5));
        shown.add(&DeviceChunk { index: GatewayIndex(0), gateway: &gateway, devices });
        let ids = shown.down.rows.values().map(|row| row.device.device_id.get());
        assert_eq!(ids.collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!((shown.long_down.count, shown.long_down.rows.len()), (DOWN_MAX + 5, DOWN_MAX));
    }
}
