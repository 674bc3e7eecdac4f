//! The texts of dial errors: the failure, its subject, and the remedy.

use std::fmt::{self, Formatter, Result};

use super::NO_HANDLES_REMEDY;
use super::broker_remedy::{without_tls, write_broker};
use super::error::{DialError, DialFailure};
use super::file_remedy::write_file;
use super::target::Peer;
use crate::ids::{GATEWAY_PORT, MASTER_PORT, Moment};

/// The terms for a gateway or a broker.
struct Terms<'a> {
    /// What was dialled.
    address: String,
    key: String,
    noun: &'static str,
    certificate: String,
    /// How a new certificate is made, where that is known.
    renewal: &'static str,
    peer: &'a Peer,
}

impl<'a> Terms<'a> {
    fn new(error: &'a DialError) -> Self {
        let peer = &error.peer;
        let (address, certificate) = match peer {
            Peer::Broker { url } => (url.clone(), format!("the certificate of {url}")),
            _ => (error.address.to_string(), "its certificate".to_owned()),
        };
        let renewal = match peer {
            Peer::Gateway(_) => " (gateway option -cs)",
            _ => "",
        };
        Self { address, key: peer.address_key(), noun: peer.noun(), certificate, renewal, peer }
    }

    const fn is_gateway(&self) -> bool {
        self.peer.is_gateway()
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if self.peer.is_gateway() {
            write!(f, "{}: ", self.peer)?;
        }
        match &*self.failure {
            DialFailure::File(failure) => write_file(&self.peer, failure, f),
            _ => write_failure(self, f),
        }
    }
}

fn write_failure(error: &DialError, f: &mut Formatter<'_>) -> Result {
    let terms = Terms::new(error);
    let Terms { address, key, noun, peer, .. } = &terms;
    match &*error.failure {
        DialFailure::NoSystemRoots(why) => write!(
            f,
            "the certificates that this system trusts cannot be read ({why}); install the package \
             ca-certificates, correct the environment, or set {}",
            peer.key("ca_file")
        ),
        DialFailure::ServerName(name) => write!(
            f,
            "{name:?} is neither a host name nor an IP address, so no certificate can contain it; \
             correct {}",
            if terms.is_gateway() { peer.key("server_name") } else { key.clone() }
        ),
        DialFailure::NoHandles(cause) => {
            write!(f, "{address} cannot be dialled ({cause}); {NO_HANDLES_REMEDY}")
        }
        DialFailure::HostNotFound(cause) => write!(
            f,
            "cannot find the host {:?} ({cause}); correct {key}, or check the name server",
            error.address.host
        ),
        DialFailure::LookupTimeout(after) => write!(
            f,
            "the name server did not answer for {:?} within {} s; check the network and the name \
             server, or write an IP address into {key}",
            error.address.host,
            after.as_secs_f32()
        ),
        DialFailure::Refused if terms.is_gateway() => write!(
            f,
            "{address} refused the connection; start the {noun}, correct {key}, or let the \
             {noun} listen on that address (by default it listens on localhost only: rpc_server \
             in its configuration)"
        ),
        DialFailure::Refused => write!(
            f,
            "nothing listens at {address} (connection refused); start the broker, or correct host \
             and port in {key}"
        ),
        DialFailure::Unreachable(cause) => {
            write!(f, "cannot reach {address} ({cause}); check {key} and the network")
        }
        DialFailure::ConnectTimeout(after) => write!(
            f,
            "{address} did not answer within {} s; check {key}, and that no firewall drops port {}",
            after.as_secs_f32(),
            error.address.port
        ),
        _ => write_handshake(error, &terms, f),
    }
}

/// What is wrong with the TLS handshake.
fn write_handshake(error: &DialError, terms: &Terms<'_>, f: &mut Formatter<'_>) -> Result {
    let Terms { address, key, noun, peer, .. } = terms;
    let (port, port_number) = (peer.expected_port(), peer.usual_port());
    match &*error.failure {
        DialFailure::HandshakeTimeout(after) => write!(
            f,
            "{address} accepts connections but did not answer the TLS handshake within {} s; it \
             hangs, or it is not the {port}",
            after.as_secs_f32()
        ),
        DialFailure::NotTls if terms.is_gateway() => write!(
            f,
            "{address} does not use TLS, as a {noun} always does; correct the port in {key} \
             (usually {port_number}), or remove a proxy that terminates TLS"
        ),
        DialFailure::NotTls
        | DialFailure::WebsocketTimeout(_)
        | DialFailure::NotWebsocket(_)
        | DialFailure::NoMqttOverWebsocket
        | DialFailure::NotHttp(_) => write_broker(&error.failure, address, f),
        DialFailure::NoCommonProtocol if !terms.is_gateway() => {
            write_broker(&error.failure, address, f)
        }
        DialFailure::NoCommonProtocol => write!(
            f,
            "{address} supports TLS but not HTTP/2, so it is not a {noun}'s gRPC port; correct the \
             port in {key} (usually {port_number})"
        ),
        DialFailure::HungUp(cause) => {
            write!(
                f,
                "{address} closed the connection during the TLS handshake ({cause}); the {noun} \
                 is just starting or stopping, or it is not the {port}"
            )?;
            match terms.is_gateway() {
                true => Ok(()),
                false => write!(f, ": if it is without TLS, write {}", without_tls(address)),
            }
        }
        DialFailure::ClientCertificateWanted if matches!(peer, Peer::Gateway(_)) => write!(
            f,
            "{address} requires a client certificate, as a master gateway does (port \
             {MASTER_PORT}); set {key} to a device gateway (port {GATEWAY_PORT}), or describe the \
             master gateway under [masters.NAME]"
        ),
        DialFailure::ClientCertificateWanted => write!(
            f,
            "{address} requires a client certificate; set {} and {}",
            peer.key("cert_file"),
            peer.key("key_file")
        ),
        DialFailure::ClientCertificateRefused(alert) => write!(
            f,
            "{address} refused the client certificate (alert {alert:?}); put one there that its \
             authority signed and that has not expired: {} and {}",
            peer.key("cert_file"),
            peer.key("key_file")
        ),
        DialFailure::NoCommonTls(cause) => write!(
            f,
            "no common version or cipher of TLS with {address} ({cause}); it must offer TLS 1.2 \
             or 1.3 with ECDHE"
        ),
        DialFailure::Tls(cause) => write!(f, "the TLS handshake with {address} failed ({cause})"),
        _ => write_certificate(error, terms, f),
    }
}

