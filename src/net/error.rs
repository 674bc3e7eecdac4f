//! Why a connection could not be established: one error for gateways and brokers, because the
//! causes are the same. Its text has the failure, its subject, and the remedy.

use super::target::DialTarget;
use crate::ids::Moment;

/// A failed attempt to connect.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DialError {
    pub(crate) code: DialCode,
    pub(crate) message: String,
    /// Those in the certificate, where none of them is the expected one.
    pub(crate) names: Vec<String>,
    /// When the certificate ends that was refused.
    pub(crate) certificate_expires_at: Option<Moment>,
}

impl DialError {
    pub(crate) fn new(target: &DialTarget, code: DialCode, text: String) -> Self {
        let message = match target.peer.is_gateway() {
            true => format!("{}: {text}", target.peer),
            false => text,
        };
        Self { code, message, names: Vec::new(), certificate_expires_at: None }
    }
}

/// The stable code of a failed attempt to connect, in payloads, metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[cfg_attr(test, derive(strum::VariantNames))]
#[strum(serialize_all = "snake_case")]
pub enum DialCode {
    CaFileUnreadable,
    CaFileInvalid,
    CertFileUnreadable,
    CertFileInvalid,
    KeyFileUnreadable,
    KeyFileInvalid,
    PasswordFileUnreadable,
    PasswordFileInvalid,
    NoFileHandles,
    NoSystemRoots,
    ServerNameInvalid,
    HostNotFound,
    LookupTimeout,
    ConnectionRefused,
    Unreachable,
    ConnectTimeout,
    TlsTimeout,
    NotTls,
    NotHttp2,
    TlsClosed,
    CertificateNameMismatch,
    CertificateWithoutSan,
    CertificateV1,
    CertificateExpired,
    CertificateNotYetValid,
    CertificateUnknownIssuer,
    CertificateIsCa,
    CertificateInvalid,
    ClientCertificateRequired,
    ClientCertificateRefused,
    TlsIncompatible,
    TlsFailed,
    AlpnRefused,
    WebsocketTimeout,
    NotWebsocket,
}

impl DialCode {
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The code with the text of its failure.
    pub(crate) const fn with(self, text: String) -> (Self, String) {
        (self, text)
    }

    /// Whether a file of the configuration is missing or cannot be read.
    pub(crate) const fn is_file_missing(self) -> bool {
        matches!(
            self,
            Self::CaFileUnreadable
                | Self::CertFileUnreadable
                | Self::KeyFileUnreadable
                | Self::PasswordFileUnreadable
        )
    }

    /// Whether trying again costs the peer nothing: nothing answers at the address now, as while it
    /// restarts or hangs, or a file of ours is missing, or no file handle is left.
    pub(crate) const fn is_absence(self) -> bool {
        self.is_file_missing()
            || matches!(
                self,
                Self::NoFileHandles
                    | Self::HostNotFound
                    | Self::LookupTimeout
                    | Self::ConnectionRefused
                    | Self::Unreachable
                    | Self::ConnectTimeout
                    | Self::TlsTimeout
                    | Self::TlsClosed
                    | Self::WebsocketTimeout
            )
    }
}
