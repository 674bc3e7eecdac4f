//! What the status page needs of the loop: the hours of each device, the last events, what changed.
//!
//! May not wait, nor give more than a page of devices. It begins with the process: an hour that was
//! not observed is not observed here either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Bridge;
use crate::fleet::{DeviceEvent, GatewayEvent, GatewayIndex, Observed};
use crate::http::page::{
    Changes, Condition, DeviceRow, EVENTS_SHOWN, EventRow, GatewayRow, HOUR_S, HOURS, Hour,
    Overview, PAGE_ROWS, Page, Wanted,
};
use crate::ids::{DeviceId, Moment};

const HOUR_MS: i64 = 3_600_000;
/// What an hour that has ended is kept in: quarters of a minute, which fit a byte.
const UNIT_S: u16 = 15;
/// Changed devices that are told one by one; more than fit a page are a new page.
const CHANGED_MAX: usize = PAGE_ROWS;

/// What is kept for the page. 64 bytes a device.
#[derive(Debug)]
pub(super) struct PageKeep {
    /// The hour, since 1970, that runs.
    hour: i64,
    days: Vec<BTreeMap<DeviceId, Day>>,
    events: VecDeque<Happened>,
    news: bool,
    /// `None` once they are too many.
    changed: Option<BTreeSet<(GatewayIndex, DeviceId)>>,
}

/// The last hours of one device.
#[derive(Clone, Copy, Debug, Default)]
struct Day {
    /// What was read when the present hour began, in milliseconds, the low half: only what was
    /// added since is of interest.
    observed: u32,
    connected: u32,
    /// By the hour modulo 24; the present hour's is the one that is written over next.
    hours: [(u8, u8); HOURS],
}

#[derive(Debug)]
enum Happened {
    Device(DeviceEvent),
    Gateway(Moment, GatewayIndex, &'static str, String),
}

/// The place of an hour in a day.
fn slot(hour: i64) -> usize {
    usize::try_from(hour.rem_euclid(HOURS as i64)).unwrap_or(0)
}

fn low_half(millis: i64) -> u32 {
    u32::try_from(millis & i64::from(u32::MAX)).unwrap_or(0)
}

/// What was added since; nothing where what was read then has turned out to be too much.
fn added(now: i64, then: u32) -> u32 {
    let added = low_half(now).wrapping_sub(then);
    if added > u32::MAX / 2 { 0 } else { added }
}

impl Day {
    /// The present hour, by what is read now.
    fn present(&self, now: Observed) -> Hour {
        let seconds = |ms: u32| u16::try_from(ms.div_ceil(1000)).unwrap_or(HOUR_S).min(HOUR_S);
        let observed_ms = added(now.observed_ms, self.observed);
        let down_ms = observed_ms.saturating_sub(added(now.connected_ms, self.connected));
        Hour { observed_s: seconds(observed_ms), down_s: seconds(down_ms) }
    }

    /// An hour that has ended.
    fn ended(&self, hour: i64) -> Hour {
        let (observed, down) = self.hours[slot(hour)];
        Hour { observed_s: u16::from(observed) * UNIT_S, down_s: u16::from(down) * UNIT_S }
    }
}

/// An hour as it is kept.
fn kept(hour: Hour) -> (u8, u8) {
    let byte = |seconds: u16| u8::try_from(seconds.div_ceil(UNIT_S)).unwrap_or(u8::MAX);
    (byte(hour.observed_s), byte(hour.down_s))
}

impl PageKeep {
    pub(super) fn new(now: Moment, gateways: usize) -> Self {
        Self {
            hour: now.millis().div_euclid(HOUR_MS),
            days: vec![BTreeMap::new(); gateways],
            events: VecDeque::new(),
            news: false,
            changed: None,
        }
    }

    /// A device's state is another.
    pub(super) fn changed(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        if let Some(changed) = &mut self.changed {
            changed.insert((gateway, device_id));
            if changed.len() > CHANGED_MAX {
                self.changed = None;
            }
        }
    }

    pub(super) fn device_event(&mut self, event: &DeviceEvent) {
        self.happened(Happened::Device(event.clone()));
    }

