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
            @for (index, row) in cells.iter().enumerate() { (cell(index, row)) }
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

fn cell(index: usize, row: &AvailabilityRow) -> Markup {
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
            title { (cell_words(row)) }
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

fn cell_words(row: &AvailabilityRow) -> String {
    format!("{}: {}", label(row), in_words(&row.figures, CELL_SHARE_MIN_MS))
}

/// The day, or the hour without its offset: `2026-11-29, 13:00`.
pub(crate) fn label(row: &AvailabilityRow) -> String {
    match row.label.split_once('T') {
        Some((date, hour)) => format!("{date}, {}", hour.get(..5).unwrap_or(hour)),
        None => row.label.clone(),
    }
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
