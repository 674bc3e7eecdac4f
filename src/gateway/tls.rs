//! The way to a gateway: TCP, then TLS against its private CA.
//!
//! May not speak HTTP/2: `channel.rs` does. rustls decides whether a certificate is to be trusted;
//! what is our own here is only to keep the certificate, so that a refusal can be explained.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError,
    RootCertStore, SignatureScheme, version,
};
use tokio_rustls::{TlsConnector, rustls};

use crate::certificate::Certificate;
use crate::ids::Moment;
use crate::net::{TcpStream, no_handles_left};

use super::dial_error::{DialError, DialFailure};
use super::life::{Life, Living};
use super::options::GatewayOptions;

/// A CA file is a few kilobytes; a larger file is not one, and is not to fill the memory.
const CA_FILE_LEN_MAX: usize = 1024 * 1024;

/// A connection to a gateway whose certificate was accepted.
pub(super) struct Dialled {
    pub(super) socket: TlsStream<Living<TcpStream>>,
    /// The certificate the gateway showed, where it could be read.
    pub(super) certificate: Option<Certificate>,
    /// Whether it has asked for one of ours.
    pub(super) ours_asked: bool,
}

/// Connects to a gateway. The CA file is read anew each time, so that a mended one is taken up.
///
/// # Errors
/// When the CA file is of no use, nobody answers in time, or the certificate is not acceptable.
pub(super) async fn dial(options: &GatewayOptions, life: &Arc<Life>) -> Result<Dialled, DialError> {
    let gateway = options.name.clone();
    let address = options.address.clone();
    dial_or_fail(options, life).await.map_err(|failure| DialError { gateway, address, failure })
}

async fn dial_or_fail(options: &GatewayOptions, life: &Arc<Life>) -> Result<Dialled, DialFailure> {
    let expected = options.server_name.as_deref().unwrap_or_else(|| &options.address.host);
    let server_name = ServerName::try_from(expected.to_owned())
        .map_err(|_| DialFailure::ServerName(expected.to_owned()))?;
    let trusted = Trusted::read(&options.ca_file)?;
    let patience = options.timing.dial;
    let until = Instant::now() + patience;
    let socket = timeout_at(until, connect_tcp(options))
        .await
        .map_err(|_| DialFailure::ConnectTimeout(patience))??;
    let verifier = Arc::new(trusted.verifier(&options.ca_file)?);
    let ours = Arc::new(Ours::default());
    let config = client_config(verifier.clone(), ours.clone())?;
    let connector = TlsConnector::from(Arc::new(config));
    let handshake = connector.connect(server_name, Living::new(socket, life.clone()));
    let outcome =
        timeout_at(until, handshake).await.map_err(|_| DialFailure::HandshakeTimeout(patience))?;
    let certificate = verifier.shown();
    let ours_asked = ours.asked.load(Ordering::Relaxed);
    match outcome {
        Ok(socket) => Ok(Dialled { socket, certificate, ours_asked }),
        Err(error) => {
            let (path, trusted) = (options.ca_file.as_path(), trusted.subject.as_str());
            let case = Case { expected, path, trusted, ours_asked };
            Err(case.explain(error, certificate))
        }
    }
}

