//! Verifies the certificate of a server as rustls does, and keeps it: to explain a refusal, or to
//! show it before it is trusted.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{
    VerifierBuilderError, WebPkiServerVerifier, verify_server_name,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use crate::certificate::Certificate;

#[derive(Debug)]
pub(crate) struct RecordingVerifier {
    provider: Arc<CryptoProvider>,
    /// `None`: no certificate is trusted.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that are accepted as the server's own.
    pinned: Vec<CertificateDer<'static>>,
    presented: Mutex<Option<CertificateDer<'static>>>,
}

impl RecordingVerifier {
    pub(crate) fn new(
        roots: RootCertStore,
        pinned: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let builder = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
        let authorities = Some(builder.build()?);
        Ok(Self { provider, authorities, pinned, presented: Mutex::new(None) })
    }

    /// Refuses every certificate.
    pub(crate) const fn refusing(provider: Arc<CryptoProvider>) -> Self {
        Self { provider, authorities: None, pinned: Vec::new(), presented: Mutex::new(None) }
    }

    pub(crate) fn provider(&self) -> Arc<CryptoProvider> {
        self.provider.clone()
    }

    /// The certificate that the server presented.
    pub(crate) fn presented(&self) -> Option<CertificateDer<'static>> {
        self.presented.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for RecordingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let presented = Some(end_entity.clone().into_owned());
        *self.presented.lock().unwrap_or_else(PoisonError::into_inner) = presented;
        let Some(authorities) = &self.authorities else {
            return Err(TlsError::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        match authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        ) {
            Err(_) if self.pinned.iter().any(|pinned| **pinned == **end_entity) => {
                verify_pinned(end_entity, server_name, now)
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Decides about a certificate that is trusted itself: it still has to have the name, and be valid
/// now.
fn verify_pinned(
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, TlsError> {
    verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)?;
    let refused = |error| Err(TlsError::InvalidCertificate(error));
    let Some(certificate) = Certificate::read(certificate) else {
        return refused(CertificateError::BadEncoding);
    };
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX).saturating_mul(1_000);
    if now > certificate.not_after.millis() {
        return refused(CertificateError::Expired);
    }
    if now < certificate.not_before.millis() {
        return refused(CertificateError::NotValidYet);
    }
    Ok(ServerCertVerified::assertion())
}
