//! The names of commands, devices, gateways and hosts, and points in time (`moment`). Constructors
//! refuse invalid values.

mod command_name;
mod moment;

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use command_name::{CommandClass, CommandName, CommandScope, UnknownCommand};
pub use moment::{Moment, SteadyClock};

/// The letters of random IDs.
const ID_LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// How alike a word and a known one are at least for the known one to be suggested, of 1.
const SIMILARITY_MIN: f64 = 0.6;
/// The longest name of a gateway, in bytes.
pub const GATEWAY_NAME_LEN_MAX: usize = 32;
/// The part of a name that is kept where a hash follows: 32 less `_` and six digits.
const DISCOVERED_KEPT_LEN: usize = 25;
const DISCOVERED_HASH_LEN: usize = 6;
/// The usual port of a device gateway's gRPC service.
pub const GATEWAY_PORT: u16 = 4000;
/// The usual port of a master gateway's gRPC service.
pub const MASTER_PORT: u16 = 4010;
/// The usual port of a device.
pub const DEVICE_PORT: u16 = 51_211;

/// A device's ID as printed on it and used on the wire. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DeviceId(u32);

impl DeviceId {
    /// The ID with this number; `None` for 0, which no device has.
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number on the wire.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why a text or number names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a device ID; it is a whole number from 1 to 4294967295")]
pub struct DeviceIdError(String);

impl<'de> Deserialize<'de> for DeviceId {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_u32(DeviceIdVisitor)
    }
}

struct DeviceIdVisitor;

impl Visitor<'_> for DeviceIdVisitor {
    type Value = DeviceId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a device ID, a whole number from 1 to 4294967295")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<DeviceId, E> {
        let id = u32::try_from(number).ok().and_then(DeviceId::new);
        id.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

impl FromStr for DeviceId {
    type Err = DeviceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if decimal { text.parse().ok() } else { None };
        number.and_then(Self::new).ok_or_else(|| DeviceIdError(text.to_owned()))
    }
}

/// A gateway's name: a level of the topics and a label of the metrics.
///
/// `[a-z][a-z0-9]*(_[a-z0-9]+)*`, at most 32 bytes, not `bridge` nor `bridge_...`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct GatewayName(Arc<str>);

impl Serialize for GatewayName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl GatewayName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no gateway's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayNameError {
    /// It is not of the form that topics and metrics need.
    #[error(
        "{0:?} is not a gateway name; it is lower-case letters and digits, begins with a letter, \
         with single underscores between words, at most {GATEWAY_NAME_LEN_MAX} characters"
    )]
    Form(String),
    /// It would collide with the bridge's own topics.
    #[error(
        "{0:?} is not a gateway name; \"bridge\" and what begins \"bridge_\" is the bridge's own"
    )]
    Reserved(String),
}

