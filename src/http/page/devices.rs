//! The devices that the status page lists: filtered and sorted here, not in the event loop.

use std::collections::BTreeMap;

use serde::de::value::CowStrDeserializer;
use serde::de::{Deserialize, Deserializer};

use super::bars::{CELLS_MAX, PageRange};
use crate::fleet::{DeviceState, GatewayIndex};
use crate::http::api::searchable;
use crate::http::query::DeviceChunk;
use crate::ids::{DeviceId, GatewayName};
use crate::payload::GatewayEntry;

/// The most devices on one page.
const ROWS_MAX: usize = 200;

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

/// One page of the devices that match a filter.
#[derive(Debug)]
pub(crate) struct DeviceList {
    pub(crate) rows: Vec<DeviceRow>,
    /// The devices on all pages.
    pub(crate) matching: usize,
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

/// Where a device stands in the list: by gateway, the down ones first, those that went down last
/// before the others.
type SortKey = (GatewayIndex, Condition, i64, DeviceId);

/// The devices of one page. Keeps no more devices than stand up to the end of that page.
pub(crate) struct Search<'a> {
    filter: &'a Filter,
    found: FirstDevices<SortKey>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(filter: &'a Filter) -> Self {
        let rows_max = filter.page.saturating_add(1).saturating_mul(filter.rows_max());
        Self { filter, found: FirstDevices::new(rows_max) }
    }

    pub(crate) fn add(&mut self, DeviceChunk { index, gateway, devices }: &DeviceChunk<'_>) {
        let states = devices.iter().map(|device| &device.state);
        for device in states.filter(|state| self.filter.matches(gateway, state)) {
            let condition = Condition::of(device);
            let since = device.since.filter(|_| condition == Condition::Down);
            let newest_first = since.map_or(0, |since| -since.millis());
            self.found.add((*index, condition, newest_first, device.device_id), gateway, device);
        }
    }

    pub(crate) fn finish(self) -> DeviceList {
        let skipped = self.filter.page.saturating_mul(self.filter.rows_max());
        let rows = self.found.rows.into_values().skip(skipped).collect();
        DeviceList { rows, matching: self.found.count }
    }
}
