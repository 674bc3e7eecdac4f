//! Reads addresses: of gateways, devices, the broker, and the web server.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::values::parsed;
use crate::ids::HostPort;

/// The ports of MQTT, and of MQTT over TLS.
const MQTT_PORTS: (u16, u16) = (1883, 8883);
/// The port of a G-SDK device gateway.
const GATEWAY_PORT: u16 = 4000;
/// The port that a Suprema device listens on.
pub(crate) const DEVICE_PORT: u16 = 51_211;

/// A gateway's address. TLS is always used, so there is no scheme.
pub(crate) fn gateway_address<'de, D: Deserializer<'de>>(source: D) -> Result<HostPort, D::Error> {
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
pub(crate) fn server_name<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    parsed(source, |text| {
        let error = || format!("{text:?} is not a host name; write the name in the certificate");
        HostPort::is_host(text).then(|| text.to_owned()).ok_or_else(error)
    })
}

/// Host names as the header `Host` has them, in lower case; `*` is any.
pub(crate) fn hosts<'de, D: Deserializer<'de>>(source: D) -> Result<BTreeSet<String>, D::Error> {
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
pub(crate) fn listen<'de, D: Deserializer<'de>>(source: D) -> Result<SocketAddr, D::Error> {
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
pub(crate) fn broker<'de, D: Deserializer<'de>>(source: D) -> Result<Broker, D::Error> {
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

/// An IPv4 address that a device can have.
pub(crate) fn device_ip<'de, D: Deserializer<'de>>(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::read_text;

    #[test]
    fn brokers_are_urls_without_secrets() {
        let shown = |text| read_text(broker, text).unwrap().to_string();
        assert_eq!(shown("mqtts://broker.lan"), "mqtts://broker.lan:8883");
        assert_eq!(shown("mqtt://[::1]:1884/"), "mqtt://[::1]:1884");
        for text in ["broker", "http://x", "mqtt://", "mqtt://h:0", "mqtt://h/p", "mqtt://h:+5"] {
            assert!(read_text(broker, text).is_err(), "{text}");
        }
        let error = read_text(broker, "mqtt://user:hunter2@broker").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn addresses_are_hosts_and_ports() {
        assert_eq!(read_text(gateway_address, "10.0.0.1").unwrap().to_string(), "10.0.0.1:4000");
        assert_eq!(read_text(gateway_address, "gw-1.lan:5000").unwrap().port, 5000);
        for text in ["", ":4000", "a b", "10.0.0.256", "h:65536", "h:", "https://h", "1:2:3"] {
            assert!(read_text(gateway_address, text).is_err(), "{text}");
        }
        for text in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::1", "reader.lan"] {
            assert!(read_text(device_ip, text).is_err(), "{text}");
        }
    }
}
