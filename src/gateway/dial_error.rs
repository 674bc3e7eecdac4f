//! Why no connection to a gateway came about, in the words of the person who can mend it.
//!
//! May not connect: `tls.rs` does. Every text says what is wrong and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::ids::{GatewayName, HostPort, Moment};
use crate::net::NO_HANDLES_REMEDY;

use super::options::{PORT_DEFAULT, PORT_MASTER};

/// A failed attempt to connect to a gateway.
#[derive(Debug)]
pub struct DialError {
    pub(super) gateway: GatewayName,
    pub(super) address: HostPort,
    pub(super) failure: DialFailure,
}

impl std::error::Error for DialError {}

/// What failed. The texts are made by [`DialError`], which knows gateway and address.
#[derive(Debug)]
pub(super) enum DialFailure {
    CaUnreadable { path: PathBuf, cause: io::Error },
    CaUnusable { path: PathBuf, problem: String },
    ServerName(String),
    NoHandles(io::Error),
    HostNotFound(io::Error),
    Refused,
    Unreachable(io::Error),
    ConnectTimeout(Duration),
    HandshakeTimeout(Duration),
    NotTls,
    NotHttp2,
    HungUp(io::Error),
    NameMismatch { expected: String, names: Vec<String> },
    WithoutSan { expected: String, subject: String },
    Expired { not_after: Moment, now: Moment },
    NotYetValid { not_before: Moment, now: Moment },
    UnknownIssuer { path: PathBuf, issuer: String, trusted: String },
    IsCa { subject: String },
    Unacceptable(String),
    ClientCertificateWanted,
    NoCommonTls(String),
    Tls(String),
}

impl DialError {
    /// A stable word for the failure, in snake_case.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match &self.failure {
            DialFailure::CaUnreadable { .. } => "ca_file_unreadable",
            DialFailure::CaUnusable { .. } => "ca_file_invalid",
            DialFailure::ServerName(_) => "server_name_invalid",
            DialFailure::NoHandles(_) => "no_file_handles",
            DialFailure::HostNotFound(_) => "host_not_found",
            DialFailure::Refused => "connection_refused",
            DialFailure::Unreachable(_) => "unreachable",
            DialFailure::ConnectTimeout(_) => "connect_timeout",
            DialFailure::HandshakeTimeout(_) => "tls_timeout",
            DialFailure::NotTls => "not_tls",
            DialFailure::NotHttp2 => "not_http2",
            DialFailure::HungUp(_) => "tls_closed",
            DialFailure::NameMismatch { .. } => "certificate_name_mismatch",
            DialFailure::WithoutSan { .. } => "certificate_without_san",
            DialFailure::Expired { .. } => "certificate_expired",
            DialFailure::NotYetValid { .. } => "certificate_not_yet_valid",
            DialFailure::UnknownIssuer { .. } => "certificate_unknown_issuer",
            DialFailure::IsCa { .. } => "certificate_is_ca",
            DialFailure::Unacceptable(_) => "certificate_invalid",
            DialFailure::ClientCertificateWanted => "client_certificate_required",
            DialFailure::NoCommonTls(_) => "tls_incompatible",
            DialFailure::Tls(_) => "tls_failed",
        }
    }

    /// Whether nobody answers at the address now, as while a gateway restarts or hangs.
    pub(super) const fn is_absence(&self) -> bool {
        matches!(
            self.failure,
            DialFailure::HostNotFound(_)
                | DialFailure::Refused
                | DialFailure::Unreachable(_)
                | DialFailure::ConnectTimeout(_)
                | DialFailure::HandshakeTimeout(_)
                | DialFailure::HungUp(_)
        )
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gateway, address, failure } = self;
        write!(f, "gateway {gateway}: ")?;
        match failure {
            DialFailure::CaUnreadable { .. } | DialFailure::CaUnusable { .. } => {
                write_ca_file(f, gateway, failure)
            }
            DialFailure::ServerName(name) => write!(
                f,
                "{name:?} is neither a host name nor an IP address, so no certificate can hold it; \
                 correct gateways.{gateway}.server_name"
            ),
            DialFailure::NoHandles(cause) => {
                write!(f, "{address} cannot be dialled ({cause}); {NO_HANDLES_REMEDY}")
            }
            DialFailure::HostNotFound(_)
            | DialFailure::Refused
            | DialFailure::Unreachable(_)
            | DialFailure::ConnectTimeout(_) => write_absence(f, gateway, address, failure),
            DialFailure::HandshakeTimeout(after) => write!(
                f,
                "{address} takes connections but did not answer the TLS handshake within {} s; \
                 it hangs, or it is not the gateway's gRPC port (usually {PORT_DEFAULT})",
                after.as_secs_f32()
            ),
            DialFailure::NotTls => write!(
                f,
                "{address} does not speak TLS, as a gateway always does; correct the port in \
                 gateways.{gateway}.address (usually {PORT_DEFAULT}), or take away a proxy that \
                 ends TLS"
            ),
            DialFailure::NotHttp2 => write!(
                f,
                "{address} speaks TLS but not HTTP/2, so it is not a gateway's gRPC port; correct \
                 the port in gateways.{gateway}.address (usually {PORT_DEFAULT})"
            ),
            DialFailure::HungUp(cause) => write!(
                f,
                "{address} closed the connection during the TLS handshake ({cause}); the gateway \
                 is just starting or stopping, or it is not its gRPC port (usually {PORT_DEFAULT})"
            ),
            DialFailure::ClientCertificateWanted => write!(
                f,
                "{address} asks for a client certificate, as a master gateway does (port \
                 {PORT_MASTER}); set gateways.{gateway}.address to a device gateway (port \
                 {PORT_DEFAULT})"
            ),
            DialFailure::NoCommonTls(cause) => write!(
                f,
                "no common version or cipher of TLS with {address} ({cause}); it must offer TLS \
                 1.2 or 1.3 with ECDHE"
            ),
            DialFailure::Tls(cause) => {
                write!(f, "the TLS handshake with {address} failed ({cause})")
            }
            certificate => write_certificate(f, gateway, address, certificate),
        }
    }
}

