//! Reads single values: texts, durations, sizes, topics, rates.
//!
//! Each function is a `deserialize_with` of `model`. Errors are the second half of a sentence about
//! the key; they never quote a secret.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::tz::TimeZone;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Error as _, IntoDeserializer, Unexpected};
use serde::{Deserialize, Deserializer};

use crate::ids::{GATEWAY_NAME_LEN_MAX, is_snake_word};

pub(crate) const HOUR: u64 = 3_600;
pub(crate) const DAY: u64 = 24 * HOUR;
pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const TIB: u64 = 1 << 40;

/// The longest base topic, in bytes: the levels below it have to fit too.
const TOPIC_LEN_MAX: usize = 128;
/// The longest response prefix, in bytes.
const RESPONSE_PREFIX_LEN_MAX: usize = 256;
/// The longest name for people, in characters.
const LABEL_LEN_MAX: usize = 255;

/// Reads a text and parses it.
pub(crate) fn parsed<'de, D: Deserializer<'de>, T>(
    source: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    parse(&String::deserialize(source)?).map_err(D::Error::custom)
}

/// What is wrong with a text of which nothing is required but that MQTT can carry it.
pub(crate) fn unusable_text(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("is empty; set a value or remove the key");
    }
    let is_long = text.len() > usize::from(u16::MAX);
    (is_long || text.contains('\0')).then_some("contains NUL or is longer than 65535 bytes")
}

/// A name for people.
pub(crate) fn label<'de, D: Deserializer<'de>>(source: D) -> Result<Option<String>, D::Error> {
    parsed(source, |text| {
        let fits = (1..=LABEL_LEN_MAX).contains(&text.chars().count());
        let is_empty = text.chars().all(|c| c.is_whitespace() || is_joiner(c));
        if fits && !is_empty && !text.chars().any(|c| c.is_control() || is_invisible(c)) {
            return Ok(Some(text.to_owned()));
        }
        Err(format!("{text:?} is not a name; write 1 to {LABEL_LEN_MAX} printable characters"))
    })
}

/// Whether a character joins or separates its neighbours, as in Persian and in emoji.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0020}'..='\u{e007f}')
}

/// Whether a character has no form of its own: spaces of no width, line separators, and marks that
/// change the direction of the text that follows.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}'
    ) || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}')
}

/// `bridge` or `bridge_<x>`, which no gateway may be called.
pub(crate) fn bridge_name<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    parsed(source, |text| {
        let reserved = crate::ids::is_for_bridges(text);
        if reserved && is_snake_word(text) && text.len() <= GATEWAY_NAME_LEN_MAX {
            return Ok(text.to_owned());
        }
        Err(format!("{text:?} is not a bridge name; write \"bridge\", or as in \"bridge_east\""))
    })
}

/// A duration as in `60s`, `1h 30m`, `30d` or `1y` (365 days), from `LEAST` to `MOST` seconds.
pub(crate) fn duration<'de, D, const LEAST: u64, const MOST: u64>(
    source: D,
) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    parsed(source, |text| parse_duration(text, LEAST, MOST))
}

/// A duration, or `never` in any case.
pub(crate) fn duration_or_never<'de, D, const LEAST: u64, const MOST: u64>(
    source: D,
) -> Result<Option<Duration>, D::Error>
where
    D: Deserializer<'de>,
{
    parsed(source, |text| {
        if text.eq_ignore_ascii_case("never") {
            return Ok(None);
        }
        let duration = parse_duration(text, LEAST, MOST).map(Some);
        duration.map_err(|error| format!("{error}, or write \"never\""))
    })
}

fn parse_duration(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    let example = "write a number and its unit, as in \"60s\", \"5m\", \"1h\" or \"30d\"";
    let span =
        crate::period::span(text).map_err(|_| format!("{text:?} is not a duration; {example}"))?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let duration =
        span.to_duration(days).map_err(|_| format!("{text:?} has no fixed length; {example}"))?;
    let duration =
        Duration::try_from(duration).map_err(|_| format!("{text:?} is negative; {example}"))?;
    let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
    if duration < least || duration > most {
        let (least, most) = (in_largest_unit(least), in_largest_unit(most));
        return Err(format!("{text:?} is out of range; choose from {least} to {most}"));
    }
    Ok(duration)
}

