//! The certificate of a server, for comparison by a user before it is trusted.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;
use tokio_rustls::rustls::crypto::ring as provider;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::certificate_failure::ExpectedCertificate;
use super::dial::connect_tcp;
use super::error::DialError;
use super::explain::failed;
use super::target::DialTarget;
use super::tls::Handshake;
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
    let verifier = Arc::new(RecordingVerifier::refusing(Arc::new(provider::default_provider())));
    let expected = ExpectedCertificate { name: target.address.host.clone(), ca: None };
    let handshake = Handshake::new(target, expected, verifier.clone(), None, &[])?;
    let until = Instant::now() + target.deadline;
    let tcp = connect_tcp(target, until).await?;
    let outcome = handshake.connect(tcp, until).await;
    match (verifier.presented(), outcome) {
        (Some(presented), _) => Ok(PresentedCertificate(presented)),
        (None, Err(failure)) => Err(failure),
        (None, Ok(_)) => Err(failed(target, "it presents no certificate")),
    }
}
