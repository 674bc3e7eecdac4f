//! Values as text, turned into what they mean: durations, sizes, addresses, topics, rates.
//!
//! May not know where a value came from. Refusals are words that end a sentence about the key; the
//! broker's URL is quoted only where it cannot hold a password.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::keys;
use crate::ids::HostPort;

/// The longest prefix of topics we take, in bytes: leaves room for all that follows it.
const TOPIC_LEN_MAX: usize = 128;
/// The longest response prefix, in bytes (contract, "Commands").
const RESPONSE_PREFIX_LEN_MAX: usize = 256;

/// The port of MQTT, and of MQTT over TLS.
const MQTT_PORTS: (u16, u16) = (1883, 8883);
/// The port of a G-SDK device gateway.
const GATEWAY_PORT: u16 = 4000;

/// A duration as in `60s`, `1h 30m`, `30d`, within limits.
pub(super) fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let example = "write a number and its unit, as in \"60s\", \"5m\", \"1h\" or \"30d\"";
    let span: jiff::Span =
        text.parse().map_err(|_| format!("{text:?} is not a duration; {example}"))?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let duration =
        span.to_duration(days).map_err(|_| format!("{text:?} has no fixed length; {example}"))?;
    let duration = Duration::try_from(duration).map_err(|_| format!("{text:?} is negative"))?;
    if duration < least || duration > most {
        let (least, most) = (Words(least), Words(most));
        return Err(format!("{text:?} is out of range; choose from {least} to {most}"));
    }
    Ok(duration)
}

/// A duration in its largest whole unit.
pub(super) struct Words(pub(super) Duration);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
            if seconds >= length && seconds.is_multiple_of(length) {
                return write!(f, "{}{unit}", seconds / length);
            }
        }
        write!(f, "{seconds}s")
    }
}

/// A duration, or `never`.
pub(super) fn duration_or_never(
    text: &str,
    least: Duration,
    most: Duration,
) -> Result<Option<Duration>, String> {
    if text == "never" { Ok(None) } else { duration(text, least, most).map(Some) }
}

/// A time zone of the IANA database.
pub(super) fn time_zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_| {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let near = keys::nearest(text, names.iter().map(String::as_str));
        let near = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        format!("{text:?} is not a time zone, as \"Europe/Berlin\" is{near}")
    })
}

/// The units of sizes.
const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A size as in `512MiB`, within limits, in bytes.
pub(super) fn size(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let bytes = UNITS.iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(unit)?.trim_end().replace('_', "");
        number.parse::<u64>().ok()?.checked_mul(*factor)
    });
    let bytes = bytes.ok_or_else(|| {
        format!(
            "{text:?} is not a size; write a whole number and KiB, MiB or GiB, as in \"512MiB\""
        )
    })?;
    if bytes < least || bytes > most {
        return Err(format!("{text:?} is out of range; choose from {least}B to {most}B"));
    }
    Ok(bytes)
}

/// So many in such a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In how long.
    pub per: Duration,
}

/// A rate as in `20/s` or `100/m`.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let parsed = text.split_once('/').and_then(|(count, unit)| {
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return None,
        };
        let count = count.trim().parse().ok()?;
        Some(Rate { count, per: Duration::from_secs(seconds) })
    });
    parsed.ok_or_else(|| {
        format!("{text:?} is not a rate; write a number above 0 and /s, /m or /h, as in \"20/s\"")
    })
}

/// A gateway's address: TLS always, so there is no scheme to choose.
pub(super) fn gateway_address(text: &str) -> Result<HostPort, String> {
    if text.contains("://") {
        return Err(format!("{text:?} has a scheme; write only host:port, TLS is always used"));
    }
    HostPort::parse(text, GATEWAY_PORT).ok_or_else(|| {
        format!("{text:?} is not an address; write host:port, as in \"192.168.0.2:4000\"")
    })
}

/// A host's name as `Host` has it, in lower case, or `*`.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text == "*" || !text.is_empty() && text.chars().all(part) {
        return Ok(text.to_lowercase());
    }
    Err(format!(
        "{text:?} is not a host name; write it as in \"doors.example.com\", without scheme, port \
         and path"
    ))
}

