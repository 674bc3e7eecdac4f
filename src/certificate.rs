//! Reads the certificate of a gateway or broker for messages and metrics. rustls alone decides
//! whether it is trusted.

use std::net::IpAddr;

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::prelude::{
    FromDer, GeneralName, ParsedExtension, X509Certificate, X509Name, X509Version,
};

use crate::ids::Moment;

/// The contents of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its subject alternative names that TLS can match: DNS names and IP addresses.
    pub names: Vec<String>,
    /// Its subject's common name, or the whole subject where it has none.
    pub subject: String,
    /// The same of the CA that signed it.
    pub issuer: String,
    /// The first moment at which it is valid.
    pub not_before: Moment,
    /// The last moment at which it is valid.
    pub not_after: Moment,
    pub is_ca: bool,
    /// Whether it is of X.509 version 1, which has no subject alternative names.
    pub is_version_1: bool,
}

impl Certificate {
    /// Parses a certificate; `None` if it is not X.509.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let mut names = Vec::new();
        for extension in parsed.extensions() {
            if let ParsedExtension::SubjectAlternativeName(san) = extension.parsed_extension() {
                names.extend(san.general_names.iter().filter_map(usable_name));
            }
        }
        let moment = |seconds: i64| Moment::from_millis(seconds.saturating_mul(1000));
        Some(Self {
            names,
            subject: common_name(parsed.subject()),
            issuer: common_name(parsed.issuer()),
            not_before: moment(parsed.validity().not_before.timestamp()),
            not_after: moment(parsed.validity().not_after.timestamp()),
            is_ca: parsed.is_ca(),
            is_version_1: parsed.version() == X509Version::V1,
        })
    }
}

/// A name that TLS can match against the dialed host.
fn usable_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let ip = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            ip.ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

fn common_name(name: &X509Name<'_>) -> String {
    let first = name.iter_common_name().next().and_then(|cn| cn.as_str().ok());
    first.map_or_else(|| name.to_string(), str::to_owned)
}
