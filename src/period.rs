//! Parses periods: `from` and `to` as an instant, an age, a date or a month.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::ids::{Moment, nearest};

/// How long a period without `from` lasts.
const LENGTH_DEFAULT_MS: i64 = 24 * 3_600_000;
/// The first number that was hardly meant as anything but milliseconds: in 1973, or in seconds in
/// 5138.
const MILLIS_LEAST: i64 = 100_000_000_000;
/// The most of a wrong text that is quoted, in characters.
const QUOTE_MAX: usize = 40;

/// A half-open range of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The first instant in it.
    pub from: Moment,
    /// The first instant after it; `None`: it has no end.
    pub to: Option<Moment>,
}

/// Why a text is no period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// The text has none of the forms.
    #[error(
        "{key} is {text:?}; it must be a time with its offset (2026-11-30T08:00:00Z), Unix \
         milliseconds (seconds times 1,000), an age (24h, 30d), a date (2026-11-30) or a month \
         (2026-11; write a year as its months)"
    )]
    Form {
        /// `from` or `to`.
        key: &'static str,
        /// What was given, cut short.
        text: String,
    },
    /// It would contain no instant.
    #[error("from is {from}, to is {to}: the period ends before it begins; exchange them")]
    EndsBeforeItBegins {
        /// Its beginning.
        from: Moment,
        /// Its end.
        to: Moment,
    },
}

/// Why a text is no time zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a time zone, as \"Europe/Berlin\" is{near}")]
pub struct ZoneError {
    /// What was given, cut short.
    name: String,
    /// The name that was perhaps meant, as the end of the sentence.
    near: String,
}

/// A zone of the IANA database, whose data is built in.
///
/// # Errors
/// Names a near one.
pub fn time_zone(name: &str) -> Result<TimeZone, ZoneError> {
    TimeZone::get(name).map_err(|_| {
        let name: String = name.chars().take(QUOTE_MAX).collect();
        let names = jiff::tz::db().available().map(|known| known.to_string());
        let near = nearest(&name, names);
        let near = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        ZoneError { name, near }
    })
}

/// Which end of the period a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
enum Edge {
    From,
    To,
}

impl Period {
    /// Reads both ends. Without `to` it has no end; without `from` it begins 24 h before its end
    /// or before `now`. Neither end is before 1970. Dates and months are those of `zone`.
    ///
    /// # Errors
    /// Names the end that is wrong and the forms that are right.
    pub fn parse(
        from: Option<&str>,
        to: Option<&str>,
        zone: &TimeZone,
        now: Moment,
    ) -> Result<Self, PeriodError> {
        let read = |edge: Edge, text: &str| {
            let text = text.trim();
            let at = edge.parse(text, zone, now).ok_or_else(|| PeriodError::Form {
                key: edge.into(),
                text: text.chars().take(QUOTE_MAX).collect(),
            })?;
            Ok(at.max(Moment::default()))
        };
        let to = to.map(|text| read(Edge::To, text)).transpose()?;
        let from = match from {
            Some(text) => read(Edge::From, text)?,
            None => to.unwrap_or(now).plus(-LENGTH_DEFAULT_MS).max(Moment::default()),
        };
        match to {
            Some(to) if to < from => Err(PeriodError::EndsBeforeItBegins { from, to }),
            to => Ok(Self { from, to }),
        }
    }
}

impl Edge {
    fn parse(self, text: &str, zone: &TimeZone, now: Moment) -> Option<Moment> {
        if let Some(millis) = unsigned(text) {
            let is_meant = millis == 0 || millis >= MILLIS_LEAST;
            return is_meant.then(|| Moment::from_millis(millis));
        }
        if let Some(date) = self.date(text) {
            let zoned = date.to_zoned_datetime(zone.clone()).ok()?;
            return Some(Moment::from_millis(zoned.timestamp().as_millisecond()));
        }
        age(text).map(|millis| now.plus(-millis)).or_else(|| instant(text))
    }