    pub(super) fn gateway_event(&mut self, at: Moment, index: GatewayIndex, event: &GatewayEvent) {
        let detail = match event {
            GatewayEvent::Reachable | GatewayEvent::Unreachable => String::new(),
            GatewayEvent::Corrected { count } => format!("{count} differences found"),
            GatewayEvent::Restored { what, count, .. }
            | GatewayEvent::Withdrawn { what, count, .. } => format!("{count} of {what}"),
            GatewayEvent::Stranger { device_id, status } => format!("device {device_id}: {status}"),
        };
        self.happened(Happened::Gateway(at, index, event.name(), detail));
    }

    fn happened(&mut self, what: Happened) {
        self.events.push_front(what);
        self.events.truncate(EVENTS_SHOWN);
        self.news = true;
    }
}

impl Bridge {
    /// When an hour has ended, what was observed in it is set down.
    pub(super) fn keep_hours(&mut self) {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let hour = now.millis().div_euclid(HOUR_MS);
        if hour <= self.page.hour {
            return;
        }
        let ended = self.page.hour;
        for gateway in self.fleet.gateways() {
            let Some(days) = self.page.days.get_mut(gateway.0) else { continue };
            let mut anew = BTreeMap::new();
            for (device_id, observed) in self.fleet.all_observed(gateway, steady) {
                let mut day = days.remove(&device_id).unwrap_or_default();
                let present = kept(day.present(observed));
                // More than one only after a standstill; nothing was observed in it.
                for skipped in (ended..hour).take(HOURS) {
                    day.hours[slot(skipped)] = (0, 0);
                }
                day.hours[slot(ended)] = present;
                day.observed = low_half(observed.observed_ms);
                day.connected = low_half(observed.connected_ms);
                anew.insert(device_id, day);
            }
            *days = anew;
        }
        self.page.hour = hour;
    }

    /// The steady moment at which the hour that runs is over by the wall's clock.
    pub(super) fn hour_ends(&self) -> Moment {
        let shown = Moment::from_millis((self.page.hour + 1).saturating_mul(HOUR_MS));
        shown.plus(-self.clock.ahead_ms())
    }

    /// The devices that are wanted, who is down first, the latest to go before the others.
    pub(super) fn page(&mut self, wanted: &Wanted) -> Page {
        let mut found = Vec::new();
        for gateway in self.fleet.gateways() {
            let Some(entry) = self.directory.gateway(gateway) else { continue };
            for state in self.fleet.devices(gateway) {
                let condition = Condition::of(&state);
                let fits = wanted.only.is_none_or(|only| only == condition)
                    && (wanted.text.is_empty() || {
                        let kind = state.info.map(|info| info.device_type);
                        let name = entry.device_name(state.device_id, kind).to_lowercase();
                        let ip = state.info.and_then(|info| info.ip).map(|ip| ip.to_string());
                        let id = state.device_id.to_string();
                        let kind = kind.map_or_else(String::new, |kind| {
                            format!("{kind} {}", kind.product_name().to_lowercase())
                        });
                        let texts = [&name, &id, &kind, ip.as_ref().unwrap_or(&id)];
                        texts.iter().any(|text| text.contains(&wanted.text))
                            || entry.name.as_str().contains(&wanted.text)
                    });
                if fits {
                    let since = state.since.filter(|_| condition == Condition::Down);
                    let latest = since.map_or(0, |since| -since.millis());
                    found.push((condition, latest, gateway, state.device_id));
                }
            }
        }
        let matching = found.len();
        found.sort_unstable();
        let shown = found.iter().skip(wanted.page.saturating_mul(PAGE_ROWS)).take(PAGE_ROWS);
        let devices = shown.filter_map(|(_, _, gateway, id)| self.device_row(*gateway, *id));
        let devices = devices.collect();
        Page { overview: self.overview(), devices, matching, events: self.event_rows() }
    }

    /// What has changed since this was last called; at first, all.
    pub(super) fn changes(&mut self) -> Changes {
        let changed = self.page.changed.replace(BTreeSet::new());
        let devices = changed.map(|changed| {
            let rows = changed.iter().filter_map(|(gateway, id)| self.device_row(*gateway, *id));
            rows.collect()
        });
        let news = std::mem::take(&mut self.page.news);
        let events = news.then(|| self.event_rows());
        Changes { overview: self.overview(), devices, events }
    }

