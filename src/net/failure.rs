//! What fails when a connection is opened, each with its code and its text: the failure, its
//! subject, and the remedy.

use std::io;
use std::time::Duration;

use tokio_rustls::rustls::AlertDescription;

use super::certificate_failure::CertificateFailure;
use super::code::DialCode;
use super::file_failure::FileFailure;
use super::target::{DialTarget, Peer};
use super::{NO_HANDLES_REMEDY, no_handles_left};
use crate::ids::{GATEWAY_PORT, MASTER_PORT, Moment};

#[derive(Debug)]
pub(crate) enum DialFailure {
    File(FileFailure),
    NoSystemRoots(String),
    ServerName(String),
    NoHandles(io::Error),
    HostNotFound(io::Error),
    LookupTimeout(Duration),
    Refused,
    Unreachable(io::Error),
    ConnectTimeout(Duration),
    Tls(TlsFailure),
    Certificate {
        failure: CertificateFailure,
        /// When the certificate that was presented ends.
        not_after: Moment,
    },
    Websocket(WebsocketFailure),
}

/// What failed in the TLS handshake.
#[derive(Debug)]
pub(crate) enum TlsFailure {
    Timeout(Duration),
    NotTls,
    NoCommonProtocol,
    HungUp(io::Error),
    ClientCertificateWanted,
    ClientCertificateRefused(AlertDescription),
    NoCommonTls(String),
    Other(String),
}

/// What failed in the WebSocket handshake.
#[derive(Debug)]
pub(crate) enum WebsocketFailure {
    Timeout(Duration),
    /// It answers as a web server without WebSocket: its words.
    NotWebsocket(String),
    NoMqtt,
    NotHttp(String),
}

impl DialFailure {
    /// Of a system call that was to connect.
    pub(crate) fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ if no_handles_left(&error) => Self::NoHandles(error),
            _ => Self::Unreachable(error),
        }
    }

    /// Its code, and its text for this target.
    pub(crate) fn describe(&self, target: &DialTarget) -> (DialCode, String) {
        let DialTarget { peer, address: at, .. } = target;
        let address = &match peer {
            Peer::Broker { url } => url.clone(),
            _ => at.to_string(),
        };
        let (key, noun) = (peer.address_key(), peer.noun());
        match self {
            Self::File(failure) => failure.describe(peer),
            Self::NoSystemRoots(why) => DialCode::NoSystemRoots.with(format!(
                "the certificates that this system trusts cannot be read ({why}); install the \
                 package ca-certificates, correct the environment, or set {}",
                peer.key("ca_file")
            )),
            Self::ServerName(name) => DialCode::ServerNameInvalid.with(format!(
                "{name:?} is neither a host name nor an IP address, so no certificate can contain \
                 it; correct {}",
                if peer.is_gateway() { peer.key("server_name") } else { key }
            )),
            Self::NoHandles(cause) => DialCode::NoFileHandles
                .with(format!("{address} cannot be dialled ({cause}); {NO_HANDLES_REMEDY}")),
            Self::HostNotFound(cause) => DialCode::HostNotFound.with(format!(
                "cannot find the host {:?} ({cause}); correct {key}, or check the name server",
                at.host
            )),
            Self::LookupTimeout(after) => DialCode::LookupTimeout.with(format!(
                "the name server did not answer for {:?} within {} s; check the network and the \
                 name server, or write an IP address into {key}",
                at.host,
                after.as_secs_f32()
            )),
            Self::Refused if peer.is_gateway() => DialCode::ConnectionRefused.with(format!(
                "{address} refused the connection; start the {noun}, correct {key}, or let the \
                 {noun} listen on that address (by default it listens on localhost only: \
                 rpc_server in its configuration)"
            )),
            Self::Refused => DialCode::ConnectionRefused.with(format!(
                "nothing listens at {address} (connection refused); start the broker, or correct \
                 host and port in {key}"
            )),
            Self::Unreachable(cause) => DialCode::Unreachable
                .with(format!("cannot reach {address} ({cause}); check {key} and the network")),
            Self::ConnectTimeout(after) => DialCode::ConnectTimeout.with(format!(
                "{address} did not answer within {} s; check {key}, and that no firewall drops \
                 port {}",
                after.as_secs_f32(),
                at.port
            )),
            Self::Tls(failure) => failure.describe(peer, address),
            Self::Certificate { failure, .. } => failure.describe(peer, address),
            Self::Websocket(failure) => failure.describe(address),
        }
    }
}

