//! Reads addresses: of gateways, devices, the broker, and the web server.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::values::parsed;
use crate::ids::{GATEWAY_PORT, HostPort, MASTER_PORT, is_device_address};

/// The schemes of a broker, each with whether it is WebSocket and TLS, and its port.
const BROKER_SCHEMES: [(&str, bool, bool, u16); 4] = [
    ("mqtt", false, false, 1883),
    ("mqtts", false, true, 8883),
    ("ws", true, false, 80),
    ("wss", true, true, 443),
];
/// The path of MQTT over WebSocket, where a URL has none.
const WEBSOCKET_PATH: &str = "/mqtt";

/// A gateway's address.
pub(crate) fn gateway_address<'de, D, T>(source: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<HostPort>,
{
    parsed(source, |text| host_and_port(text, GATEWAY_PORT).map(T::from))
}

/// A master gateway's address.
pub(crate) fn master_address<'de, D: Deserializer<'de>>(source: D) -> Result<HostPort, D::Error> {
    parsed(source, |text| host_and_port(text, MASTER_PORT))
}

/// Whether an address has a user name, a password or a query.
fn may_hold_secret(text: &str) -> bool {
    text.contains(['@', '?'])
}

/// A wrong address as messages have it: not quoted if it may hold a secret.
fn quoted(text: &str) -> String {
    if may_hold_secret(text) { "the value".to_owned() } else { format!("{text:?}") }
}

/// TLS is always used, so there is no scheme.
fn host_and_port(text: &str, port_default: u16) -> Result<HostPort, String> {
    if text.contains("://") {
        let text = quoted(text);
        return Err(format!("{text} has a scheme; write host:port only, TLS is always used"));
    }
    HostPort::parse(text, port_default).ok_or_else(|| {
        let text = quoted(text);
        format!("{text} is not an address; write host:port, as in \"192.168.0.2:{port_default}\"")
    })
}

/// A name that a certificate can have.
pub(crate) fn server_name<'de, D, T>(source: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<String>,
{
    parsed(source, |text| {
        HostPort::is_host(text).then(|| text.to_owned().into()).ok_or_else(|| {
            format!("{} is not a host name; write the name in the certificate", quoted(text))
        })
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
        Err(D::Error::custom(format!("{} is not a host name; {remedy}", quoted(&host))))
    });
    hosts.collect()
}

/// An address to listen on; `:9925` is that port of every IPv4 address.
pub(crate) fn listen<'de, D, T>(source: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<SocketAddr>,
{
    parsed(source, |text| {
        let port = text.strip_prefix(':').and_then(|port| port.parse().ok());
        let everywhere = port.map(|port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        everywhere.or_else(|| text.parse().ok()).map(T::from).ok_or_else(|| {
            let text = quoted(text);
            format!("{text} is not an address to listen on; write it as in \"127.0.0.1:9925\"")
        })
    })
}

/// Networks (`10.0.0.0/8`) and single addresses.
pub(crate) fn networks<'de, D: Deserializer<'de>>(source: D) -> Result<BTreeSet<IpNet>, D::Error> {
    let networks = Vec::<String>::deserialize(source)?.into_iter().map(|text| {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| address()).map(|network: IpNet| network.trunc()).map_err(|_| {
            let remedy = "write it as in \"192.168.0.0/24\" or \"192.168.0.7\"";
            D::Error::custom(format!("{} is not a network or an address; {remedy}", quoted(&text)))
        })
    });
    networks.collect()
}

/// The broker's address, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Whether the URL begins with `mqtts://` or `wss://`.
    pub tls: bool,
    /// The broker's host and port.
    pub at: HostPort,
    /// The path of MQTT over WebSocket, if the URL begins with `ws://` or `wss://`.
    pub path: Option<String>,
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_ours = |(_, websocket, tls, _): &&(&str, bool, bool, u16)| {
            (*websocket, *tls) == (self.path.is_some(), self.tls)
        };
        let scheme = BROKER_SCHEMES.iter().find(is_ours).map_or("mqtt", |(scheme, ..)| *scheme);
        write!(f, "{scheme}://{}{}", self.at, self.path.as_deref().unwrap_or_default())
    }
}

