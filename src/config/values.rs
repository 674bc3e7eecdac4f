//! Reads single values: durations, sizes, addresses, topics, rates.
//!
//! Each function is a `deserialize_with` of `model`. Errors are the second half of a sentence about
//! the key; they never quote a secret.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::tz::TimeZone;
use secrecy::SecretString;
use serde::de::{Error as _, IntoDeserializer, Unexpected};
use serde::{Deserialize, Deserializer};

use super::key_path::nearest;
use crate::ids::{GATEWAY_NAME_LEN_MAX, HostPort, is_snake_word};

pub(super) const HOUR: u64 = 3_600;
pub(super) const DAY: u64 = 24 * HOUR;
pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const TIB: u64 = 1 << 40;

/// The longest base topic, in bytes: leaves room for the levels below it.
const TOPIC_LEN_MAX: usize = 128;
/// The longest response prefix, in bytes (contract, "Commands").
const RESPONSE_PREFIX_LEN_MAX: usize = 256;
/// The longest name for people, in characters.
const LABEL_LEN_MAX: usize = 255;

/// The ports of MQTT, and of MQTT over TLS.
const MQTT_PORTS: (u16, u16) = (1883, 8883);
/// The port of a G-SDK device gateway.
const GATEWAY_PORT: u16 = 4000;
/// The port that a Suprema device listens on.
pub(super) const DEVICE_PORT: u16 = 51_211;

/// Reads a text and parses it.
fn parsed<'de, D: Deserializer<'de>, T>(
    source: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    parse(&String::deserialize(source)?).map_err(D::Error::custom)
}

/// A text that is not empty and that MQTT can carry.
pub(super) fn text<'de, D, T>(source: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<String>,
{
    parsed(source, |text| {
        if text.is_empty() {
            return Err("is empty; give it a value or leave the key out".to_owned());
        }
        if text.contains('\0') || text.len() > usize::from(u16::MAX) {
            return Err("contains NUL or is longer than 65535 bytes".to_owned());
        }
        Ok(text.to_owned().into())
    })
}

pub(super) fn path<'de, D, T>(source: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<PathBuf>,
{
    let path: String = text(source)?;
    Ok(PathBuf::from(path).into())
}

pub(super) fn secret<'de, D: Deserializer<'de>>(
    source: D,
) -> Result<Option<SecretString>, D::Error> {
    let secret: String = text(source)?;
    Ok(Some(secret.into()))
}

/// A name for people.
pub(super) fn label<'de, D: Deserializer<'de>>(source: D) -> Result<Option<String>, D::Error> {
    parsed(source, |text| {
        let fits = (1..=LABEL_LEN_MAX).contains(&text.chars().count());
        if fits && !text.trim().is_empty() && !text.chars().any(char::is_control) {
            return Ok(Some(text.to_owned()));
        }
        Err(format!("{text:?} is not a name; write 1 to {LABEL_LEN_MAX} printable characters"))
    })
}

/// `bridge` or `bridge_<x>`, which no gateway may be called.
pub(super) fn bridge_name<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    parsed(source, |text| {
        let reserved = crate::ids::is_for_bridges(text);
        if reserved && is_snake_word(text) && text.len() <= GATEWAY_NAME_LEN_MAX {
            return Ok(text.to_owned());
        }
        Err(format!("{text:?} is not a bridge name; write \"bridge\", or as in \"bridge_east\""))
    })
}

/// A duration as in `60s`, `1h 30m`, `30d`, from `LEAST` to `MOST` seconds.
pub(super) fn duration<'de, D, const LEAST: u64, const MOST: u64>(
    source: D,
) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    parsed(source, |text| parse_duration(text, LEAST, MOST))
}

/// A duration, or `never`.
pub(super) fn duration_or_never<'de, D, const LEAST: u64, const MOST: u64>(
    source: D,
) -> Result<Option<Duration>, D::Error>
where
    D: Deserializer<'de>,
{
    parsed(source, |text| match text {
        "never" => Ok(None),
        text => parse_duration(text, LEAST, MOST).map(Some),
    })
}