fn write_ca_file(
    f: &mut fmt::Formatter<'_>,
    gateway: &GatewayName,
    failure: &DialFailure,
) -> fmt::Result {
    let remedy = "copy ca.crt from the folder of the gateway's certificates";
    match failure {
        DialFailure::CaUnreadable { path, cause } => {
            let path = path.display();
            match cause.kind() {
                io::ErrorKind::NotFound => write!(
                    f,
                    "the CA file {path} does not exist; {remedy} there, or correct \
                     gateways.{gateway}.ca_file"
                ),
                io::ErrorKind::PermissionDenied => write!(
                    f,
                    "the CA file {path} may not be read by the user of this service; give it the \
                     right (chmod a+r; the file is no secret)"
                ),
                _ => write!(
                    f,
                    "cannot read the CA file {path} ({cause}); correct gateways.{gateway}.ca_file"
                ),
            }
        }
        DialFailure::CaUnusable { path, problem } => {
            write!(f, "the CA file {} {problem}; {remedy} again", path.display())
        }
        _ => Ok(()),
    }
}

fn write_absence(
    f: &mut fmt::Formatter<'_>,
    gateway: &GatewayName,
    address: &HostPort,
    failure: &DialFailure,
) -> fmt::Result {
    match failure {
        DialFailure::HostNotFound(cause) => write!(
            f,
            "cannot find the host {:?} ({cause}); correct gateways.{gateway}.address, or ask \
                 the name server",
            address.host
        ),
        DialFailure::Refused => write!(
            f,
            "{address} refused the connection; start the gateway, correct \
                 gateways.{gateway}.address, or let the gateway listen on that address (by default \
                 it listens on localhost only: rpc_server in its configuration)"
        ),
        DialFailure::Unreachable(cause) => write!(
            f,
            "cannot reach {address} ({cause}); check gateways.{gateway}.address and the network"
        ),
        DialFailure::ConnectTimeout(after) => write!(
            f,
            "{address} did not answer within {} s; check gateways.{gateway}.address, and that \
                 no firewall drops port {}",
            after.as_secs_f32(),
            address.port
        ),
        _ => Ok(()),
    }
}

fn write_certificate(
    f: &mut fmt::Formatter<'_>,
    gateway: &GatewayName,
    address: &HostPort,
    failure: &DialFailure,
) -> fmt::Result {
    match failure {
        DialFailure::NameMismatch { expected, names } => {
            let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
            write!(f, "its certificate names {}, not {expected}; ", quoted.join(" and "))?;
            match names.iter().find(|name| !name.starts_with('*')) {
                Some(name) => write!(f, "set gateways.{gateway}.server_name = {name:?}"),
                None => write!(f, "set gateways.{gateway}.server_name to a name that fits"),
            }
        }
        DialFailure::WithoutSan { expected, subject } => write!(
            f,
            "its certificate has no subject alternative name (only the subject {subject:?}), and \
             TLS no longer takes the subject for a name; make a new server certificate with the \
             subject alternative name {expected} (gateway option -cs)"
        ),
        DialFailure::Expired { not_after, now } => write!(
            f,
            "its certificate expired on {} and this machine's clock says {}; make a new server \
             certificate (gateway option -cs), or set the clock if it is wrong",
            day(*not_after),
            minute(*now)
        ),
        DialFailure::NotYetValid { not_before, now } => write!(
            f,
            "its certificate is valid only from {}, and this machine's clock says {}; compare the \
             clocks of the gateway's machine and of this one",
            minute(*not_before),
            minute(*now)
        ),
        DialFailure::UnknownIssuer { path, issuer, trusted } => write!(
            f,
            "its certificate was not signed by the CA in {} ({trusted:?}) but by {}; copy ca.crt \
             from the folder of the certificates that the gateway uses now",
            path.display(),
            match issuer == trusted {
                true => "another one of the same name".to_owned(),
                false => format!("{issuer:?}"),
            }
        ),
        DialFailure::IsCa { subject } => write!(
            f,
            "it shows a CA's certificate ({subject:?}) as its own; make a server certificate \
             signed by that CA (gateway option -cs) and let the gateway use that one"
        ),
        DialFailure::Unacceptable(cause) => write!(
            f,
            "the certificate of {address} is not acceptable ({cause}); make a new server \
             certificate (gateway option -cs)"
        ),
        _ => Ok(()),
    }
}

fn day(moment: Moment) -> String {
    shown(moment, "%Y-%m-%d")
}

fn minute(moment: Moment) -> String {
    shown(moment, "%Y-%m-%d %H:%M UTC")
}

fn shown(moment: Moment, format: &str) -> String {
    match jiff::Timestamp::from_millisecond(moment.millis()) {
        Ok(timestamp) => timestamp.strftime(format).to_string(),
        Err(_) => "an impossible date".to_owned(),
    }
}