/// The broker's URL. One with a user name, a password or a query is refused and not quoted: URLs
/// are logged, and the password has a key of its own.
pub(crate) fn broker<'de, D: Deserializer<'de>>(source: D) -> Result<BrokerAddress, D::Error> {
    parsed(source, |text| {
        if may_hold_secret(text) {
            return Err("contains a user name or password, or a query; move them to \
                        mqtt.username and mqtt.password_file, and leave only mqtts://host:port"
                .to_owned());
        }
        parse_broker(text).ok_or_else(|| {
            format!(
                "{text:?} is not a broker; write mqtt://host:port or, with TLS, \
                 mqtts://host:port; for WebSocket ws://host:port/path or wss://host:port/path"
            )
        })
    })
}

fn parse_broker(text: &str) -> Option<BrokerAddress> {
    let (scheme, rest) = text.split_once("://")?;
    let is_scheme = |(name, ..): &&(&str, bool, bool, u16)| name.eq_ignore_ascii_case(scheme);
    let &(_, websocket, tls, port) = BROKER_SCHEMES.iter().find(is_scheme)?;
    let (host, path) = match rest.find('/').filter(|_| websocket) {
        Some(at) => rest.split_at(at),
        None if websocket => (rest, WEBSOCKET_PATH),
        None => (rest.strip_suffix('/').unwrap_or(rest), ""),
    };
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:%".contains(c);
    let at = HostPort::parse(host, port).filter(|_| path.chars().all(is_path))?;
    Some(BrokerAddress { tls, at, path: websocket.then(|| path.to_owned()) })
}

/// Names of protocols that a TLS handshake offers.
pub(crate) fn alpn<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<String>, D::Error> {
    /// The limit of a name in the handshake (RFC 7301), in bytes.
    const LEN_MAX: usize = 255;
    // The rest of a list that is not complete.
    let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '[' | ']' | '"' | '\'');
    let is_name = |name: &str| (1..=LEN_MAX).contains(&name.len()) && name.chars().all(allowed);
    let names = Vec::<String>::deserialize(source)?;
    match names.iter().find(|name| !is_name(name)) {
        Some(name) => Err(D::Error::custom(format!(
            "{name:?} is not the name of a protocol; write 1 to {LEN_MAX} letters, digits and \
             marks other than brackets and quotes, as in [\"mqtt\"]"
        ))),
        None => Ok(names),
    }
}

/// An IPv4 address that a device can have.
pub(crate) fn device_ip<'de, D: Deserializer<'de>>(
    source: D,
) -> Result<Option<Ipv4Addr>, D::Error> {
    parsed(source, |text| {
        let ip = text.parse().ok().filter(is_device_address);
        ip.map(Some).ok_or_else(|| {
            let text = quoted(text);
            format!("{text} is not a device's IPv4 address; write it as in \"192.168.0.104\"")
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
        assert_eq!(shown("ws://broker"), "ws://broker:80/mqtt");
        assert_eq!(shown("WSS://broker/"), "wss://broker:443/");
        assert_eq!(shown("wss://[::1]:9001/a/b%20c"), "wss://[::1]:9001/a/b%20c");
        for text in [
            "broker",
            "http://x",
            "mqtt://",
            "mqtt://h:0",
            "mqtt://h/p",
            "mqtt://h:+5",
            "ws://",
            "ws:///mqtt",
            "ws://h:0/mqtt",
            "ws://h/a b",
            "ws://h/mqtt?token=x",
            "ws://h/mqtt#x",
        ] {
            assert!(read_text(broker, text).is_err(), "{text}");
        }
        let error = read_text(broker, "mqtt://user:hunter2@broker").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn addresses_are_hosts_and_ports() {
        let gateway_address = gateway_address::<_, HostPort>;
        assert_eq!(read_text(gateway_address, "10.0.0.1").unwrap().to_string(), "10.0.0.1:4000");
        assert_eq!(read_text(master_address, "10.0.0.1").unwrap().to_string(), "10.0.0.1:4010");
        assert_eq!(read_text(gateway_address, "gw-1.lan:5000").unwrap().port, 5000);
        for text in ["", ":4000", "a b", "10.0.0.256", "h:65536", "h:", "https://h", "1:2:3"] {
            assert!(read_text(gateway_address, text).is_err(), "{text}");
        }
        for text in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::1", "reader.lan"] {
            assert!(read_text(device_ip, text).is_err(), "{text}");
        }
    }
}