fn parse_duration(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    let example = "write a number and its unit, as in \"60s\", \"5m\", \"1h\" or \"30d\"";
    let span: jiff::Span =
        text.parse().map_err(|_| format!("{text:?} is not a duration; {example}"))?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let duration =
        span.to_duration(days).map_err(|_| format!("{text:?} has no fixed length; {example}"))?;
    let duration = Duration::try_from(duration).map_err(|_| format!("{text:?} is negative"))?;
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
pub(super) fn size<'de, D, T, const LEAST: u64, const MOST: u64>(source: D) -> Result<T, D::Error>
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
pub(super) fn number<'de, D, T, const LEAST: u64, const MOST: u64>(source: D) -> Result<T, D::Error>
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
pub(super) fn rate<'de, D: Deserializer<'de>>(source: D) -> Result<Rate, D::Error> {
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
pub(super) fn time_zone<'de, D: Deserializer<'de>>(source: D) -> Result<TimeZone, D::Error> {
    parsed(source, |text| {
        TimeZone::get(text).map_err(|_| {
            let names = jiff::tz::db().available().map(|name| name.to_string());
            let near = nearest(text, names);
            let near = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
            format!("{text:?} is not a time zone, as \"Europe/Berlin\" is{near}")
        })
    })
}

/// The machine's time zone, else UTC.
pub(super) fn machine_time_zone() -> TimeZone {
    TimeZone::try_system().unwrap_or(TimeZone::UTC)
}

/// A gateway's address. TLS is always used, so there is no scheme.
pub(super) fn gateway_address<'de, D: Deserializer<'de>>(source: D) -> Result<HostPort, D::Error> {
    parsed(source, |text| {
        if text.contains("://") {
            return Err(format!("{text:?} has a scheme; write host:port only, TLS is always used"));
        }
        HostPort::parse(text, GATEWAY_PORT).ok_or_else(|| {
            format!("{text:?} is not an address; write host:port, as in \"192.168.0.2:4000\"")
        })
    })
}

/// A name that a certificate can have.
pub(super) fn server_name<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    parsed(source, |text| {
        let error = || format!("{text:?} is not a host name; write the name in the certificate");
        HostPort::is_host(text).then(|| text.to_owned()).ok_or_else(error)
    })
}

/// Host names as the header `Host` has them, in lower case; `*` is any.
pub(super) fn hosts<'de, D: Deserializer<'de>>(source: D) -> Result<BTreeSet<String>, D::Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let hosts = Vec::<String>::deserialize(source)?.into_iter().map(|host| {
        if host == "*" || !host.is_empty() && host.chars().all(allowed) {
            return Ok(host.to_lowercase());
        }
        let remedy = "write it as in \"doors.example.com\", without scheme, port and path";
        Err(D::Error::custom(format!("{host:?} is not a host name; {remedy}")))
    });
    hosts.collect()
}

/// An address to listen on; `:9925` is that port of every IPv4 address.
pub(super) fn listen<'de, D: Deserializer<'de>>(source: D) -> Result<SocketAddr, D::Error> {
    parsed(source, |text| {
        let port = text.strip_prefix(':').and_then(|port| port.parse().ok());
        let everywhere = port.map(|port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        everywhere.or_else(|| text.parse().ok()).ok_or_else(|| {
            format!("{text:?} is not an address to listen on; write it as in \"127.0.0.1:9925\"")
        })
    })
}

/// The broker's address, and whether TLS is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Whether the URL begins with `mqtts://`.
    pub tls: bool,
    /// The broker's host and port.
    pub at: HostPort,
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "mqtts" } else { "mqtt" }, self.at)
    }
}

/// The broker's URL. One with a user name or password is refused and not quoted: URLs are logged,
/// and the password has a key of its own.
pub(super) fn broker<'de, D: Deserializer<'de>>(source: D) -> Result<Broker, D::Error> {
    parsed(source, |text| {
        if text.contains('@') {
            return Err("contains a user name or password; move them to mqtt.username and \
                        mqtt.password_file, and leave only mqtts://host:port"
                .to_owned());
        }
        let broker = text.split_once("://").and_then(|(scheme, rest)| {
            let (tls, port) = match scheme.to_ascii_lowercase().as_str() {
                "mqtt" => (false, MQTT_PORTS.0),
                "mqtts" => (true, MQTT_PORTS.1),
                _ => return None,
            };
            let at = HostPort::parse(rest.strip_suffix('/').unwrap_or(rest), port)?;
            Some(Broker { tls, at })
        });
        broker.ok_or_else(|| {
            format!(
                "{text:?} is not a broker; write mqtt://host:port or, with TLS, mqtts://host:port"
            )
        })
    })
}

/// The beginning of topics: levels with `/` between, none empty, no wildcards.
pub(super) fn topic<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
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
pub(super) fn response_prefix<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    parsed(source, |text| {
        let Some(levels) = text.strip_suffix('/') else {
            let example =
                if check_topic(text, TOPIC_LEN_MAX).is_ok() { text } else { "gsdk-reply" };
            return Err(format!("{text:?} does not end in /; write it as in \"{example}/\""));
        };
        check_topic(levels, RESPONSE_PREFIX_LEN_MAX - 1).map(|()| text.to_owned())
    })
}