    /// The date at whose midnight this edge is, for `2026-11-30` and `2026-11`.
    fn date(self, text: &str) -> Option<Date> {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Vec<&str> = text.split('-').filter(|part| digits(part)).collect();
        let (first, next) = match (text.len(), parts.as_slice()) {
            (10, [_, _, _]) => {
                let day: Date = text.parse().ok()?;
                (day, day.tomorrow())
            }
            (7, [_, _]) => {
                let month: Date = format!("{text}-01").parse().ok()?;
                (month, month.last_of_month().tomorrow())
            }
            _ => return None,
        };
        if self == Self::From { Some(first) } else { next.ok() }
    }
}

/// A whole number without a sign.
fn unsigned(text: &str) -> Option<i64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A span as in `24h`, `1h 30m`, `30d` or `1y` (365 days).
pub(crate) fn span(text: &str) -> Result<Span, jiff::Error> {
    let years = text.trim().strip_suffix('y').and_then(|years| years.trim().parse::<u32>().ok());
    years.map_or_else(|| text.parse(), |years| Span::new().try_days(i64::from(years) * 365))
}

/// An age in milliseconds; a day has 24 hours.
pub(crate) fn age(text: &str) -> Option<i64> {
    let span = span(text).ok()?;
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    i64::try_from(length.as_millis()).ok().filter(|millis| *millis >= 0)
}