/// Whether a level of the topics belongs to bridges: `bridge`, or `bridge_<x>`.
pub fn is_for_bridges(text: &str) -> bool {
    text.strip_prefix("bridge").is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// Whether a text is lower-case words of letters and digits joined by single underscores.
pub fn is_snake_word(text: &str) -> bool {
    let alnum = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.split('_').all(|word| !word.is_empty() && word.bytes().all(alnum))
}

/// The candidate that is most like a word in any case, if they are alike enough for a typing error.
pub fn nearest<S: AsRef<str>>(word: &str, candidates: impl IntoIterator<Item = S>) -> Option<S> {
    let word = word.to_lowercase();
    let scored = candidates.into_iter().map(|candidate| {
        let lower = candidate.as_ref().to_lowercase();
        (strsim::normalized_damerau_levenshtein(&word, &lower), candidate)
    });
    let (score, best) = scored.max_by(|(left, _), (right, _)| left.total_cmp(right))?;
    (score >= SIMILARITY_MIN).then_some(best)
}

impl FromStr for GatewayName {
    type Err = GatewayNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !is_snake_word(text) || text.len() > GATEWAY_NAME_LEN_MAX {
            return Err(GatewayNameError::Form(text.to_owned()));
        }
        if is_for_bridges(text) {
            return Err(GatewayNameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for GatewayName {
    type Error = GatewayNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The name of a gateway that its master lists and the configuration does not name:
/// `<master>_<id>`, lower case, each run of other characters one `_`. Where that is no name, or one
/// that is taken, it is cut, and digits of the ID's SHA-256 follow.
pub fn discovered_name(
    master: &GatewayName,
    gateway_id: &str,
    is_taken: impl Fn(&GatewayName) -> bool,
) -> GatewayName {
    let slug = slug(&format!("{master}_{gateway_id}"));
    if let Some(name) = slug.parse().ok().filter(|name| !is_taken(name)) {
        return name;
    }
    let kept: String = slug.chars().take(DISCOVERED_KEPT_LEN).collect();
    let kept = kept.trim_end_matches('_');
    let digits = sha256(gateway_id);
    let names = (0..digits.len() - DISCOVERED_HASH_LEN).filter_map(|at| {
        let digits = digits.get(at..at + DISCOVERED_HASH_LEN)?;
        format!("{kept}_{digits}").parse().ok()
    });
    let mut names = names.peekable();
    let first = names.peek().cloned();
    // All being taken takes as many gateways as the hash has digits, named on purpose.
    names.find(|name| !is_taken(name)).or(first).unwrap_or_else(|| master.clone())
}

fn slug(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(str::to_ascii_lowercase).collect();
    words.join("_")
}

fn sha256(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a text cannot fail.
        _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A host and its port, as given to a resolver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl HostPort {
    /// Reads `host`, `host:port` or `[v6]:port`; `None` for anything else.
    pub fn parse(text: &str, port_default: u16) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']')?;
            host.contains(':').then_some(())?;
            (host, port)
        } else {
            text.split_at_checked(text.find(':').unwrap_or(text.len()))?
        };
        let decimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port.strip_prefix(':') {
            Some(digits) if decimal(digits) => digits.parse().ok()?,
            None if port.is_empty() => port_default,
            _ => return None,
        };
        (Self::is_host(host) && port != 0).then(|| Self { host: host.to_owned(), port })
    }

    /// Whether a text can be a DNS name or an IP address.
    pub fn is_host(text: &str) -> bool {
        if text.contains(':') {
            return text.parse::<Ipv6Addr>().is_ok();
        }
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(letter);
        // What looks like an IPv4 address has to be one.
        let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        text.len() <= 253
            && text.trim_end_matches('.').split('.').all(label)
            && (!numeric || text.parse::<Ipv4Addr>().is_ok())
    }
}

/// Whether a device can have this address.
pub fn is_device_address(ip: &Ipv4Addr) -> bool {
    !(ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast())
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// An ID of this length, made at random.
pub(crate) fn random_id(len: usize) -> String {
    let letter = || char::from(fastrand::choice(ID_LETTERS).copied().unwrap_or(b'a'));
    std::iter::repeat_with(letter).take(len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_names_are_topic_levels() {
        for good in ["lobby", "a", "a1_b2_3c", "floor_12"] {
            assert_eq!(good.parse::<GatewayName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(33);
        for bad in
            ["", "Lobby", "1a", "a__b", "_a", "a_", "a-b", "a/b", "a+", "bridge", "bridge_2", &long]
        {
            assert!(bad.parse::<GatewayName>().is_err(), "{bad:?}");
        }
        assert!("bridgehead".parse::<GatewayName>().is_ok());
    }

    #[test]
    fn hosts_have_ports() {
        for (text, shown) in [
            ("192.168.0.2:4000", "192.168.0.2:4000"),
            ("gateway.local", "gateway.local:4000"),
            ("[fd00::2]:4001", "[fd00::2]:4001"),
            ("[fd00::2]", "[fd00::2]:4000"),
        ] {
            assert_eq!(HostPort::parse(text, 4000).unwrap().to_string(), shown);
        }
        for bad in ["", ":4000", "a:", "a:0", "a:65536", "a b:1", "https://a:1", "fd00::2", "[a]:1"]
        {
            assert_eq!(HostPort::parse(bad, 4000), None, "{bad:?}");
        }
    }

    #[test]
    fn device_ids_are_decimal_and_not_zero() {
        assert_eq!("544114231".parse::<DeviceId>().unwrap().get(), 544_114_231);
        for bad in ["0", "", "-1", "+1", "4294967296", "0x10", "1.0"] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad:?}");
        }
    }

    fn name(gateway_id: &str, taken: &[&str]) -> String {
        let master: GatewayName = "campus".parse().unwrap();
        let is_taken =
            |name: &GatewayName| name.as_str() == "campus" || taken.contains(&name.as_str());
        discovered_name(&master, gateway_id, is_taken).to_string()
    }

    #[test]
    fn an_id_becomes_words() {
        for (id, expected) in [
            ("gateway1", "campus_gateway1"),
            ("Gateway-North", "campus_gateway_north"),
            ("--A..B--", "campus_a_b"),
            ("3rd floor", "campus_3rd_floor"),
        ] {
            assert_eq!(name(id, &[]), expected);
        }
    }

    #[test]
    fn invalid_or_used_names_get_digits_of_their_hash() {
        // printf '%s' ID | sha256sum
        assert_eq!(name("a", &["campus_a"]), "campus_a_ca9781");
        assert_eq!(name("a", &["campus_a", "campus_a_ca9781"]), "campus_a_a97811");
        let korean = name("\u{c815}\u{bb38}", &[]);
        assert!(korean.starts_with("campus_") && korean.len() == 13, "{korean}");
        assert_ne!(korean, name("\u{d6c4}\u{bb38}", &[]));
        let long = name("a-very-long-name-of-a-gateway", &[]);
        assert!(long.starts_with("campus_a_very_long_name_o_") && long.len() == 32, "{long}");
        let cut_at_the_end_of_a_word = name("a-very-long-name-x-gateway", &[]);
        assert!(cut_at_the_end_of_a_word.starts_with("campus_a_very_long_name_x_"));
    }
}
