//! Formats periods, durations and shares for users.

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::ids::Moment;

/// A period by local dates: a month, a day, the first and the last day, or two times.
pub fn period((from, to): (Moment, Moment), zone: &TimeZone) -> String {
    let first = whole_day(from, zone);
    let next = whole_day(to, zone).filter(|next| first.is_some_and(|first| first < *next));
    let last = next.and_then(|next| next.yesterday().ok());
    match (first, last) {
        (Some(first), Some(last)) if first == last => first.to_string(),
        (Some(first), Some(last)) if first.day() == 1 && first.last_of_month() == last => {
            first.strftime("%Y-%m").to_string()
        }
        (Some(first), Some(last)) => format!("{first} to {last}"),
        _ => format!("{} to {}", local_time(from, zone), local_time(to, zone)),
    }
}

/// The date that begins at this instant.
fn whole_day(at: Moment, zone: &TimeZone) -> Option<Date> {
    let date = at.timestamp().to_zoned_datetime(zone.clone()).date();
    let start = date.to_zoned_datetime(zone.clone()).ok()?.timestamp();
    (start.as_millisecond() == at.millis()).then_some(date)
}

/// A local time, to the second; with its offset in the hour that there is twice when summer time
/// ends.
pub fn local_time(at: Moment, zone: &TimeZone) -> String {
    let local = at.timestamp().to_zoned_datetime(zone.clone());
    let is_twice = zone.to_ambiguous_zoned_datetime(local.datetime()).is_ambiguous();
    local.strftime(if is_twice { "%Y-%m-%d %H:%M:%S%:z" } else { "%Y-%m-%d %H:%M:%S" }).to_string()
}

/// A duration by its two largest units.
pub fn duration(ms: i64) -> String {
    let seconds = ms / 1_000;
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let Some(index) = units.iter().position(|(length, _)| seconds >= *length) else {
        return if ms == 0 { "0 s".to_owned() } else { format!("0.{:03} s", ms % 1_000) };
    };
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (length, unit) in units.iter().skip(index).take(2) {
        if rest >= *length {
            parts.push(format!("{} {unit}", rest / length));
        }
        rest %= length;
    }
    parts.join(" ")
}

/// A share in percent, cut and not rounded: what is less than all never reads 100 %.
pub fn percent(share: f64) -> String {
    /// Makes up for what a share of whole milliseconds loses as a binary fraction.
    const EPSILON: f64 = 1e-9;
    if share >= 1.0 {
        return "100 %".to_owned();
    }
    let hundredths = (share * 10_000.0 + EPSILON).floor();
    match hundredths {
        _ if share <= 0.0 => "0 %".to_owned(),
        cut if cut < 1.0 => "< 0.01 %".to_owned(),
        cut => format!("{:.2} %", cut / 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (ms, text) in [
            (0, "0 s"),
            (7, "0.007 s"),
            (1_999, "1 s"),
            (60_000, "1 min"),
            (61_000, "1 min 1 s"),
            (3_605_000, "1 h"),
            (90_000_000, "1 d 1 h"),
            (31 * 86_400_000, "31 d"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn a_time_that_there_is_twice_has_its_offset() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        for (utc, text) in [
            ("2026-10-24T23:30:00Z", "2026-10-25 01:30:00"),
            ("2026-10-25T00:30:00Z", "2026-10-25 02:30:00+02:00"),
            ("2026-10-25T01:30:00Z", "2026-10-25 02:30:00+01:00"),
            ("2026-03-29T01:30:00Z", "2026-03-29 03:30:00"),
        ] {
            let at: jiff::Timestamp = utc.parse().unwrap();
            assert_eq!(local_time(Moment::from_millis(at.as_millisecond()), &berlin), text);
        }
    }

    #[test]
    fn a_share_is_never_more_than_it_is() {
        for (share, text) in [
            (1.0, "100 %"),
            (0.999_999_9, "99.99 %"),
            (0.995, "99.50 %"),
            (0.29, "29.00 %"),
            (0.000_001, "< 0.01 %"),
            (0.0, "0 %"),
        ] {
            assert_eq!(percent(share), text);
        }
    }
}
