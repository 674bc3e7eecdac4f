//! TLS to a peer: the files that authenticate both sides, and the reasons of a failed handshake.
//!
//! rustls decides whether a certificate is trusted.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, Error as TlsError, RootCertStore, SignatureScheme};

use super::certificate_failure::ExpectedCertificate;
use super::error::{DialCode, DialError};
use super::explain::{failed, failed_handshake};
use super::file::{expect_file, off_runtime, read};
use super::file_failure::{FileKind, key_mismatch, unread, unusable};
use super::target::{DialTarget, Tls};
use super::verifier::RecordingVerifier;
use crate::certificate::Certificate;

/// Names a file of roots instead of the system's own store, as for OpenSSL.
const ROOTS_VARIABLE: &str = "SSL_CERT_FILE";

/// A TLS handshake to come.
pub(crate) struct Handshake<'a> {
    target: &'a DialTarget,
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    verifier: Arc<RecordingVerifier>,
    client: Arc<ClientCertificate>,
    expected: ExpectedCertificate,
}

impl<'a> Handshake<'a> {
    /// Reads the files and builds the settings.
    pub(crate) async fn prepare(target: &'a DialTarget, tls: &Tls) -> Result<Self, DialError> {
        let provider = Arc::new(ring::default_provider());
        let trusted = match &tls.files.ca_file {
            Some(path) => read_pem(target, FileKind::Ca, path, Trusted::parse).await?,
            None => Trusted::of_system(target).await?,
        };
        let key = match (&tls.files.cert_file, &tls.files.key_file) {
            (Some(cert), Some(key)) => Some(client_key(target, cert, key, &provider).await?),
            _ => None,
        };
        let verifier = RecordingVerifier::new(trusted.roots, trusted.pinned, provider)
            .map_err(|error| failed(target, error))?;
        let name = tls.server_name.as_deref().unwrap_or(&target.address.host).to_owned();
        let ca = tls.files.ca_file.clone().zip(trusted.subject);
        let expected = ExpectedCertificate { name, ca };
        Self::new(target, expected, Arc::new(verifier), key, &tls.alpn)
    }

    pub(crate) fn new(
        target: &'a DialTarget,
        expected: ExpectedCertificate,
        verifier: Arc<RecordingVerifier>,
        key: Option<Arc<CertifiedKey>>,
        alpn: &[String],
    ) -> Result<Self, DialError> {
        let server_name = ServerName::try_from(expected.name.clone()).map_err(|_| {
            let is_gateway = target.peer.is_gateway();
            let text = format!(
                "{:?} is neither a host name nor an IP address, so no certificate can contain it; \
                 correct {}",
                expected.name,
                target.peer.key(if is_gateway { "server_name" } else { "url" })
            );
            DialError::new(target, DialCode::ServerNameInvalid, text)
        })?;
        let client = Arc::new(ClientCertificate { key, requested: AtomicBool::new(false) });
        let mut config = ClientConfig::builder_with_provider(verifier.provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(target, error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(client.clone());
        // A server without ALPN ignores this, and the protocol is used nevertheless.
        config.alpn_protocols = alpn.iter().map(|name| name.clone().into_bytes()).collect();
        Ok(Self { target, config: Arc::new(config), server_name, verifier, client, expected })
    }

    /// Does the handshake. Returns also the certificate that the peer presented, and whether it
    /// requested one: the alert about this may be overtaken by the end of the connection.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        socket: S,
        until: Instant,
    ) -> Result<(TlsStream<S>, Option<Certificate>, bool), DialError> {
        let Self { target, config, server_name, .. } = self;
        let connecting = TlsConnector::from(config).connect(server_name, socket);
        let outcome = timeout_at(until, connecting).await.map_err(|_| {
            let text = format!(
                "{} accepts connections but did not answer the TLS handshake within {} s; it \
                 hangs, or it is not the {}",
                target.shown(),
                target.deadline.as_secs_f32(),
                target.peer.expected_port()
            );
            DialError::new(target, DialCode::TlsTimeout, text)
        })?;
        let presented = self.verifier.presented().and_then(|der| Certificate::read(&der));
        let requested = self.client.requested.load(Ordering::Relaxed);
        match outcome {
            Ok(stream) => Ok((stream, presented, requested)),
            Err(error) => {
                Err(failed_handshake(target, &self.expected, error, presented, requested))
            }
        }
    }
}

/// What is trusted: the authorities whose signature is accepted, and single certificates.
struct Trusted {
    roots: RootCertStore,
    /// Those that are no authority's. Each is accepted as the peer's own.
    pinned: Vec<CertificateDer<'static>>,
    /// The first one's name, for messages.
    subject: Option<String>,
}

impl Trusted {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let (mut subject, mut pinned) = (None, Vec::new());
        for der in certificates(bytes)? {
            let certificate =
                Certificate::read(&der).ok_or("holds a certificate that is damaged")?;
            if !certificate.is_ca {
                pinned.push(der.clone());
            }
            roots
                .add(der)
                .map_err(|error| format!("holds a certificate that cannot be used ({error})"))?;
            subject.get_or_insert(certificate.subject);
        }
        Ok(Self { roots, pinned, subject })
    }