impl From<FileFailure> for DialFailure {
    fn from(failure: FileFailure) -> Self {
        Self::File(failure)
    }
}

impl TlsFailure {
    fn describe(&self, peer: &Peer, address: &str) -> (DialCode, String) {
        let (key, noun) = (peer.address_key(), peer.noun());
        let (port, port_number) = (peer.expected_port(), peer.usual_port());
        match self {
            Self::Timeout(after) => DialCode::TlsTimeout.with(format!(
                "{address} accepts connections but did not answer the TLS handshake within {} s; \
                 it hangs, or it is not the {port}",
                after.as_secs_f32()
            )),
            Self::NotTls if peer.is_gateway() => DialCode::NotTls.with(format!(
                "{address} does not use TLS, as a {noun} always does; correct the port in {key} \
                 (usually {port_number}), or remove a proxy that terminates TLS"
            )),
            Self::NotTls => DialCode::NotTls.with(format!(
                "{address} does not use TLS; write {} in mqtt.url, or the broker's port for TLS",
                without_tls(address)
            )),
            Self::NoCommonProtocol if peer.is_gateway() => DialCode::NotHttp2.with(format!(
                "{address} supports TLS but not HTTP/2, so it is not a {noun}'s gRPC port; \
                 correct the port in {key} (usually {port_number})"
            )),
            Self::NoCommonProtocol => DialCode::AlpnRefused.with(format!(
                "{address} refused the protocols that the TLS handshake offers (ALPN); correct \
                 mqtt.alpn, or remove it"
            )),
            Self::HungUp(cause) => DialCode::TlsClosed.with(format!(
                "{address} closed the connection during the TLS handshake ({cause}); the {noun} \
                 is just starting or stopping, or it is not the {port}{}",
                match peer.is_gateway() {
                    true => String::new(),
                    false => format!(": if it is without TLS, write {}", without_tls(address)),
                }
            )),
            Self::ClientCertificateWanted => DialCode::ClientCertificateRequired.with(match peer {
                Peer::Gateway(_) | Peer::Address(_) => format!(
                    "{address} requires a client certificate, as a master gateway does (port \
                     {MASTER_PORT}); set {key} to a device gateway (port {GATEWAY_PORT}), or \
                     describe the master gateway under [masters.NAME]"
                ),
                _ => format!(
                    "{address} requires a client certificate; set {} and {}",
                    peer.key("cert_file"),
                    peer.key("key_file")
                ),
            }),
            Self::ClientCertificateRefused(alert) => {
                DialCode::ClientCertificateRefused.with(format!(
                    "{address} refused the client certificate (alert {alert:?}); put one there \
                     that its authority signed and that has not expired: {} and {}",
                    peer.key("cert_file"),
                    peer.key("key_file")
                ))
            }
            Self::NoCommonTls(cause) => DialCode::TlsIncompatible.with(format!(
                "no common version or cipher of TLS with {address} ({cause}); it must offer TLS \
                 1.2 or 1.3 with ECDHE"
            )),
            Self::Other(cause) => DialCode::TlsFailed
                .with(format!("the TLS handshake with {address} failed ({cause})")),
        }
    }
}

impl WebsocketFailure {
    fn describe(&self, url: &str) -> (DialCode, String) {
        match self {
            Self::Timeout(after) => DialCode::WebsocketTimeout.with(format!(
                "{url} accepts connections but did not answer the WebSocket handshake within {} \
                 s; it hangs, or it is not the broker's port for WebSocket: correct mqtt.url",
                after.as_secs_f32()
            )),
            Self::NotWebsocket(answer) => DialCode::NotWebsocket.with(format!(
                "{url} answers plain HTTP ({answer}), not WebSocket; correct port and path in \
                 mqtt.url to where the broker serves WebSocket (mosquitto: protocol websockets)"
            )),
            Self::NoMqtt => DialCode::NotWebsocket.with(format!(
                "{url} supports WebSocket but not its sub-protocol mqtt; correct the path in \
                 mqtt.url to the one where the broker serves MQTT"
            )),
            Self::NotHttp(cause) => DialCode::NotWebsocket.with(format!(
                "{url} does not answer the WebSocket handshake ({cause}); correct the port in \
                 mqtt.url, or write there {}",
                match url.starts_with("wss://") {
                    true => "mqtts:// if it is a port without WebSocket",
                    false => "wss:// if it uses TLS, or mqtt:// if it is a port without WebSocket",
                }
            )),
        }
    }
}

/// The broker's URL without TLS.
fn without_tls(url: &str) -> String {
    url.replacen("s://", "://", 1)
}