    fn device_row(&self, gateway: GatewayIndex, device_id: DeviceId) -> Option<DeviceRow> {
        let state = self.fleet.device(gateway, device_id)?;
        let entry = self.directory.gateway(gateway)?;
        let now = self.fleet.observed(gateway, device_id, self.clock.steady());
        let now = now.unwrap_or_default();
        let days = self.page.days.get(gateway.0)?;
        let day = days.get(&device_id).copied().unwrap_or_default();
        let mut hours = [Hour::default(); HOURS];
        let first = self.page.hour - (HOURS as i64 - 1);
        for (hour, shown) in (first..).zip(&mut hours) {
            let present = hour == self.page.hour;
            *shown = if present { day.present(now) } else { day.ended(hour) };
        }
        Some(DeviceRow {
            gateway: entry.name.to_string(),
            name: entry.device_name(device_id, state.info.map(|info| info.device_type)),
            state,
            day: hours,
        })
    }

    fn overview(&self) -> Overview {
        let gateways = self.fleet.gateways().filter_map(|gateway| {
            let (entry, state) = (self.directory.gateway(gateway)?, self.fleet.gateway(gateway)?);
            let error = self.facts.get(gateway.0).and_then(|facts| facts.last_error.as_ref());
            Some(GatewayRow {
                name: entry.name.to_string(),
                address: entry.address.clone(),
                state,
                last_error: error.filter(|_| !state.live).map(|error| error.message.clone()),
            })
        });
        Overview {
            bridge: self.info.bridge.clone(),
            version: self.info.version,
            started_at: self.info.started_at,
            now: self.clock.now(),
            reasons: self.problems(),
            pending: self.persistence.outbox().len(),
            gateways: gateways.collect(),
        }
    }

    fn event_rows(&self) -> Vec<EventRow> {
        let rows = self.page.events.iter().filter_map(|happened| {
            Some(match happened {
                Happened::Device(event) => {
                    let entry = self.directory.gateway(event.gateway)?;
                    let before = event.previous.map(|status| format!("{status} → "));
                    EventRow {
                        at: event.received_at,
                        gateway: entry.name.to_string(),
                        device: Some(entry.device_name(event.device_id, event.device_type)),
                        what: event.event_type.name(),
                        detail: format!("{}{}", before.unwrap_or_default(), event.status),
                        lasted_ms: event.duration_ms,
                    }
                }
                Happened::Gateway(at, gateway, what, detail) => EventRow {
                    at: *at,
                    gateway: self.directory.gateway(*gateway)?.name.to_string(),
                    device: None,
                    what,
                    detail: detail.clone(),
                    lasted_ms: None,
                },
            })
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(observed_s: i64, down_s: i64) -> Observed {
        Observed { observed_ms: observed_s * 1000, connected_ms: (observed_s - down_s) * 1000 }
    }

    #[test]
    fn an_hour_hides_no_time_that_a_device_was_down() {
        let day = Day::default();
        let hour = |observed_s, down_s| Hour { observed_s, down_s };
        assert_eq!(day.present(observed(3600, 0)), hour(3600, 0));
        assert_eq!(day.present(observed(3600, 3600)), hour(3600, 3600));
        assert_eq!(day.present(observed(0, 0)), hour(0, 0));
        assert_eq!(kept(hour(3600, 1)), (240, 1));
        assert_eq!(kept(hour(3600, 3600)), (240, 240));
        let months = 10_000_000;
        let then = observed(months, 100);
        let later = Day {
            observed: low_half(then.observed_ms),
            connected: low_half(then.connected_ms),
            ..day
        };
        assert_eq!(later.present(observed(months + 1800, 100)), hour(1800, 0));
        assert_eq!(later.present(observed(months + 1800, 130)), hour(1800, 30));
        // The gateway turned out to have been silent for a while: less was observed.
        assert_eq!(later.present(observed(months - 60, 100)), hour(0, 0));
    }

    #[test]
    fn too_many_changes_are_a_new_page() {
        let mut keep = PageKeep::new(Moment::from_millis(0), 1);
        keep.changed = Some(BTreeSet::new());
        for id in (1..).take(CHANGED_MAX) {
            keep.changed(GatewayIndex(0), DeviceId::new(id).unwrap());
        }
        assert_eq!(keep.changed.as_ref().map(BTreeSet::len), Some(CHANGED_MAX));
        keep.changed(GatewayIndex(0), DeviceId::new(9_999).unwrap());
        assert_eq!(keep.changed, None);
    }
}
