//! What is wrong with the certificate of a peer.

use std::path::PathBuf;

use tokio_rustls::rustls::CertificateError;

use super::error::{DialCode, DialError};
use super::target::{DialTarget, Peer};
use crate::certificate::Certificate;

/// What the certificate of a peer has to show.
pub(crate) struct ExpectedCertificate {
    pub(crate) name: String,
    /// The CA file and the name of its first authority.
    pub(crate) ca: Option<(PathBuf, String)>,
}

impl ExpectedCertificate {
    /// The error for a certificate that was refused.
    pub(crate) fn refused(
        &self,
        target: &DialTarget,
        cause: &CertificateError,
        presented: Certificate,
    ) -> DialError {
        let (code, text) = self.describe(target, cause, &presented);
        let names =
            if code == DialCode::CertificateNameMismatch { presented.names } else { vec![] };
        let certificate_expires_at = Some(presented.not_after);
        DialError { names, certificate_expires_at, ..DialError::new(target, code, text) }
    }

    fn describe(
        &self,
        target: &DialTarget,
        cause: &CertificateError,
        presented: &Certificate,
    ) -> (DialCode, String) {
        let (peer, now) = (&target.peer, super::wall_time());
        let (noun, expected) = (peer.noun(), &self.name);
        let certificate = match peer {
            Peer::Broker { url } => format!("the certificate of {url}"),
            _ => "its certificate".to_owned(),
        };
        // How a new one is made, where that is known.
        let renewal = match peer {
            Peer::Gateway(_) | Peer::Address(_) => " (gateway option -cs)",
            Peer::Master(_) | Peer::Broker { .. } => "",
        };
        let Certificate { subject, issuer, not_after, not_before, .. } = presented;
        match cause {
            _ if presented.is_version_1 => DialCode::CertificateV1.with(format!(
                "{certificate} is of X.509 version 1, which TLS no longer accepts (as `openssl \
                 x509 -req` makes without -extfile); make a new server certificate of version \
                 3 with the subject alternative name {expected}{renewal}"
            )),
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
                if *not_after < now =>
            {
                DialCode::CertificateExpired.with(format!(
                    "{certificate} expired on {} and this machine's clock says {}; make a new \
                     server certificate{renewal}, or set the clock if it is wrong",
                    not_after.utc_day(),
                    now.utc_minute()
                ))
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }
                if *not_before > now =>
            {
                DialCode::CertificateNotYetValid.with(format!(
                    "{certificate} is valid only from {}, and this machine's clock says {}; \
                     compare the clocks of the {noun}'s machine and of this one",
                    not_before.utc_minute(),
                    now.utc_minute()
                ))
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
                if presented.names.is_empty() =>
            {
                DialCode::CertificateWithoutSan.with(format!(
                    "{certificate} has no subject alternative name (only the subject {subject:?}), \
                     and TLS no longer accepts the subject for a name; make a new server \
                     certificate with the subject alternative name {expected}{renewal}"
                ))
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                DialCode::CertificateNameMismatch.with(format!(
                    "{certificate} {}",
                    other_names(peer, expected, &presented.names)
                ))
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature
                if !presented.is_ca =>
            {
                DialCode::CertificateUnknownIssuer
                    .with(format!("{certificate} {}", self.other_issuer(peer, issuer)))
            }
            _ if presented.is_ca => DialCode::CertificateIsCa.with(format!(
                "it presents a CA's certificate ({subject:?}) as its own; make a server \
                 certificate signed by that CA{renewal} and configure the {noun} to use that \
                 one"
            )),
            cause => {
                DialCode::CertificateInvalid.with(invalid(target, &certificate, cause, renewal))
            }
        }
    }

    /// The issuer in place of a trusted one, and the remedy.
    fn other_issuer(&self, peer: &Peer, issuer: &str) -> String {
        let Some((path, trusted)) = &self.ca else {
            return format!(
                "is signed by {issuer:?}, an authority that this system does not trust; set {} to \
                 the CA certificate of that {}",
                peer.key("ca_file"),
                peer.noun()
            );
        };
        format!(
            "was not signed by the CA in {} ({trusted:?}) but by {}; {}",
            path.display(),
            match issuer == trusted {
                true => "another one of the same name".to_owned(),
                false => format!("{issuer:?}"),
            },
            match peer.is_gateway() {
                true => "copy ca.crt from the folder of the certificates that the gateway uses now",
                false => "put the CA certificate of that broker into mqtt.ca_file",
            }
        )
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

fn invalid(
    target: &DialTarget,
    certificate: &str,
    cause: &CertificateError,
    renewal: &str,
) -> String {
    let cause = match cause {
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            return format!(
                "{certificate} is not one for servers (its extended key usage lacks serverAuth); \
                 make a new server certificate{renewal}"
            );
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            return format!(
                "{certificate} is signed in a way that TLS no longer accepts (SHA-1, MD5, or RSA \
                 below 2048 bits); make a new one with SHA-256 and RSA of 2048 bits or \
                 ECDSA{renewal}"
            );
        }
        // Its own text would be `Other(OtherError(...))`.
        CertificateError::Other(inner) => inner.0.to_string(),
        cause => cause.to_string(),
    };
    format!(
        "the certificate of {} is not acceptable ({cause}); make a new server certificate{renewal}",
        target.shown()
    )
}