/// A duration in its largest whole unit.
fn in_largest_unit(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", DAY), ("h", HOUR), ("m", 60)];
    let unit =
        units.iter().find(|(_, length)| seconds >= *length && seconds.is_multiple_of(*length));
    unit.map_or(format!("{seconds}s"), |(unit, length)| format!("{}{unit}", seconds / length))
}

/// A size as in `512MiB`, from `LEAST` to `MOST` bytes.
pub(crate) fn size<'de, D, T, const LEAST: u64, const MOST: u64>(source: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    parsed(source, |text| {
        let size = text.replace('_', "").parse::<ByteSize>().map_err(|_| {
            format!("{text:?} is not a size; write a number and KiB, MiB or GiB, as in \"512MiB\"")
        })?;
        let size = Some(size.as_u64()).filter(|bytes| (LEAST..=MOST).contains(bytes));
        size.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
            let (least, most) = (ByteSize(LEAST), ByteSize(MOST));
            format!("{text:?} is out of range; choose from {least} to {most}")
        })
    })
}

/// A whole number from `LEAST` to `MOST`.
pub(crate) fn number<'de, D, T, const LEAST: u64, const MOST: u64>(source: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let number = i64::deserialize(source)?;
    let within = u64::try_from(number).ok().filter(|number| (LEAST..=MOST).contains(number));
    within
        .and_then(|number| number.try_into().ok())
        .ok_or_else(|| D::Error::invalid_value(Unexpected::Signed(number), &"a number in range"))
}

/// A number of requests in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In how long.
    pub per: Duration,
}

/// A rate as in `20/s` or `100/m`.
pub(crate) fn rate<'de, D: Deserializer<'de>>(source: D) -> Result<Rate, D::Error> {
    parsed(source, |text| {
        let rate = text.split_once('/').and_then(|(count, unit)| {
            let seconds = match unit.trim() {
                "s" => 1,
                "m" => 60,
                "h" => HOUR,
                _ => return None,
            };
            let count = count.trim().parse().ok()?;
            Some(Rate { count, per: Duration::from_secs(seconds) })
        });
        rate.ok_or_else(|| {
            format!("{text:?} is not a rate; write a number and /s, /m or /h, as in \"20/s\"")
        })
    })
}

/// A time zone of the IANA database.
pub(crate) fn time_zone<'de, D: Deserializer<'de>>(source: D) -> Result<TimeZone, D::Error> {
    parsed(source, |text| crate::period::time_zone(text).map_err(|error| error.to_string()))
}

/// The machine's time zone, else UTC. A zone without a name in the IANA database, as of a plain
/// file at `/etc/localtime`, is not used: answers name the zone of their dates.
pub(crate) fn machine_time_zone() -> TimeZone {
    let zone = TimeZone::try_system().ok().filter(|zone| zone.iana_name().is_some());
    zone.unwrap_or(TimeZone::UTC)
}

/// The beginning of topics: levels with `/` between, none empty, no wildcards.
pub(crate) fn topic<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    parsed(source, |text| check_topic(text, TOPIC_LEN_MAX).map(|()| text.to_owned()))
}

fn check_topic(text: &str, len_max: usize) -> Result<(), String> {
    let reason = if text.is_empty() {
        "is empty"
    } else if text.contains(['+', '#']) {
        "has a wildcard (+ or #)"
    } else if text.starts_with('$') {
        "begins with $, which is the broker's own"
    } else if text.split('/').any(str::is_empty) {
        "begins or ends with / or has an empty level"
    } else if text.chars().any(char::is_control) {
        "has a control character"
    } else if text.len() > len_max {
        return Err(format!("is longer than {len_max} bytes; choose a shorter one"));
    } else {
        return Ok(());
    };
    Err(format!("{text:?} {reason}; write levels of plain text, as in \"gsdk\" or \"site/gsdk\""))
}

/// The beginning of the topics that responses may be sent to.
pub(crate) fn response_prefix<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    parsed(source, |text| {
        let Some(levels) = text.strip_suffix('/') else {
            let example =
                if check_topic(text, TOPIC_LEN_MAX).is_ok() { text } else { "gsdk-reply" };
            return Err(format!("{text:?} does not end in /; write it as in \"{example}/\""));
        };
        check_topic(levels, RESPONSE_PREFIX_LEN_MAX - 1).map(|()| text.to_owned())
    })
}

