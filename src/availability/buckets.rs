//! Buckets of time: whole days and months begin at local midnight.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::words;
use crate::ids::Moment;

/// How long a bucket is: the whole period, or a month, a day of 23 to 25 hours, or an hour.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum BucketSize {
    #[default]
    Total,
    Month,
    Day,
    // Not in reports.
    #[value(skip)]
    Hour,
}

/// A part of a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its beginning.
    pub start: Moment,
    /// Its end.
    pub end: Moment,
    /// Its name in the zone.
    pub label: String,
}

/// Divides a period; the first and the last bucket may be cut short by it. At most `limit` buckets.
pub fn buckets(
    (from, to): (Moment, Moment),
    zone: &TimeZone,
    size: BucketSize,
    limit: usize,
) -> Vec<Bucket> {
    let mut buckets = Vec::new();
    let mut start = from;
    while start < to && buckets.len() < limit {
        let end = match size {
            BucketSize::Total => None,
            BucketSize::Month => next_date(start, zone, |date| date.last_of_month().tomorrow()),
            BucketSize::Day => next_date(start, zone, Date::tomorrow),
            BucketSize::Hour => Some(next_hour(start, zone)),
        };
        // The calendar ends with the year 9999, and so does the last bucket.
        let end = end.filter(|end| *end > start).unwrap_or(to).min(to);
        let local = start.timestamp().to_zoned_datetime(zone.clone());
        let label = match size {
            BucketSize::Total => words::period((start, end), zone),
            BucketSize::Month => local.strftime("%Y-%m").to_string(),
            BucketSize::Day => local.strftime("%Y-%m-%d").to_string(),
            BucketSize::Hour => local.strftime("%Y-%m-%dT%H:%M%:z").to_string(),
        };
        buckets.push(Bucket { start, end, label });
        start = end;
    }
    buckets
}

/// The first instant of the date that follows. It may not be midnight: where the clock is put
/// forward then, the date begins later.
fn next_date(
    at: Moment,
    zone: &TimeZone,
    next: impl Fn(Date) -> Result<Date, jiff::Error>,
) -> Option<Moment> {
    let mut date = at.timestamp().to_zoned_datetime(zone.clone()).date();
    // A zone that crosses the date line skips a day.
    for _ in 0..2 {
        date = next(date).ok()?;
        let start = date.to_zoned_datetime(zone.clone()).ok()?.timestamp();
        let start = Moment::from_millis(start.as_millisecond());
        if start > at {
            return Some(start);
        }
    }
    None
}

/// The next instant at which a local hour is full.
fn next_hour(at: Moment, zone: &TimeZone) -> Moment {
    let local = at.timestamp().to_zoned_datetime(zone.clone()).datetime();
    let past = i64::from(local.minute()) * 60_000
        + i64::from(local.second()) * 1_000
        + i64::from(local.subsec_nanosecond()) / 1_000_000;
    at.plus(3_600_000 - past)
}
