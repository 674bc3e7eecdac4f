//! Converts errors of the TLS library into ours.

use std::io;
use std::path::PathBuf;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::certificate_failure::CertificateFailure;
use super::error::DialError;
use super::failure::{DialFailure, TlsFailure};
use super::target::DialTarget;
use crate::certificate::Certificate;

/// The alerts of a peer that misses a client certificate; Go servers send the second with TLS 1.2.
const CERTIFICATE_ALERTS: [AlertDescription; 2] =
    [AlertDescription::CertificateRequired, AlertDescription::BadCertificate];

/// The alerts of a peer that refuses the client certificate it got.
const REFUSAL_ALERTS: [AlertDescription; 6] = [
    AlertDescription::UnknownCA,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::AccessDenied,
];

/// What a failed handshake has to be compared with.
pub(crate) struct Facts {
    /// The name that the certificate must hold.
    pub(crate) expected: String,
    /// The CA file and the name of its first authority.
    pub(crate) ca: Option<(PathBuf, String)>,
    /// Whether we have a client certificate.
    pub(crate) certificate_given: bool,
}

impl Facts {
    pub(crate) fn explain(
        &self,
        error: io::Error,
        presented: Option<Certificate>,
        requested: bool,
    ) -> DialFailure {
        let Some(tls) = tls_error(&error) else {
            return DialFailure::Tls(match requested && !self.certificate_given {
                true => TlsFailure::ClientCertificateWanted,
                false => TlsFailure::HungUp(error),
            });
        };
        DialFailure::Tls(match (tls, presented) {
            (TlsError::InvalidCertificate(cause), Some(presented)) => {
                let not_after = presented.not_after;
                let failure = self.certificate(cause, presented);
                return DialFailure::Certificate { failure, not_after };
            }
            (TlsError::InvalidMessage(_), None) => TlsFailure::NotTls,
            (TlsError::AlertReceived(alert), _) => {
                of_alert(*alert, requested, self.certificate_given)
            }
            (TlsError::NoApplicationProtocol, _) => TlsFailure::NoCommonProtocol,
            (TlsError::PeerIncompatible(_), _) => TlsFailure::NoCommonTls(tls.to_string()),
            _ => TlsFailure::Other(tls.to_string()),
        })
    }

    fn certificate(&self, cause: &CertificateError, presented: Certificate) -> CertificateFailure {
        let (expected, now) = (self.expected.clone(), super::wall_time());
        match cause {
            _ if presented.is_version_1 => CertificateFailure::Version1 { expected },
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
                if presented.not_after < now =>
            {
                CertificateFailure::Expired { not_after: presented.not_after, now }
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }
                if presented.not_before > now =>
            {
                CertificateFailure::NotYetValid { not_before: presented.not_before, now }
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                if presented.names.is_empty() {
                    CertificateFailure::WithoutSan { expected, subject: presented.subject }
                } else {
                    CertificateFailure::NameMismatch { expected, names: presented.names }
                }
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature
                if !presented.is_ca =>
            {
                CertificateFailure::UnknownIssuer {
                    issuer: presented.issuer,
                    trusted: self.ca.clone(),
                }
            }
            _ if presented.is_ca => CertificateFailure::IsCa { subject: presented.subject },
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                CertificateFailure::NotForServers
            }
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                CertificateFailure::WeakSignature
            }
            // Its own text would be `Other(OtherError(...))`.
            CertificateError::Other(inner) => CertificateFailure::Unacceptable(inner.0.to_string()),
            other => CertificateFailure::Unacceptable(other.to_string()),
        }
    }
}

fn of_alert(alert: AlertDescription, requested: bool, certificate_given: bool) -> TlsFailure {
    if alert == AlertDescription::NoApplicationProtocol {
        return TlsFailure::NoCommonProtocol;
    }
    of_client_certificate(alert, requested, certificate_given)
        .unwrap_or_else(|| TlsFailure::NoCommonTls(TlsError::AlertReceived(alert).to_string()))
}

/// What an alert says about the client certificate; `None` where it is about something else.
fn of_client_certificate(
    alert: AlertDescription,
    requested: bool,
    certificate_given: bool,
) -> Option<TlsFailure> {
    let of_client = CERTIFICATE_ALERTS.contains(&alert)
        || requested && (REFUSAL_ALERTS.contains(&alert) || certificate_given);
    of_client.then_some(match certificate_given {
        true => TlsFailure::ClientCertificateRefused(alert),
        false => TlsFailure::ClientCertificateWanted,
    })
}

/// The TLS library's own error, where one is inside.
pub(crate) fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// What an alert means that came after the handshake, as a missing client certificate's does with
/// TLS 1.3; `None` where the error is no alert.
pub(crate) fn late_failure(
    target: &DialTarget,
    requested: bool,
    error: &io::Error,
) -> Option<TlsFailure> {
    let Some(TlsError::AlertReceived(alert)) = tls_error(error) else { return None };
    Some(of_alert(*alert, requested, target.has_client_certificate()))
}

/// What [`late_failure`] returns, as an error.
pub(crate) fn late_alert(
    target: &DialTarget,
    requested: bool,
    error: &io::Error,
) -> Option<DialError> {
    late_failure(target, requested, error)
        .map(|failure| DialError::new(target, DialFailure::Tls(failure)))
}

/// Whether a connection that broke before any answer was ended because of the client certificate,
/// where only the text of the error is left.
pub(crate) fn late_refusal(target: &DialTarget, requested: bool, text: &str) -> Option<DialError> {
    let given = target.has_client_certificate();
    let is_in_text = |alert: &AlertDescription| text.ends_with(&format!("alert: {alert:?}"));
    let failure = (0..=u8::MAX)
        .map(AlertDescription::from)
        .find(is_in_text)
        .and_then(|alert| of_client_certificate(alert, requested, given))
        .or((requested && !given).then_some(TlsFailure::ClientCertificateWanted))?;
    Some(DialError::new(target, DialFailure::Tls(failure)))
}