fn instant(text: &str) -> Option<Moment> {
    let plus = match text.rsplit_once(' ') {
        // In a URL a `+` means a space.
        Some((time, offset)) if time.contains(':') => format!("{time}+{offset}"),
        _ => text.to_owned(),
    };
    let timestamp: Timestamp = plus.parse().ok()?;
    Some(Moment::from_millis(timestamp.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn at(text: &str) -> Moment {
        Moment::from_millis(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    fn parse(from: Option<&str>, to: Option<&str>, zone: &TimeZone) -> Result<Period, PeriodError> {
        Period::parse(from, to, zone, at("2026-11-30T12:00:00Z"))
    }

    #[test]
    fn every_form_stands_for_an_instant() {
        let berlin = zone("Europe/Berlin");
        for (text, from, to) in [
            ("2026-11-30T08:00:00Z", "2026-11-30T08:00:00Z", "2026-11-30T08:00:00Z"),
            ("2026-11-30T08:00:00+01:00", "2026-11-30T07:00:00Z", "2026-11-30T07:00:00Z"),
            ("2026-11-30T08:00:00 01:00", "2026-11-30T07:00:00Z", "2026-11-30T07:00:00Z"),
            ("2026-11-30 08:00:00Z", "2026-11-30T08:00:00Z", "2026-11-30T08:00:00Z"),
            ("2026-11-30t08:00:00.250z", "2026-11-30T08:00:00.250Z", "2026-11-30T08:00:00.250Z"),
            ("1796025600000", "2026-11-30T08:00:00Z", "2026-11-30T08:00:00Z"),
            ("24h", "2026-11-29T12:00:00Z", "2026-11-29T12:00:00Z"),
            ("30d", "2026-10-31T12:00:00Z", "2026-10-31T12:00:00Z"),
            ("1h30m", "2026-11-30T10:30:00Z", "2026-11-30T10:30:00Z"),
            ("1w", "2026-11-23T12:00:00Z", "2026-11-23T12:00:00Z"),
            ("1y", "2025-11-30T12:00:00Z", "2025-11-30T12:00:00Z"),
            ("2026-11-30", "2026-11-29T23:00:00Z", "2026-11-30T23:00:00Z"),
            ("2026-11", "2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z"),
            ("2026-12", "2026-11-30T23:00:00Z", "2026-12-31T23:00:00Z"),
        ] {
            assert_eq!(parse(Some(text), None, &berlin).unwrap().from, at(from), "from {text}");
            let period = parse(Some("0"), Some(text), &berlin).unwrap();
            assert_eq!(period.to, Some(at(to)), "to {text}");
        }
    }

    #[test]
    fn days_have_the_length_that_their_zone_gives_them() {
        let hours = |name: &str, day: &str| {
            let period = parse(Some(day), Some(day), &zone(name)).unwrap();
            period.to.unwrap().since(period.from) / 3_600_000
        };
        assert_eq!(hours("Europe/Berlin", "2026-03-29"), 23);
        assert_eq!(hours("Europe/Berlin", "2026-10-25"), 25);
        assert_eq!(hours("Europe/Berlin", "2026-10"), 745);
        assert_eq!(hours("Asia/Kathmandu", "2026-11-30"), 24);
        // Midnight does not exist there on that day: the clock goes from 23:59 to 1:00.
        assert_eq!(hours("Asia/Beirut", "2026-03-29"), 23);
        let beirut = parse(Some("2026-03-29"), None, &zone("Asia/Beirut")).unwrap();
        assert_eq!(beirut.from, at("2026-03-28T22:00:00Z"));
    }

    #[test]
    fn missing_keys_have_defaults() {
        let period = parse(None, None, &TimeZone::UTC).unwrap();
        assert_eq!(period, Period { from: at("2026-11-29T12:00:00Z"), to: None });
        let period = parse(None, Some("2026-11-01"), &TimeZone::UTC).unwrap();
        assert_eq!(period.from, at("2026-11-01T00:00:00Z"), "24 h before the end of that day");
    }

    /// The API takes no milliseconds before 1970.
    #[test]
    fn with_a_clock_that_is_not_set_a_period_begins_in_1970() {
        let now = Moment::from_millis(10_000);
        for (from, to) in [(None, None), (Some("24h"), None), (Some("1969-12"), Some("1969-12"))] {
            let period = Period::parse(from, to, &TimeZone::UTC, now).unwrap();
            assert_eq!(period.from, Moment::default(), "{from:?}");
            assert!(period.to.is_none_or(|to| to == Moment::default()), "{to:?}");
        }
    }

    #[test]
    fn errors_name_the_end_and_the_remedy() {
        for text in [
            "",
            "yesterday",
            "-5",
            "-24h",
            "1mo",
            "2026-13",
            "2026-02-30",
            "2026-11-30T08",
            "2026-11-30T08:00:00",
            "99999999999999999999",
            "2026-11-3",
            "2026/11/30",
            "2026",
            "1796025600",
            "99999999999",
        ] {
            let error = parse(None, Some(text), &TimeZone::UTC).unwrap_err().to_string();
            assert!(error.starts_with("to is ") && error.contains("30d"), "{text:?}: {error}");
        }
        assert!(parse(Some("0"), Some("100000000000"), &TimeZone::UTC).is_ok());
        let error = parse(Some("1h"), Some("2h"), &TimeZone::UTC).unwrap_err();
        assert!(error.to_string().contains("ends before it begins"), "{error}");
        assert!(parse(Some("1h"), Some("1h"), &TimeZone::UTC).is_ok(), "empty, but no mistake");
    }

    proptest! {
        /// Days and months of any zone follow each other without a hole or an overlap.
        #[test]
        fn the_end_of_a_day_is_the_beginning_of_the_next(
            name in proptest::sample::select(vec![
                "Europe/Berlin", "Asia/Beirut", "America/St_Johns", "Asia/Kathmandu",
                "America/Sao_Paulo", "Pacific/Apia", "UTC",
            ]),
            days in 0..20_000_i32,
        ) {
            let zone = zone(name);
            let day = jiff::civil::date(1990, 1, 1).checked_add(jiff::ToSpan::days(days)).unwrap();
            let next = day.tomorrow().unwrap();
            let (day, next) = (day.to_string(), next.to_string());
            let first = parse(Some(&day), Some(&day), &zone).unwrap();
            let second = parse(Some(&next), Some(&next), &zone).unwrap();
            prop_assert_eq!(first.to, Some(second.from));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            _ = parse(Some(&text), None, &TimeZone::UTC);
        }
    }
}