    /// The roots that this system trusts.
    async fn of_system(target: &DialTarget) -> Result<Self, DialError> {
        let roots = off_runtime(Path::new("system roots"), load_system_roots).await;
        let roots = roots.map_err(|error| format!("its store {error}")).flatten();
        let roots = roots.map_err(|why| {
            let text = format!(
                "the certificates that this system trusts cannot be read ({why}); install the \
                 package ca-certificates, correct the environment, or set {}",
                target.peer.key("ca_file")
            );
            DialError::new(target, DialCode::NoSystemRoots, text)
        })?;
        Ok(Self { roots, pinned: Vec::new(), subject: None })
    }
}

fn load_system_roots() -> Result<RootCertStore, String> {
    // The library reads what this variable names, whatever it is and however long.
    if let Some(path) = std::env::var_os(ROOTS_VARIABLE) {
        let reported = |error| format!("{ROOTS_VARIABLE} {} {error}", path.display());
        expect_file(Path::new(&path)).map_err(reported)?;
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err("it has none".to_owned()) } else { Ok(roots) }
}

/// Reads a file of this kind, and what it holds.
async fn read_pem<T>(
    target: &DialTarget,
    kind: FileKind,
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<T, DialError> {
    let bytes = read(path).await.map_err(|error| unread(target, kind, path, &error))?;
    parse(&bytes).map_err(|problem| unusable(target, kind, path, &problem))
}

/// The certificates of a PEM file: at least one.
pub(crate) fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    if bytes.trim_ascii().is_empty() {
        return Err("is empty".to_owned());
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| format!("is damaged ({error})"))?;
    if found.is_empty() { Err(what_instead(bytes)) } else { Ok(found) }
}

/// What a file without a PEM certificate holds.
fn what_instead(bytes: &[u8]) -> String {
    let contains = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    if bytes.first() == Some(&0x30) {
        // The first byte of every DER certificate: a sequence.
        "is in DER form, not PEM (openssl x509 -inform der -in F -out ca.crt turns it)".to_owned()
    } else if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        "is UTF-16 text; save it as UTF-8 or ASCII".to_owned()
    } else if contains(b"PRIVATE KEY-----") {
        "holds a private key, not a certificate".to_owned()
    } else {
        "holds no certificate (no line \"-----BEGIN CERTIFICATE-----\")".to_owned()
    }
}

/// The client certificate of a target as text, for a peer that needs it in a message, too; empty
/// where none is configured.
///
/// # Errors
/// When its file cannot be read, or holds no certificate.
pub(crate) async fn client_certificate(target: &DialTarget) -> Result<String, DialError> {
    let path = target.tls.as_ref().and_then(|tls| tls.files.cert_file.as_deref());
    let Some(path) = path else { return Ok(String::new()) };
    let text = |bytes: &[u8]| {
        certificates(bytes)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| "is not text".to_owned())
    };
    read_pem(target, FileKind::Certificate, path, text).await
}

async fn client_key(
    target: &DialTarget,
    cert: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, DialError> {
    let chain = read_pem(target, FileKind::Certificate, cert, certificates).await?;
    let secret = read_pem(target, FileKind::Key, key, private_key).await?;
    let certified = CertifiedKey::from_der(chain, secret, provider);
    certified.map(Arc::new).map_err(|error| match error {
        TlsError::InconsistentKeys(_) => key_mismatch(target, key),
        error => {
            let problem = format!("cannot be used with its certificate ({error})");
            unusable(target, FileKind::Key, key, &problem)
        }
    })
}

/// The private key of a PEM file.
pub(crate) fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => "holds no private key in PEM form".to_owned(),
        // The parser quotes the file in some of its errors, and the file is a secret.
        _ => "is damaged".to_owned(),
    })
}

/// The client certificate, if there is one, and whether the peer requested it.
#[derive(Debug)]
struct ClientCertificate {
    key: Option<Arc<CertifiedKey>>,
    requested: AtomicBool,
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.requested.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
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
        assert!(problem(b"\xff\xfe-\0-\0").starts_with("is UTF-16 text"));
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(problem(key), "holds a private key, not a certificate");
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(problem(cut).starts_with("is damaged"), "{}", problem(cut));
        let rubbish = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(problem(rubbish), "holds a certificate that is damaged");
    }
}