/// An address to listen on; a port alone, as in `:9925`, is that port of every IPv4 address.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').and_then(|port| port.parse().ok());
    let everywhere = port.map(|port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    everywhere.or_else(|| text.parse().ok()).ok_or_else(|| {
        format!("{text:?} is not an address to listen on; write it as in \"127.0.0.1:9925\"")
    })
}

/// A name that a certificate may be made out to.
pub(super) fn server_name(text: &str) -> Result<String, String> {
    if HostPort::is_host(text) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a host name; write the name that the certificate holds"))
}

/// Where the broker is, and whether TLS leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Whether the URL begins `mqtts://`.
    pub tls: bool,
    /// The broker's host and port.
    pub at: HostPort,
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "mqtts" } else { "mqtt" }, self.at)
    }
}

/// The broker's URL. One with a user name or password is refused, and never quoted: a URL is
/// logged and shown, and a secret has a key of its own.
pub(super) fn broker(text: &str) -> Result<Broker, String> {
    if text.contains('@') {
        return Err("holds a user name or password; move them to mqtt.username and \
                    mqtt.password_file, and leave only mqtts://host:port"
            .to_owned());
    }
    let parsed = text.split_once("://").and_then(|(scheme, rest)| {
        let (tls, port) = match scheme.to_ascii_lowercase().as_str() {
            "mqtt" => (false, MQTT_PORTS.0),
            "mqtts" => (true, MQTT_PORTS.1),
            _ => return None,
        };
        let at = HostPort::parse(rest.strip_suffix('/').unwrap_or(rest), port)?;
        Some(Broker { tls, at })
    });
    parsed.ok_or_else(|| {
        format!("{text:?} is not a broker; write mqtt://host:port or, with TLS, mqtts://host:port")
    })
}

/// A topic or the beginning of topics: levels with `/` between, none empty, no wildcards.
pub(super) fn topic(text: &str) -> Result<String, String> {
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
    } else if text.len() > TOPIC_LEN_MAX {
        "is longer than 128 bytes"
    } else {
        return Ok(text.to_owned());
    };
    Err(format!("{text:?} {reason}; write levels of plain text, as in \"gsdk\" or \"site/gsdk\""))
}

/// Whether two trees of topics have a topic in common, both given as beginnings of text.
fn overlap(left: &str, right: &str) -> bool {
    left.starts_with(right) || right.starts_with(left)
}

/// Where requests may have their answers sent: a tree apart from all that the bridge publishes or
/// reads, or a request could make the bridge forge its own states and requests.
pub(super) fn response_prefix(text: &str, ours: &[&str]) -> Result<String, String> {
    let Some(levels) = text.strip_suffix('/') else {
        let instead = topic(text).map_or("gsdk-reply".to_owned(), |tree| tree);
        return Err(format!(
            "{text:?} does not end in /; write a tree of topics, as in \"{instead}/\""
        ));
    };
    if text.len() > RESPONSE_PREFIX_LEN_MAX {
        return Err(format!(
            "is longer than {RESPONSE_PREFIX_LEN_MAX} bytes; choose a shorter one"
        ));
    }
    // The length is checked above; `topic` has a stricter one for what other parts follow.
    if levels.len() <= TOPIC_LEN_MAX {
        topic(levels)?;
    } else {
        for level in levels.split('/') {
            topic(level)?;
        }
    }
    for tree in ours {
        if overlap(text, &format!("{tree}/")) {
            return Err(format!(
                "{text:?} overlaps the bridge's own topics below \"{tree}/\"; \
                 choose a tree apart, as in \"{tree}-reply/\""
            ));
        }
    }
    Ok(text.to_owned())
}

/// The longest name for people, in characters.
const LABEL_MAX: usize = 255;

/// A name for people: not empty, no control characters, not too long.
pub(super) fn label(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if text.trim().is_empty() || length > LABEL_MAX || text.chars().any(char::is_control) {
        return Err(format!("{text:?} is not a name; write 1 to {LABEL_MAX} printable characters"));
    }
    Ok(text.to_owned())
}

/// A text that only may not be empty or hold what MQTT forbids.
pub(super) fn plain(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("is empty; give it a value or leave the key out".to_owned());
    }
    if text.contains('\0') || text.len() > usize::from(u16::MAX) {
        return Err("has a NUL or is longer than 65535 bytes, which MQTT cannot carry".to_owned());
    }
    Ok(text.to_owned())
}

