//! The target of a connection, and its protocols.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::ids::{GATEWAY_PORT, GatewayName, HostPort, MASTER_PORT};

/// The port of MQTT over TLS.
const BROKER_PORT: u16 = 8883;

/// The other side of a connection, as messages and configuration keys name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A gateway of this name.
    Gateway(GatewayName),
    /// A gateway that is not configured, at this address: keys are options of `ctl`.
    Address(String),
    /// A master gateway of this name.
    Master(GatewayName),
    /// The broker at this URL.
    Broker {
        /// Without user and password.
        url: String,
    },
}

impl Peer {
    /// A key of its table in the configuration.
    pub(crate) fn key(&self, name: &str) -> String {
        match self {
            Self::Gateway(gateway) => format!("gateways.{gateway}.{name}"),
            Self::Address(_) => format!("--{}", name.replace('_', "-")),
            Self::Master(master) => format!("masters.{master}.{name}"),
            Self::Broker { .. } => format!("mqtt.{name}"),
        }
    }

    /// The configuration key of its address.
    pub(crate) fn address_key(&self) -> String {
        self.key(if self.is_gateway() { "address" } else { "url" })
    }

    /// Its name in the configuration, or its address or URL.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Gateway(name) | Self::Master(name) => name.as_str(),
            Self::Address(address) => address,
            Self::Broker { url } => url,
        }
    }

    /// What it is, in messages.
    pub(crate) const fn noun(&self) -> &'static str {
        match self {
            Self::Gateway(_) | Self::Address(_) => "gateway",
            Self::Master(_) => "master gateway",
            Self::Broker { .. } => "broker",
        }
    }

    /// The usual port of its service over TLS.
    pub(crate) const fn usual_port(&self) -> u16 {
        match self {
            Self::Gateway(_) | Self::Address(_) => GATEWAY_PORT,
            Self::Master(_) => MASTER_PORT,
            Self::Broker { .. } => BROKER_PORT,
        }
    }

    /// The port that its address has to have, in messages: "gateway's gRPC port (usually 4000)".
    pub(crate) fn expected_port(&self) -> String {
        let (noun, usual) = (self.noun(), self.usual_port());
        match self {
            Self::Broker { url } if url.starts_with("wss://") => {
                format!("{noun}'s port for WebSocket with TLS")
            }
            Self::Broker { .. } => format!("{noun}'s TLS port (usually {usual})"),
            _ => format!("{noun}'s gRPC port (usually {usual})"),
        }
    }

    /// The fields `gateway` and `master` of a log line, and the noun in its text.
    pub(crate) fn log_names(&self) -> (Option<&str>, Option<&str>, &'static str) {
        match self {
            Self::Gateway(_) | Self::Address(_) => (Some(self.name()), None, "gateway"),
            Self::Master(name) => (None, Some(name.as_str()), "master"),
            Self::Broker { .. } => (None, None, "broker"),
        }
    }

    /// Whether it is a device gateway or a master gateway.
    pub(crate) const fn is_gateway(&self) -> bool {
        !matches!(self, Self::Broker { .. })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(_) | Self::Address(_) => write!(f, "gateway {}", self.name()),
            Self::Master(master) => write!(f, "master {master}"),
            Self::Broker { url } => f.write_str(url),
        }
    }
}

/// What to connect to, and how.
#[derive(Clone, Debug)]
pub(crate) struct DialTarget {
    /// Who it is, for messages.
    pub(crate) peer: Peer,
    /// Where it listens.
    pub(crate) address: HostPort,
    /// TLS, unless the connection is plain.
    pub(crate) tls: Option<Tls>,
    /// The path of MQTT over WebSocket, unless the connection is not WebSocket.
    pub(crate) websocket_path: Option<String>,
    /// For DNS, TCP, TLS and WebSocket together; reading files has a deadline of its own.
    pub(crate) deadline: Duration,
}

impl DialTarget {
    /// What is dialled, in messages.
    pub(crate) fn shown(&self) -> String {
        match &self.peer {
            Peer::Broker { url } => url.clone(),
            _ => self.address.to_string(),
        }
    }

    pub(crate) fn has_client_certificate(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.files.key_file.is_some())
    }
}

/// The files of a TLS connection.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The authority that signed the peer's certificate; the system's roots where `None`.
    pub ca_file: Option<PathBuf>,
    /// The client certificate, for peers that require one; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The private key of `cert_file`.
    pub key_file: Option<PathBuf>,
}

/// How TLS is spoken with the peer.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// The files that authenticate both sides.
    pub(crate) files: TlsFiles,
    /// The name that the certificate must hold, where that is not the address's host.
    pub(crate) server_name: Option<String>,
    /// The protocols offered (ALPN).
    pub(crate) alpn: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_port_of_this_kind_of_peer() {
        let name: GatewayName = "lobby".parse().unwrap();
        let gateway = Peer::Gateway(name.clone()).expected_port();
        assert_eq!(gateway, "gateway's gRPC port (usually 4000)");
        let master = Peer::Master(name).expected_port();
        assert_eq!(master, "master gateway's gRPC port (usually 4010)");
    }
}