/// What is wrong with the peer's certificate.
fn write_certificate(error: &DialError, terms: &Terms<'_>, f: &mut Formatter<'_>) -> Result {
    let Terms { noun, certificate, renewal, .. } = terms;
    match &*error.failure {
        DialFailure::NameMismatch { expected, names } => write_names(terms, expected, names, f),
        DialFailure::WithoutSan { expected, subject } => write!(
            f,
            "{certificate} has no subject alternative name (only the subject {subject:?}), and \
             TLS no longer accepts the subject for a name; make a new server certificate with the \
             subject alternative name {expected}{renewal}"
        ),
        DialFailure::Version1 { expected } => write!(
            f,
            "{certificate} is of X.509 version 1, which TLS no longer accepts (as `openssl x509 \
             -req` makes without -extfile); make a new server certificate of version 3 with the \
             subject alternative name {expected}{renewal}"
        ),
        DialFailure::Expired { not_after, now } => write!(
            f,
            "{certificate} expired on {} and this machine's clock says {}; make a new server \
             certificate{renewal}, or set the clock if it is wrong",
            not_after.timestamp().strftime("%Y-%m-%d"),
            minute(*now)
        ),
        DialFailure::NotYetValid { not_before, now } => write!(
            f,
            "{certificate} is valid only from {}, and this machine's clock says {}; compare the \
             clocks of the {noun}'s machine and of this one",
            minute(*not_before),
            minute(*now)
        ),
        _ => write_issuer(error, terms, f),
    }
}

/// What is wrong with how the peer's certificate is signed.
fn write_issuer(error: &DialError, terms: &Terms<'_>, f: &mut Formatter<'_>) -> Result {
    let Terms { noun, certificate, renewal, peer, .. } = terms;
    match &*error.failure {
        DialFailure::UnknownIssuer { issuer, trusted: None } => write!(
            f,
            "{certificate} is signed by {issuer:?}, an authority that this system does not trust; \
             set {} to the CA certificate of that {noun}",
            peer.key("ca_file")
        ),
        DialFailure::UnknownIssuer { issuer, trusted: Some((path, trusted)) } => write!(
            f,
            "{certificate} was not signed by the CA in {} ({trusted:?}) but by {}; {}",
            path.display(),
            match issuer == trusted {
                true => "another one of the same name".to_owned(),
                false => format!("{issuer:?}"),
            },
            match peer {
                Peer::Gateway(_) | Peer::Master(_) =>
                    "copy ca.crt from the folder of the certificates that the gateway uses now",
                Peer::Broker { .. } => "put the CA certificate of that broker into mqtt.ca_file",
            }
        ),
        DialFailure::IsCa { subject } => write!(
            f,
            "it presents a CA's certificate ({subject:?}) as its own; make a server certificate \
             signed by that CA{renewal} and configure the {noun} to use that one"
        ),
        DialFailure::NotForServers => write!(
            f,
            "{certificate} is not one for servers (its extended key usage lacks serverAuth); make \
             a new server certificate{renewal}"
        ),
        DialFailure::WeakSignature => write!(
            f,
            "{certificate} is signed in a way that TLS no longer accepts (SHA-1, MD5, or RSA below \
             2048 bits); make a new one with SHA-256 and RSA of 2048 bits or ECDSA{renewal}"
        ),
        DialFailure::Unacceptable(cause) => write!(
            f,
            "the certificate of {} is not acceptable ({cause}); make a new server \
             certificate{renewal}",
            terms.address
        ),
        other => write!(f, "{other:?}"),
    }
}

fn write_names(
    terms: &Terms<'_>,
    expected: &str,
    names: &[String],
    f: &mut Formatter<'_>,
) -> Result {
    let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    write!(f, "{} names {}, not {expected}; ", terms.certificate, quoted.join(" and "))?;
    let usable = names.iter().find(|name| !name.starts_with('*'));
    match (usable, terms.is_gateway()) {
        (Some(name), true) => write!(f, "set {} = {name:?}", terms.peer.key("server_name")),
        (None, true) => write!(f, "set {} to a name that fits", terms.peer.key("server_name")),
        (_, false) => write!(
            f,
            "use one of these names in {}, or give the broker a certificate with the name \
             {expected}",
            terms.key
        ),
    }
}

fn minute(moment: Moment) -> String {
    moment.timestamp().strftime("%Y-%m-%d %H:%M UTC").to_string()
}
