//! TLS to the broker: the settings made from files, and its failures in plain words.
//!
//! May not connect anything; `dial` does. The files are read anew for every connection, so that a
//! renewed certificate is used without a restart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as TlsError, RootCertStore,
};

use super::fault::Fault;
use crate::net::{NO_HANDLES_REMEDY, no_handles_left};

/// The files of a TLS connection to the broker.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The authority that signed the broker's certificate; the system's roots where `None`.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, for brokers that want one; goes with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The private key of `cert_file`.
    pub key_file: Option<PathBuf>,
}

impl Tls {
    /// Reads the files and makes of them what a connection needs.
    pub(super) fn load(&self) -> Result<Arc<ClientConfig>, Fault> {
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Fault::Tls(format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(self.roots()?);
        let config = match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => {
                let chain = certificates("mqtt.cert_file", cert)?;
                let secret = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| unread("mqtt.key_file", key, &error, "private key"))?;
                builder.with_client_auth_cert(chain, secret).map_err(|error| unfit(key, &error))?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, Fault> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca_file {
            for certificate in certificates("mqtt.ca_file", path)? {
                roots.add(certificate).map_err(|error| {
                    let why = format!("{error}; put the CA certificate of the broker there");
                    unusable("mqtt.ca_file", path, why)
                })?;
            }
        } else {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let why = "this system has no trusted certificates (package ca-certificates); \
                           install them or set mqtt.ca_file";
                return Err(Fault::Tls(why.to_owned()));
            }
        }
        Ok(roots)
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let unread = |error| unread(key, path, &error, "certificate");
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(unread)?.collect();
    let found = found.map_err(unread)?;
    if found.is_empty() {
        return Err(unread(pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn unusable(key: &'static str, path: &Path, why: String) -> Fault {
    Fault::TlsFile { key, path: path.to_owned(), why }
}

/// A file that is not there, may not be read, or is not what it should be.
fn unread(key: &'static str, path: &Path, error: &pem::Error, what: &str) -> Fault {
    let why = match error {
        pem::Error::Io(error) if no_handles_left(error) => format!("{error}; {NO_HANDLES_REMEDY}"),
        pem::Error::Io(error) => match error.kind() {
            io::ErrorKind::NotFound => {
                format!("it does not exist; put it there, or correct {key}")
            }
            io::ErrorKind::PermissionDenied => {
                "it may not be read; let the user of the service read it".to_owned()
            }
            _ => format!("{error}; correct {key}"),
        },
        pem::Error::NoItemsFound => format!("it holds no {what} in PEM form; correct {key}"),
        error => format!("{error}; put the {what} in PEM form there again"),
    };
    unusable(key, path, why)
}

/// A key that cannot be used with its certificate.
fn unfit(key: &Path, error: &TlsError) -> Fault {
    let why = match error {
        TlsError::InconsistentKeys(_) => {
            "it is not the key of the certificate in mqtt.cert_file; name the two that were made \
             together"
                .to_owned()
        }
        error => format!("{error}; make a new key and certificate (RSA of 2048 bits, or ECDSA)"),
    };
    unusable("mqtt.key_file", key, why)
}

/// What a failed handshake means; `plain` is the same address without TLS.
pub(super) fn handshake_fault(
    settings: &Tls,
    broker: &str,
    host: &str,
    plain: &str,
    error: &io::Error,
) -> Fault {
    if let Some(cause) = tls_cause(error) {
        return Fault::Tls(words(settings, broker, host, plain, cause));
    }
    Fault::Tls(format!(
        "{broker} broke off the TLS handshake ({error}); if this port speaks plain MQTT, write \
         {plain} in mqtt.url"
    ))
}

/// The TLS library's own error, where one is inside.
pub(super) fn tls_cause(error: &io::Error) -> Option<&TlsError> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>())
}

fn words(settings: &Tls, broker: &str, host: &str, plain: &str, cause: &TlsError) -> String {
    match cause {
        TlsError::InvalidCertificate(what) => certificate_words(settings, broker, host, what),
        TlsError::InvalidMessage(_) => format!(
            "{broker} does not speak TLS; write {plain} in mqtt.url, or the broker's TLS port"
        ),
        TlsError::AlertReceived(alert) => alert_words(broker, *alert),
        other => format!("the TLS handshake with {broker} failed: {other}"),
    }
}

/// What a broker's alert means, in the handshake or right after it.
pub(super) fn alert_words(broker: &str, alert: AlertDescription) -> String {
    let wants_ours = "broker {} wants a client certificate";
    match alert {
        AlertDescription::CertificateRequired => {
            format!("{}; set mqtt.cert_file and mqtt.key_file", wants_ours.replace("{}", broker))
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::HandshakeFailure => format!(
            "broker {broker} refused the TLS handshake ({alert:?}); check mqtt.cert_file and \
             mqtt.key_file"
        ),
        other => format!("broker {broker} refused the TLS handshake ({other:?})"),
    }
}

/// A name as people write it: rustls gives `DnsName("broker.lan")` and `IpAddress(10.0.0.1)`.
fn bare(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(name).trim_matches('"')
}

fn certificate_words(settings: &Tls, broker: &str, host: &str, what: &CertificateError) -> String {
    match what {
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            format!(
                "the certificate of {broker} has no subject alternative name, and TLS takes no \
                 other for a name; make the broker a certificate with the subject alternative \
                 name {host}"
            )
        }
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "the certificate of {broker} is not for {host:?} but for {}; use one of these names \
             in mqtt.url, or give the broker a certificate with its name",
            presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", ")
        ),
        CertificateError::NotValidForName => format!(
            "the certificate of {broker} is not for {host:?}; use the name it was made for in \
             mqtt.url"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!(
            "the certificate of {broker} has expired (or this machine's clock is wrong); renew it \
             on the broker"
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => format!(
            "the certificate of {broker} is not valid yet; check the clocks of both machines"
        ),
        CertificateError::UnknownIssuer => match &settings.ca_file {
            Some(path) => format!(
                "the certificate of {broker} is not signed by the authority in mqtt.ca_file \
                 {path:?}; put the CA certificate of that broker there"
            ),
            None => format!(
                "the certificate of {broker} is signed by an authority this system does not \
                 trust; set mqtt.ca_file to the CA certificate of that broker"
            ),
        },
        other => format!("the certificate of {broker} cannot be accepted: {other:?}"),
    }
}