/// An IPv4 address that a device can have.
pub(super) fn device_ip(text: &str) -> Result<Ipv4Addr, String> {
    let ip = text.parse::<Ipv4Addr>();
    let usable = |ip: &Ipv4Addr| !(ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast());
    ip.ok().filter(usable).ok_or_else(|| {
        format!("{text:?} is not a device's IPv4 address; write it as in \"192.168.0.104\"")
    })
}

/// One of a few words, in any case.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        format!("{text:?} is not known; write one of {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [("60s", 60), ("1h", 3_600), ("30d", 2_592_000), ("1m 30s", 90)] {
            let read = duration(text, Duration::ZERO, 100 * DAY);
            assert_eq!(read.unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for text in ["60", "", "s", "-5s", "1y", "1month", "ten seconds", "101d"] {
            assert!(duration(text, Duration::ZERO, 100 * DAY).is_err(), "{text}");
        }
        assert_eq!(duration_or_never("never", DAY, DAY), Ok(None));
        assert_eq!(Words(30 * DAY).to_string(), "30d");
        assert_eq!(Words(Duration::from_secs(90)).to_string(), "90s");
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("512MiB", 512 << 20), ("64KiB", 65_536), ("1 GB", 1_000_000_000)] {
            assert_eq!(size(text, 0, u64::MAX).unwrap(), bytes, "{text}");
        }
        for text in ["512", "", "MiB", "-1B", "1.5MiB", "99999999999GiB", "5 mib"] {
            assert!(size(text, 0, u64::MAX).is_err(), "{text}");
        }
    }

    #[test]
    fn brokers_are_urls_without_secrets() {
        assert_eq!(broker("mqtts://broker.lan").unwrap().to_string(), "mqtts://broker.lan:8883");
        assert_eq!(broker("mqtt://[::1]:1884/").unwrap().to_string(), "mqtt://[::1]:1884");
        for text in ["broker", "http://x", "mqtt://", "mqtt://h:0", "mqtt://h/p", "mqtt://h:+5"] {
            assert!(broker(text).is_err(), "{text}");
        }
        let refusal = broker("mqtt://user:hunter2@broker").unwrap_err();
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }

    #[test]
    fn addresses_are_hosts_and_ports() {
        assert_eq!(gateway_address("10.0.0.1").unwrap().to_string(), "10.0.0.1:4000");
        assert_eq!(gateway_address("gw-1.lan:5000").unwrap().port, 5000);
        for text in ["", ":4000", "a b", "10.0.0.256", "h:65536", "h:", "https://h", "1:2:3"] {
            assert!(gateway_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn topics_have_levels_and_no_wildcards() {
        for good in ["gsdk", "site/gsdk", "größe/a b"] {
            assert!(topic(good).is_ok(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", "/a", "a/", "a//b", "a+", "#", "$SYS", "a\0", &long] {
            assert!(topic(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_go_nowhere_near_our_own_topics() {
        let ours = ["gsdk", "homeassistant"];
        assert!(response_prefix("gsdk-reply/", &ours).is_ok());
        assert!(response_prefix("clients/node-red/", &ours).is_ok());
        for (bad, instead) in [("", "gsdk-reply/"), ("a/#", "gsdk-reply/"), ("a/b", "a/b/")] {
            let refusal = response_prefix(bad, &ours).unwrap_err();
            assert!(refusal.ends_with(&format!("as in {instead:?}")), "{refusal}");
            assert!(response_prefix(instead, &ours).is_ok());
        }
        for bad in ["gsdk/", "gsdk/lobby/request/", "gsdk-reply", "/", "", "a/+/", "$x/"] {
            assert!(response_prefix(bad, &ours).is_err(), "{bad}");
        }
        assert!(response_prefix("site/", &["site/gsdk"]).is_err());
    }

    #[test]
    fn rates_words_and_addresses_of_devices() {
        assert_eq!(rate("100/m").unwrap().per, Duration::from_secs(60));
        for bad in ["0/s", "5", "/s", "5/d", "-1/s"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        for bad in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::1", "reader.lan"] {
            assert!(device_ip(bad).is_err(), "{bad}");
        }
        assert_eq!(word("b", &[("a", 1), ("b", 2)]), Ok(2));
        assert_eq!(word("ASYNC", &[("async", 1)]), Ok(1));
        assert!(word("c", &[("a", 1)]).unwrap_err().contains("one of \"a\""));
    }
}