async fn connect_tcp(options: &GatewayOptions) -> Result<TcpStream, DialFailure> {
    let (host, port) = (options.address.host.as_str(), options.address.port);
    let candidates = tokio::net::lookup_host((host, port))
        .await
        .map_err(|cause| by_io(cause, DialFailure::HostNotFound))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in candidates {
        match TcpStream::connect(candidate).await {
            Ok(socket) => {
                // Calls are small: they are not to wait for more to send.
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(match last.kind() {
        io::ErrorKind::ConnectionRefused => DialFailure::Refused,
        io::ErrorKind::NotFound => DialFailure::HostNotFound(last),
        _ => by_io(last, DialFailure::Unreachable),
    })
}

/// What failed, unless it only did so because nothing can be opened any more.
fn by_io(cause: io::Error, failure: impl FnOnce(io::Error) -> DialFailure) -> DialFailure {
    if no_handles_left(&cause) { DialFailure::NoHandles(cause) } else { failure(cause) }
}

fn client_config(verifier: Arc<Recorder>, ours: Arc<Ours>) -> Result<ClientConfig, DialFailure> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| DialFailure::Tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(ours);
    // A server that knows no ALPN ignores this, and HTTP/2 is spoken all the same.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The CA whose signature is taken.
struct Trusted {
    roots: RootCertStore,
    /// The CA's name, for messages.
    subject: String,
}

impl Trusted {
    fn read(path: &Path) -> Result<Self, DialFailure> {
        let bytes = std::fs::read(path).map_err(|cause| {
            by_io(cause, |cause| DialFailure::CaUnreadable { path: path.to_owned(), cause })
        })?;
        Self::parse(&bytes)
            .map_err(|problem| DialFailure::CaUnusable { path: path.to_owned(), problem })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.trim_ascii().is_empty() {
            return Err("is empty".to_owned());
        }
        if bytes.len() > CA_FILE_LEN_MAX {
            return Err("is larger than any certificate".to_owned());
        }
        let mut roots = RootCertStore::empty();
        let mut subject = None;
        for der in CertificateDer::pem_slice_iter(bytes) {
            let der = der.map_err(|error| format!("is damaged ({error})"))?;
            let certificate =
                Certificate::read(&der).ok_or("holds a certificate that is damaged")?;
            roots
                .add(der)
                .map_err(|error| format!("holds a certificate that cannot be used ({error})"))?;
            subject.get_or_insert(certificate.subject);
        }
        match subject {
            Some(subject) => Ok(Self { roots, subject }),
            None => Err(what_instead(bytes)),
        }
    }

    fn verifier(&self, path: &Path) -> Result<Recorder, DialFailure> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(self.roots.clone());
        let inner = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| DialFailure::CaUnusable {
                path: path.to_owned(),
                problem: format!("cannot be used ({error})"),
            })?;
        Ok(Recorder { inner, provider, shown: Mutex::new(None) })
    }
}

/// What a CA file without a PEM certificate holds.
fn what_instead(bytes: &[u8]) -> String {
    let contains = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    if bytes.first() == Some(&0x30) {
        // The first byte of every DER certificate: a sequence.
        "is in DER form, not PEM (openssl x509 -inform der -in F -out ca.crt turns it)".to_owned()
    } else if contains(b"PRIVATE KEY-----") {
        "holds a private key, not a certificate".to_owned()
    } else {
        "holds no certificate (no line \"-----BEGIN CERTIFICATE-----\")".to_owned()
    }
}

/// Decides as rustls does, and keeps the certificate that was shown.
#[derive(Debug)]
struct Recorder {
    inner: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    shown: Mutex<Option<Certificate>>,
}

impl Recorder {
    fn shown(&self) -> Option<Certificate> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let shown = Certificate::read(end_entity);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Has no certificate of ours to show, and keeps whether one was asked for: the alert that says so
/// may be overtaken by the end of the connection.
#[derive(Debug, Default)]
struct Ours {
    asked: AtomicBool,
}

impl ResolvesClientCert for Ours {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// What a failed handshake has to be compared with.
struct Case<'a> {
    expected: &'a str,
    path: &'a Path,
    trusted: &'a str,
    ours_asked: bool,
}

impl Case<'_> {
    fn explain(&self, error: io::Error, shown: Option<Certificate>) -> DialFailure {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) else {
            return match self.ours_asked {
                true => DialFailure::ClientCertificateWanted,
                false => DialFailure::HungUp(error),
            };
        };
        match (tls, shown) {
            (TlsError::InvalidCertificate(cause), Some(shown)) => self.certificate(cause, shown),
            (TlsError::InvalidMessage(_), None) => DialFailure::NotTls,
            (TlsError::AlertReceived(alert), _) if CERTIFICATE_ALERTS.contains(alert) => {
                DialFailure::ClientCertificateWanted
            }
            (
                TlsError::AlertReceived(AlertDescription::NoApplicationProtocol)
                | TlsError::NoApplicationProtocol,
                _,
            ) => DialFailure::NotHttp2,
            (TlsError::AlertReceived(_) | TlsError::PeerIncompatible(_), _) => {
                DialFailure::NoCommonTls(tls.to_string())
            }
            _ => DialFailure::Tls(tls.to_string()),
        }
    }

    fn certificate(&self, cause: &CertificateError, shown: Certificate) -> DialFailure {
        match cause {
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
                if shown.not_after < now() =>
            {
                DialFailure::Expired { not_after: shown.not_after, now: now() }
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }
                if shown.not_before > now() =>
            {
                DialFailure::NotYetValid { not_before: shown.not_before, now: now() }
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                let expected = self.expected.to_owned();
                if shown.names.is_empty() {
                    DialFailure::WithoutSan { expected, subject: shown.subject }
                } else {
                    DialFailure::NameMismatch { expected, names: shown.names }
                }
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature if !shown.is_ca => {
                DialFailure::UnknownIssuer {
                    path: self.path.to_owned(),
                    issuer: shown.issuer,
                    trusted: self.trusted.to_owned(),
                }
            }
            _ if shown.is_ca => DialFailure::IsCa { subject: shown.subject },
            other => DialFailure::Unacceptable(other.to_string()),
        }
    }
}

/// The alerts of a peer that misses a certificate of ours; Go servers send the second with TLS 1.2.
pub(super) const CERTIFICATE_ALERTS: [AlertDescription; 2] =
    [AlertDescription::CertificateRequired, AlertDescription::BadCertificate];

fn now() -> Moment {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Moment::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_useless_ca_file_is_explained() {
        let problem = |bytes: &[u8]| Trusted::parse(bytes).err().unwrap();
        assert_eq!(problem(b""), "is empty");
        assert_eq!(problem(b" \n"), "is empty");
        assert!(problem(b"garbage").starts_with("holds no certificate"));
        assert!(problem(&[0x30, 0x82, 1, 2]).starts_with("is in DER form"));
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(problem(key), "holds a private key, not a certificate");
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(problem(cut).starts_with("is damaged"), "{}", problem(cut));
        let rubbish = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(problem(rubbish), "holds a certificate that is damaged");
    }
}
