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
    pub(crate) fn new(gateway: &GatewayEntry, device: DeviceState) -> Self {
        let device_type = device.info.map(|info| info.device_type);
        let name = gateway.device_name(device.device_id, device_type).into_owned();
        Self { gateway: gateway.name.clone(), name, device }
    }
}

/// Where a device stands in the list: by gateway, the down ones first, those that went down last
/// before the others.
type SortKey = (GatewayIndex, Condition, i64, DeviceId);

/// The devices of one page. Keeps no more devices than stand up to the end of that page.
pub(crate) struct Search<'a> {
    filter: &'a Filter,
    found: BTreeMap<SortKey, DeviceRow>,
    matching: usize,
}

impl<'a> Search<'a> {
    pub(crate) const fn new(filter: &'a Filter) -> Self {
        Self { filter, found: BTreeMap::new(), matching: 0 }
    }

    pub(crate) fn add(&mut self, chunk: DeviceChunk<'_>) {
        let DeviceChunk { index, gateway, devices } = chunk;
        let rows_max = self.filter.page.saturating_add(1).saturating_mul(self.filter.rows_max());
        let states = devices.into_iter().map(|device| device.state);
        for device in states.filter(|state| self.filter.matches(gateway, state)) {
            self.matching += 1;
            let condition = Condition::of(&device);
            let since = device.since.filter(|_| condition == Condition::Down);
            let newest_first = since.map_or(0, |since| -since.millis());
            let place = (index, condition, newest_first, device.device_id);
            let last = self.found.last_key_value().filter(|_| self.found.len() >= rows_max);
            if last.is_some_and(|(last, _)| place > *last) {
                continue;
            }
            self.found.insert(place, DeviceRow::new(gateway, device));
            if self.found.len() > rows_max {
                self.found.pop_last();
            }
        }
    }

    pub(crate) fn finish(self) -> DeviceList {
        let skipped = self.filter.page.saturating_mul(self.filter.rows_max());
        let rows = self.found.into_values().skip(skipped).collect();
        DeviceList { rows, matching: self.matching }
    }
}
