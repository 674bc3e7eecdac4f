//! The certificate of a server, for comparison by a user before it is trusted.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring as provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

use super::dial::connect_tcp;
use super::error::{DialError, DialFailure};
use super::explain::Facts;
use super::target::DialTarget;
use super::verifier::RecordingVerifier;
use crate::certificate::Certificate;

/// The characters of a line in a PEM file.
const PEM_LINE: usize = 64;

/// A certificate that is not trusted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PresentedCertificate(CertificateDer<'static>);

impl PresentedCertificate {
    /// SHA-256, as `openssl x509 -fingerprint` prints it.
    pub(crate) fn fingerprint(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.0);
        let bytes: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        bytes.join(":")
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        let text = STANDARD.encode(&self.0);
        let mut pem = b"-----BEGIN CERTIFICATE-----\n".to_vec();
        for line in text.as_bytes().chunks(PEM_LINE) {
            pem.extend_from_slice(line);
            pem.push(b'\n');
        }
        pem.extend_from_slice(b"-----END CERTIFICATE-----\n");
        pem
    }

    pub(crate) fn read(&self) -> Option<Certificate> {
        Certificate::read(&self.0)
    }
}

/// Reads the certificate of a server and ends the connection: nothing is sent to it.
pub(crate) async fn presented_certificate(
    target: &DialTarget,
) -> Result<PresentedCertificate, DialError> {
    present(target).await.map_err(|failure| DialError::new(target, failure))
}

async fn present(target: &DialTarget) -> Result<PresentedCertificate, DialFailure> {
    let expected = target.address.host.clone();
    let server_name = ServerName::try_from(expected.clone())
        .map_err(|_| DialFailure::ServerName(expected.clone()))?;
    let provider = Arc::new(provider::default_provider());
    let verifier = Arc::new(RecordingVerifier::refusing(provider.clone()));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| DialFailure::Tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    let until = Instant::now() + target.deadline;
    let tcp = connect_tcp(&target.address, until, target.deadline).await?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(server_name, tcp);
    let outcome = timeout_at(until, handshake)
        .await
        .map_err(|_| DialFailure::HandshakeTimeout(target.deadline))?;
    match (verifier.presented(), outcome) {
        (Some(presented), _) => Ok(PresentedCertificate(presented)),
        (None, Err(error)) => {
            let facts = Facts { expected, ca: None, certificate_given: false };
            Err(facts.explain(error, None, false))
        }
        (None, Ok(_)) => Err(DialFailure::Tls("it presents no certificate".to_owned())),
    }
}
