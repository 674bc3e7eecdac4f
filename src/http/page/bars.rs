//! Availability on the pages: a bar has a cell for each hour or day, from what the history has
//! recorded.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{RoundMode, ToSpan, Unit, ZonedDateTime, ZonedDateTimeRound};
use maud::{Markup, html};
use serde::Deserialize;

use super::history::QUERY_DEADLINE;
use crate::availability::{
    AvailabilityRequest, AvailabilityRow, BucketSize, Figures, duration, percent,
};
use crate::ids::Moment;
use crate::net;

/// Cells on one page.
pub(crate) const CELLS_MAX: usize = 6_000;
/// A share of less time would mislead.
pub(crate) const CELL_SHARE_MIN_MS: i64 = 5 * 60_000;
pub(crate) const BAR_SHARE_MIN_MS: i64 = 3_600_000;

/// A cell with an outage is higher than the others by `TOP`, so that its colour is not needed.
const TOP: i64 = 4;
const HEIGHT: i64 = 20;
const CELL_WIDTH: usize = 10;
/// Of an hour's label, without its offset: `2026-11-29T13:00`.
const LOCAL_HOUR_LEN: usize = 16;

/// The period of the bars, from the page's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(in crate::http) enum PageRange {
    #[default]
    #[serde(rename = "24h")]
    Hours24,
    #[serde(rename = "7d")]
    Days7,
    #[serde(rename = "30d")]
    Days30,
    #[serde(rename = "90d")]
    Days90,
}

impl PageRange {
    pub(crate) const ALL: [Self; 4] = [Self::Hours24, Self::Days7, Self::Days30, Self::Days90];

    /// Its value in addresses, and its name.
    pub(crate) const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Hours24 => ("24h", "24 hours"),
            Self::Days7 => ("7d", "7 days"),
            Self::Days30 => ("30d", "30 days"),
            Self::Days90 => ("90d", "90 days"),
        }
    }

    pub(crate) const fn cells(self) -> usize {
        match self {
            Self::Hours24 => 24,
            Self::Days7 => 7,
            Self::Days30 => 30,
            Self::Days90 => 90,
        }
    }

    pub(crate) const fn bucket(self) -> BucketSize {
        if matches!(self, Self::Hours24) { BucketSize::Hour } else { BucketSize::Day }
    }

    /// Up to now: whole hours or days, and the current one.
    fn begins(self, now: &ZonedDateTime) -> Option<Moment> {
        let before = i64::try_from(self.cells()).ok()? - 1;
        let (unit, before) = match self.bucket() {
            BucketSize::Hour => (Unit::Hour, before.hours()),
            _ => (Unit::Day, before.days()),
        };
        let current = now.round(ZonedDateTimeRound::new().smallest(unit).mode(RoundMode::Trunc));
        let start = current.ok()?.checked_sub(before).ok()?;
        // A day before may begin at another time than midnight.
        let start = if unit == Unit::Day { start.start_of_day().ok()? } else { start };
        Some(Moment::from_millis(start.timestamp().as_millisecond()))
    }
}

/// Asks for the cells of a range, of all devices.
pub(crate) fn query(zone: &TimeZone, range: PageRange) -> AvailabilityRequest {
    let now = net::wall_time();
    let from = range.begins(&now.timestamp().to_zoned_datetime(zone.clone())).unwrap_or(now);
    AvailabilityRequest {
        of_gateways: false,
        gateways: BTreeSet::new(),
        device_ids: BTreeSet::new(),
        after: None,
        period: (from, now),
        zone: zone.clone(),
        bucket: range.bucket(),
        limit: 2 * CELLS_MAX,
        deadline: QUERY_DEADLINE,
        now,
    }
}

/// The bar of one device or gateway.
pub(crate) fn bar(cells: &[AvailabilityRow]) -> Markup {
    let total = Figures::sum(cells.iter().map(|row| &row.figures));
    let label = in_words(&total, BAR_SHARE_MIN_MS);
    let share = total.availability.filter(|_| total.observed_ms() >= BAR_SHARE_MIN_MS);
    let width = CELL_WIDTH * cells.len();
    html! {
        svg viewBox={ "0 0 " (width) " " (TOP + HEIGHT) } preserveAspectRatio="none" role="img"
            aria-label=(label)
        {
            @for (index, (row, label)) in cells.iter().zip(labels(cells)).enumerate() {
                (cell(index, row, &label))
            }
        }
        span .share title=(label) {
            @if let Some(share) = share {
                (percent(share))
                @if let Some(observed) = total.observed.filter(|observed| *observed < 1.0) {
                    span .sub { "of " (percent(observed)) }
                }
            } @else { span aria-hidden="true" { "–" } }
        }
    }
}

