//! Points in time, and the clock that they come from.

use std::fmt;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment by the bridge's clock (or a gateway's, if documented so): Unix time in milliseconds.
///
/// In JSON it is text as from [`fmt::Display`], in the log a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(i64);

impl Moment {
    /// The moment this many milliseconds after 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// As a timestamp that can be formatted; beyond its years the nearest that it can be.
    pub fn timestamp(self) -> Timestamp {
        let nearest = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_millisecond(self.0).unwrap_or(nearest)
    }

    /// Its day in UTC: `2026-11-23`.
    pub fn utc_day(self) -> String {
        self.timestamp().strftime("%Y-%m-%d").to_string()
    }

    /// Its minute: `2026-11-23 10:00 UTC`.
    pub fn utc_minute(self) -> String {
        self.timestamp().strftime("%Y-%m-%d %H:%M UTC").to_string()
    }

    /// The moment this many milliseconds later.
    #[must_use]
    pub const fn plus(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to here; never negative.
    pub const fn since(self, earlier: Self) -> i64 {
        let span = self.0.saturating_sub(earlier.0);
        if span < 0 { 0 } else { span }
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-23T10:00:00.000Z`.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.timestamp())
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        if !source.is_human_readable() {
            return i64::deserialize(source).map(Self);
        }
        let at: Timestamp = String::deserialize(source)?.parse().map_err(D::Error::custom)?;
        Ok(Self(at.as_millisecond()))
    }
}

/// Converts between instants and moments by a clock that is never set, even if the wall clock is.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    start: Instant,
    started_at: Moment,
}

impl SteadyClock {
    /// The clock that shows `started_at` at `start`.
    pub const fn new(start: Instant, started_at: Moment) -> Self {
        Self { start, started_at }
    }

    pub fn at(&self, instant: Instant) -> Moment {
        match instant.checked_duration_since(self.start) {
            Some(after) => self.started_at.plus(whole_millis(after)),
            None => self.started_at.plus(-whole_millis(self.start - instant)),
        }
    }

    /// The instant of a moment, not before the start.
    pub fn instant(&self, moment: Moment) -> Instant {
        let after = u64::try_from(moment.since(self.started_at)).unwrap_or(0);
        self.start + Duration::from_millis(after)
    }
}

fn whole_millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_always() {
        let at = |millis| Moment::from_millis(millis).to_string();
        assert_eq!(at(1_795_428_000_000), "2026-11-23T10:00:00.000Z");
        assert_eq!(at(1_795_428_000_120), "2026-11-23T10:00:00.120Z");
        assert!(at(i64::MAX).starts_with("9999-12-3"), "{}", at(i64::MAX));
    }

    #[test]
    fn a_time_is_text_in_json_and_a_number_in_the_log() {
        let at = Moment::from_millis(1_795_428_000_120);
        let json = r#""2026-11-23T10:00:00.120Z""#;
        assert_eq!(serde_json::to_string(&at).unwrap(), json);
        assert_eq!(serde_json::from_str::<Moment>(json).unwrap(), at);
        let bytes = postcard::to_allocvec(&at).unwrap();
        assert_eq!(bytes, postcard::to_allocvec(&1_795_428_000_120_i64).unwrap());
        assert_eq!(postcard::from_bytes::<Moment>(&bytes).unwrap(), at);
    }
}