/// An IPv4 address that a device can have.
pub(super) fn device_ip<'de, D: Deserializer<'de>>(
    source: D,
) -> Result<Option<Ipv4Addr>, D::Error> {
    parsed(source, |text| {
        let usable =
            |ip: &Ipv4Addr| !(ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast());
        let ip = text.parse().ok().filter(usable);
        ip.map(Some).ok_or_else(|| {
            format!("{text:?} is not a device's IPv4 address; write it as in \"192.168.0.104\"")
        })
    })
}

/// A word of a fixed set, in any case.
pub(super) fn word<'de, D, T>(source: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(String::deserialize(source)?.to_ascii_lowercase().into_deserializer())
}

/// Words of a fixed set, in any case.
pub(super) fn words<'de, D, T>(source: D) -> Result<BTreeSet<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Ord,
{
    let words = Vec::<String>::deserialize(source)?.into_iter();
    words.map(|text| word(text.into_deserializer())).collect()
}

#[cfg(test)]
mod tests {
    use serde::de::value::{Error, StrDeserializer};

    use super::*;

    /// What a text is read as, or why it is not.
    macro_rules! read {
        ($read:path, $text:expr) => {
            $read(StrDeserializer::<Error>::new($text)).map_err(|error| error.to_string())
        };
    }

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [("60s", 60), ("1h", 3_600), ("30d", 2_592_000), ("1m 30s", 90)] {
            let read = read!(duration::<_, 0, { 100 * DAY }>, text);
            assert_eq!(read, Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["60", "", "s", "-5s", "1y", "1month", "ten seconds", "101d"] {
            assert!(read!(duration::<_, 0, { 100 * DAY }>, text).is_err(), "{text}");
        }
        assert_eq!(read!(duration_or_never::<_, DAY, DAY>, "never"), Ok(None));
        assert_eq!(in_largest_unit(Duration::from_secs(30 * DAY)), "30d");
        assert_eq!(in_largest_unit(Duration::from_secs(90)), "90s");
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("512MiB", 512 << 20), ("64KiB", 65_536), ("1 GB", 1_000_000_000)] {
            assert_eq!(read!(size::<_, u64, 0, { u64::MAX }>, text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1B", "1_0xB", "lots"] {
            assert!(read!(size::<_, u64, 0, { u64::MAX }>, text).is_err(), "{text}");
        }
    }

    #[test]
    fn brokers_are_urls_without_secrets() {
        let shown = |text| read!(broker, text).unwrap().to_string();
        assert_eq!(shown("mqtts://broker.lan"), "mqtts://broker.lan:8883");
        assert_eq!(shown("mqtt://[::1]:1884/"), "mqtt://[::1]:1884");
        for text in ["broker", "http://x", "mqtt://", "mqtt://h:0", "mqtt://h/p", "mqtt://h:+5"] {
            assert!(read!(broker, text).is_err(), "{text}");
        }
        let error = read!(broker, "mqtt://user:hunter2@broker").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn addresses_are_hosts_and_ports() {
        assert_eq!(read!(gateway_address, "10.0.0.1").unwrap().to_string(), "10.0.0.1:4000");
        assert_eq!(read!(gateway_address, "gw-1.lan:5000").unwrap().port, 5000);
        for text in ["", ":4000", "a b", "10.0.0.256", "h:65536", "h:", "https://h", "1:2:3"] {
            assert!(read!(gateway_address, text).is_err(), "{text}");
        }
        for text in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::1", "reader.lan"] {
            assert!(read!(device_ip, text).is_err(), "{text}");
        }
    }

    #[test]
    fn topics_have_levels_and_no_wildcards() {
        for good in ["gsdk", "site/gsdk", "größe/a b"] {
            assert!(read!(topic, good).is_ok(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", "/a", "a/", "a//b", "a+", "#", "$SYS", "a\0", &long] {
            assert!(read!(topic, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn response_prefixes_end_in_a_slash() {
        for good in ["gsdk-reply/", "clients/node-red/", &format!("{}/", "a".repeat(255))] {
            assert!(read!(response_prefix, good).is_ok(), "{good}");
        }
        for bad in ["", "a/#", "a/b", "/", "a/+/", "$x/", &format!("{}/", "a".repeat(256))] {
            assert!(read!(response_prefix, bad).is_err(), "{bad}");
        }
        let error = read!(response_prefix, "a/b").unwrap_err();
        assert!(error.ends_with("as in \"a/b/\""), "{error}");
    }

    #[test]
    fn rates_have_a_unit() {
        assert_eq!(read!(rate, "100/m").unwrap().per, Duration::from_secs(60));
        for bad in ["0/s", "5", "/s", "5/d", "-1/s"] {
            assert!(read!(rate, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_time_zones_name_a_near_one() {
        assert!(read!(time_zone, "Europe/Berlin").is_ok());
        assert!(read!(time_zone, "Europe/Berln").unwrap_err().contains("\"Europe/Berlin\"?"));
        assert!(read!(time_zone, "").is_err());
    }
}