/// A value of a fixed set, in any case.
pub(crate) fn word<'de, D, T>(source: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(String::deserialize(source)?.to_ascii_lowercase().into_deserializer())
}

/// Words of a fixed set, in any case.
pub(crate) fn words<'de, D, T>(source: D) -> Result<BTreeSet<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Ord,
{
    let words = Vec::<String>::deserialize(source)?.into_iter();
    words.map(|text| word(text.into_deserializer())).collect()
}

/// What a key's reader makes of a text, or why it refuses it.
pub(crate) fn read_text<'de, T>(
    read: impl FnOnce(StrDeserializer<'de, ValueError>) -> Result<T, ValueError>,
    text: &'de str,
) -> Result<T, String> {
    read(StrDeserializer::new(text)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [("60s", 60), ("1h", 3_600), ("30d", 2_592_000), ("1m 30s", 90)] {
            let read = read_text(duration::<_, 0, { 100 * DAY }>, text);
            assert_eq!(read, Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["60", "", "s", "-5s", "1y", "1month", "ten seconds", "101d"] {
            assert!(read_text(duration::<_, 0, { 100 * DAY }>, text).is_err(), "{text}");
        }
        let long = |text| read_text(duration::<_, 0, { 4_000 * DAY }>, text);
        assert_eq!(long("3y"), Ok(Duration::from_secs(1_095 * DAY)));
        assert_eq!(long("90d"), Ok(Duration::from_secs(90 * DAY)));
        assert!(long("11y").unwrap_err().contains("4000d") && long("-1y").is_err());
        for never in ["never", "NEVER"] {
            assert_eq!(read_text(duration_or_never::<_, DAY, DAY>, never), Ok(None));
        }
        assert_eq!(in_largest_unit(Duration::from_secs(30 * DAY)), "30d");
        assert_eq!(in_largest_unit(Duration::from_secs(90)), "90s");
    }

    #[test]
    fn names_have_visible_characters() {
        for good in ["Tür 1", "در\u{200c}ها", "👩\u{200d}🔧", "❤\u{fe0f}", "a\u{301}"] {
            assert_eq!(read_text(label, good), Ok(Some(good.to_owned())), "{good}");
        }
        for bad in ["", " ", "\u{200b}", "\u{200d}", "a\u{200b}", "a\u{202e}b", "\u{feff}a", "a\tb"]
        {
            assert!(read_text(label, bad).unwrap_err().contains("printable"), "{bad:?}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("512MiB", 512 << 20), ("64KiB", 65_536), ("1 GB", 1_000_000_000)] {
            assert_eq!(read_text(size::<_, u64, 0, { u64::MAX }>, text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1B", "1_0xB", "lots"] {
            assert!(read_text(size::<_, u64, 0, { u64::MAX }>, text).is_err(), "{text}");
        }
    }

    #[test]
    fn topics_have_levels_and_no_wildcards() {
        for good in ["gsdk", "site/gsdk", "größe/a b"] {
            assert!(read_text(topic, good).is_ok(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", "/a", "a/", "a//b", "a+", "#", "$SYS", "a\0", &long] {
            assert!(read_text(topic, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn response_prefixes_end_in_a_slash() {
        for good in ["gsdk-reply/", "clients/node-red/", &format!("{}/", "a".repeat(255))] {
            assert!(read_text(response_prefix, good).is_ok(), "{good}");
        }
        for bad in ["", "a/#", "a/b", "/", "a/+/", "$x/", &format!("{}/", "a".repeat(256))] {
            assert!(read_text(response_prefix, bad).is_err(), "{bad}");
        }
        let error = read_text(response_prefix, "a/b").unwrap_err();
        assert!(error.ends_with("as in \"a/b/\""), "{error}");
    }

    #[test]
    fn rates_have_a_unit() {
        assert_eq!(read_text(rate, "100/m").unwrap().per, Duration::from_secs(60));
        for bad in ["0/s", "5", "/s", "5/d", "-1/s"] {
            assert!(read_text(rate, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_time_zones_name_a_near_one() {
        assert!(read_text(time_zone, "Europe/Berlin").is_ok());
        assert!(read_text(time_zone, "Europe/Berln").unwrap_err().contains("\"Europe/Berlin\"?"));
        assert!(read_text(time_zone, "").is_err());
    }
}