fn cell(index: usize, row: &AvailabilityRow, label: &str) -> Markup {
    let Figures { period_ms, connected_ms, disconnected_ms, unobserved_ms, .. } = row.figures;
    // Even the shortest time of a state is visible.
    let height = |ms: i64| match ms {
        0 => 0,
        ms => (ms * HEIGHT + period_ms - 1).div_euclid(period_ms.max(1)).max(2),
    };
    let (down, unknown) = (height(disconnected_ms), height(unobserved_ms));
    let up =
        if connected_ms == 0 { 0 } else { (HEIGHT - down - unknown).min(height(connected_ms)) };
    let down_top = if down > 0 { 0 } else { TOP };
    let parts = [
        ("down", down_top, if down > 0 { down + TOP } else { 0 }),
        ("gap", TOP + down, unknown.min(HEIGHT - down)),
        ("up", TOP + HEIGHT - up, up),
    ];
    html! {
        g {
            title { (label) ": " (in_words(&row.figures, CELL_SHARE_MIN_MS)) }
            @for (class, y, height) in parts {
                @if height > 0 {
                    rect .(class) x=(index * CELL_WIDTH) width=(CELL_WIDTH - 1) y=(y)
                        height=(height) fill=[(class == "gap").then_some("url(#gap)")] {}
                }
            }
        }
    }
}

/// The pattern of time that was not observed; style sheets cannot have it.
pub(crate) fn pattern() -> Markup {
    html! {
        svg .pattern aria-hidden="true" {
            pattern #gap width="4" height="4" patternUnits="userSpaceOnUse" {
                rect .ground width="4" height="4" {}
                path d="M0 4 4 0" {}
            }
        }
    }
}

/// The name of each row: the day, or the hour, `2026-11-29, 13:00`. When the clock goes back, two
/// hours have the same name, and get their offsets.
pub(crate) fn labels(rows: &[AvailabilityRow]) -> Vec<String> {
    let hour = |row: &AvailabilityRow| row.label.get(..LOCAL_HOUR_LEN).map(str::to_owned);
    let hours: Vec<_> = rows.iter().map(hour).collect();
    let label = |(row, hour): (&AvailabilityRow, &Option<String>)| match hour {
        None => row.label.clone(),
        Some(once) if hours.iter().filter(|other| *other == hour).count() == 1 => once.clone(),
        Some(_) => row.label.clone(),
    };
    rows.iter().zip(&hours).map(label).map(|label| label.replacen('T', ", ", 1)).collect()
}

/// Figures as words. The share of an observed time shorter than `share_min_ms` is left out.
pub(crate) fn in_words(figures: &Figures, share_min_ms: i64) -> String {
    let connected = match figures.availability {
        Some(share) if figures.observed_ms() >= share_min_ms => percent(share),
        _ => duration(figures.connected_ms),
    };
    let connected = (figures.observed_ms() > 0).then(|| format!("connected {connected}"));
    let times = [
        ("not connected", figures.disconnected_ms),
        ("not observed", figures.unobserved_ms),
        ("not expected", figures.absent_ms),
    ];
    let times = times.into_iter().filter(|(_, ms)| *ms > 0);
    let times = times.map(|(what, ms)| match ms == figures.period_ms {
        true => what.to_owned(),
        false => format!("{what} {}", duration(ms)),
    });
    connected.into_iter().chain(times).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::availability::buckets;

    fn row(label: String) -> AvailabilityRow {
        AvailabilityRow {
            gateway: "lobby".to_owned(),
            device_id: None,
            name: String::new(),
            start: Moment::default(),
            end: Moment::default(),
            label,
            figures: Figures { period_ms: 1, unobserved_ms: 1, ..Figures::default() },
            first_seen_at: Moment::default(),
            removed_at: None,
        }
    }

    #[test]
    fn each_hour_has_a_name_of_its_own_when_the_clock_goes_back() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let from = Moment::from_millis(1_792_879_200_000); // 2026-10-25T00:00+02:00
        let hours = buckets((from, from.plus(5 * 3_600_000)), &zone, BucketSize::Hour, 9);
        let cells: Vec<_> = hours.into_iter().map(|hour| row(hour.label)).collect();
        let bar = bar(&cells).into_string();
        let titles = bar.split("<title>").skip(1);
        let titles: Vec<_> = titles.map(|title| title.split(": ").next().unwrap()).collect();
        let twice = ["2026-10-25, 02:00+02:00", "2026-10-25, 02:00+01:00"];
        let expected = ["2026-10-25, 00:00", "2026-10-25, 01:00", twice[0], twice[1]];
        assert_eq!(titles[..4], expected);
        assert_eq!(titles[4], "2026-10-25, 03:00");
    }
}
