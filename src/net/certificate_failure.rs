//! What is wrong with the certificate of a peer.

use std::path::PathBuf;

use super::code::DialCode;
use super::target::Peer;
use crate::ids::Moment;

/// What is wrong with the peer's certificate.
#[derive(Debug)]
pub(crate) enum CertificateFailure {
    NameMismatch { expected: String, names: Vec<String> },
    WithoutSan { expected: String, subject: String },
    Version1 { expected: String },
    Expired { not_after: Moment, now: Moment },
    NotYetValid { not_before: Moment, now: Moment },
    UnknownIssuer { issuer: String, trusted: Option<(PathBuf, String)> },
    IsCa { subject: String },
    NotForServers,
    WeakSignature,
    Unacceptable(String),
}

impl CertificateFailure {
    /// Its code, and its text for this peer. `address`: what was dialled.
    pub(crate) fn describe(&self, peer: &Peer, address: &str) -> (DialCode, String) {
        let noun = peer.noun();
        let certificate = match peer {
            Peer::Broker { url } => format!("the certificate of {url}"),
            _ => "its certificate".to_owned(),
        };
        // How a new one is made, where that is known.
        let renewal = match peer {
            Peer::Gateway(_) | Peer::Address(_) => " (gateway option -cs)",
            Peer::Master(_) | Peer::Broker { .. } => "",
        };
        match self {
            Self::NameMismatch { expected, names } => DialCode::CertificateNameMismatch
                .with(format!("{certificate} {}", other_names(peer, expected, names))),
            Self::WithoutSan { expected, subject } => DialCode::CertificateWithoutSan.with(format!(
                "{certificate} has no subject alternative name (only the subject {subject:?}), \
                 and TLS no longer accepts the subject for a name; make a new server certificate \
                 with the subject alternative name {expected}{renewal}"
            )),
            Self::Version1 { expected } => DialCode::CertificateV1.with(format!(
                "{certificate} is of X.509 version 1, which TLS no longer accepts (as `openssl \
                 x509 -req` makes without -extfile); make a new server certificate of version 3 \
                 with the subject alternative name {expected}{renewal}"
            )),
            Self::Expired { not_after, now } => DialCode::CertificateExpired.with(format!(
                "{certificate} expired on {} and this machine's clock says {}; make a new server \
                 certificate{renewal}, or set the clock if it is wrong",
                not_after.utc_day(),
                now.utc_minute()
            )),
            Self::NotYetValid { not_before, now } => DialCode::CertificateNotYetValid.with(format!(
                "{certificate} is valid only from {}, and this machine's clock says {}; compare \
                 the clocks of the {noun}'s machine and of this one",
                not_before.utc_minute(),
                now.utc_minute()
            )),
            Self::UnknownIssuer { issuer, trusted: Some((path, trusted)) } => {
                DialCode::CertificateUnknownIssuer.with(format!(
                    "{certificate} was not signed by the CA in {} ({trusted:?}) but by {}; {}",
                    path.display(),
                    match issuer == trusted {
                        true => "another one of the same name".to_owned(),
                        false => format!("{issuer:?}"),
                    },
                    ca_source(peer)
                ))
            }
            Self::UnknownIssuer { issuer, trusted: None } => {
                DialCode::CertificateUnknownIssuer.with(format!(
                    "{certificate} is signed by {issuer:?}, an authority that this system does \
                     not trust; set {} to the CA certificate of that {noun}",
                    peer.key("ca_file")
                ))
            }
            Self::IsCa { subject } => DialCode::CertificateIsCa.with(format!(
                "it presents a CA's certificate ({subject:?}) as its own; make a server \
                 certificate signed by that CA{renewal} and configure the {noun} to use that one"
            )),
            Self::NotForServers => DialCode::CertificateInvalid.with(format!(
                "{certificate} is not one for servers (its extended key usage lacks serverAuth); \
                 make a new server certificate{renewal}"
            )),
            Self::WeakSignature => DialCode::CertificateInvalid.with(format!(
                "{certificate} is signed in a way that TLS no longer accepts (SHA-1, MD5, or RSA \
                 below 2048 bits); make a new one with SHA-256 and RSA of 2048 bits or \
                 ECDSA{renewal}"
            )),
            Self::Unacceptable(cause) => DialCode::CertificateInvalid.with(format!(
                "the certificate of {address} is not acceptable ({cause}); make a new server \
                 certificate{renewal}"
            )),
        }
    }
}

/// The remedy for a certificate that another CA signed.
const fn ca_source(peer: &Peer) -> &'static str {
    match peer {
        Peer::Gateway(_) | Peer::Address(_) | Peer::Master(_) => {
            "copy ca.crt from the folder of the certificates that the gateway uses now"
        }
        Peer::Broker { .. } => "put the CA certificate of that broker into mqtt.ca_file",
    }
}

/// The names of a certificate in place of the expected one, and the remedy.
fn other_names(peer: &Peer, expected: &str, names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    let usable = names.iter().find(|name| !name.starts_with('*'));
    let remedy = match (usable, peer.is_gateway()) {
        (Some(name), true) => {
            let equals = if matches!(peer, Peer::Address(_)) { "" } else { " =" };
            format!("set {}{equals} {name:?}", peer.key("server_name"))
        }
        (None, true) => format!("set {} to a name that fits", peer.key("server_name")),
        (_, false) => format!(
            "use one of these names in {}, or give the broker a certificate with the name \
             {expected}",
            peer.address_key()
        ),
    };
    format!("names {}, not {expected}; {remedy}", quoted.join(" and "))
}
