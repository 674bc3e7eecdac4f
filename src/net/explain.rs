//! Explains failed TLS handshakes, and alerts that come after the handshake.

use std::io;

use tokio_rustls::rustls::{AlertDescription, Error as TlsError};

use super::certificate_failure::ExpectedCertificate;
use super::error::{DialCode, DialError};
use super::target::{DialTarget, Peer};
use crate::certificate::Certificate;
use crate::ids::{GATEWAY_PORT, MASTER_PORT};

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

/// The error of a failed handshake; `presented`: the peer's certificate; `requested`: whether the
/// peer requested ours.
pub(crate) fn failed_handshake(
    target: &DialTarget,
    expected: &ExpectedCertificate,
    error: io::Error,
    presented: Option<Certificate>,
    requested: bool,
) -> DialError {
    let (address, peer) = (target.shown(), &target.peer);
    let (key, noun, port) = (peer.address_key(), peer.noun(), peer.usual_port());
    let (code, text) = match (tls_error(&error), presented) {
        (None, _) if requested && !target.has_client_certificate() => {
            return certificate_wanted(target);
        }
        (None, _) => DialCode::TlsClosed.with(format!(
            "{address} closed the connection during the TLS handshake ({error}); the {noun} is \
             just starting or stopping, or it is not the {}{}",
            peer.expected_port(),
            match peer.is_gateway() {
                true => String::new(),
                false => format!(": if it is without TLS, write {}", without_tls(&address)),
            }
        )),
        (Some(TlsError::InvalidCertificate(cause)), Some(presented)) => {
            return expected.refused(target, cause, presented);
        }
        (Some(TlsError::InvalidMessage(_)), None) if peer.is_gateway() => {
            DialCode::NotTls.with(format!(
                "{address} does not use TLS, as a {noun} always does; correct the port in {key} \
                 (usually {port}), or remove a proxy that terminates TLS"
            ))
        }
        (Some(TlsError::InvalidMessage(_)), None) => DialCode::NotTls.with(format!(
            "{address} does not use TLS; write {} in mqtt.url, or the broker's port for TLS",
            without_tls(&address)
        )),
        (Some(TlsError::AlertReceived(alert)), _) => return of_alert(target, *alert, requested),
        (Some(TlsError::NoApplicationProtocol), _) => return no_common_protocol(target),
        (Some(error @ TlsError::PeerIncompatible(_)), _) => return no_common_tls(target, error),
        (Some(error), _) => return failed(target, error),
    };
    DialError::new(target, code, text)
}

/// The broker's URL without TLS.
fn without_tls(url: &str) -> String {
    url.replacen("s://", "://", 1)
}

/// A handshake that failed for another reason.
pub(crate) fn failed(target: &DialTarget, cause: impl std::fmt::Display) -> DialError {
    let text = format!("the TLS handshake with {} failed ({cause})", target.shown());
    DialError::new(target, DialCode::TlsFailed, text)
}

fn no_common_tls(target: &DialTarget, cause: &TlsError) -> DialError {
    let text = format!(
        "no common version or cipher of TLS with {} ({cause}); it must offer TLS 1.2 or 1.3 with \
         ECDHE",
        target.shown()
    );
    DialError::new(target, DialCode::TlsIncompatible, text)
}

fn no_common_protocol(target: &DialTarget) -> DialError {
    let (address, peer) = (target.shown(), &target.peer);
    if !peer.is_gateway() {
        let text = format!(
            "{address} refused the protocols that the TLS handshake offers (ALPN); correct \
             mqtt.alpn, or remove it"
        );
        return DialError::new(target, DialCode::AlpnRefused, text);
    }
    let text = format!(
        "{address} supports TLS but not HTTP/2, so it is not a {}'s gRPC port; correct the port in \
         {} (usually {})",
        peer.noun(),
        peer.address_key(),
        peer.usual_port()
    );
    DialError::new(target, DialCode::NotHttp2, text)
}

/// The peer requires a client certificate, and none is configured.
fn certificate_wanted(target: &DialTarget) -> DialError {
    let (address, peer) = (target.shown(), &target.peer);
    let remedy = match peer {
        Peer::Gateway(_) | Peer::Address(_) => format!(
            ", as a master gateway does (port {MASTER_PORT}); set {} to a device gateway (port \
             {GATEWAY_PORT}), or describe the master gateway under [masters.NAME]",
            peer.address_key()
        ),
        _ => format!("; set {} and {}", peer.key("cert_file"), peer.key("key_file")),
    };
    let text = format!("{address} requires a client certificate{remedy}");
    DialError::new(target, DialCode::ClientCertificateRequired, text)
}

fn of_alert(target: &DialTarget, alert: AlertDescription, requested: bool) -> DialError {
    if alert == AlertDescription::NoApplicationProtocol {
        return no_common_protocol(target);
    }
    of_client_certificate(target, alert, requested)
        .unwrap_or_else(|| no_common_tls(target, &TlsError::AlertReceived(alert)))
}

/// What an alert says about the client certificate; `None` where it is about something else.
fn of_client_certificate(
    target: &DialTarget,
    alert: AlertDescription,
    requested: bool,
) -> Option<DialError> {
    let given = target.has_client_certificate();
    let of_client = CERTIFICATE_ALERTS.contains(&alert)
        || requested && (REFUSAL_ALERTS.contains(&alert) || given);
    if !of_client || !given {
        return of_client.then(|| certificate_wanted(target));
    }
    let text = format!(
        "{} refused the client certificate (alert {alert:?}); put one there that its authority \
         signed and that has not expired: {} and {}",
        target.shown(),
        target.peer.key("cert_file"),
        target.peer.key("key_file")
    );
    Some(DialError::new(target, DialCode::ClientCertificateRefused, text))
}

/// The TLS library's own error, where one is inside.
pub(crate) fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// What an alert means that came after the handshake, as a missing client certificate's does with
/// TLS 1.3; `None` where the error is no alert.
pub(crate) fn late_alert(
    target: &DialTarget,
    requested: bool,
    error: &io::Error,
) -> Option<DialError> {
    let Some(TlsError::AlertReceived(alert)) = tls_error(error) else { return None };
    Some(of_alert(target, *alert, requested))
}

/// Whether a connection that broke before any answer was ended because of the client certificate,
/// where only the text of the error is left.
pub(crate) fn late_refusal(target: &DialTarget, requested: bool, text: &str) -> Option<DialError> {
    let is_in_text = |alert: &AlertDescription| text.ends_with(&format!("alert: {alert:?}"));
    let alert = (0..=u8::MAX).map(AlertDescription::from).find(is_in_text);
    let is_wanted = requested && !target.has_client_certificate();
    alert
        .and_then(|alert| of_client_certificate(target, alert, requested))
        .or_else(|| is_wanted.then(|| certificate_wanted(target)))
}
