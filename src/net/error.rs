//! Why a connection could not be established: one error for gateways and brokers, because the
//! causes are the same. `remedy` has its texts.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_rustls::rustls::AlertDescription;

use super::file::{ReadError, SecretError};
use super::no_handles_left;
use super::target::{DialTarget, Peer};
use crate::ids::{HostPort, Moment};

/// A failed attempt to connect.
#[derive(Debug)]
pub struct DialError {
    pub(crate) peer: Peer,
    pub(crate) address: HostPort,
    pub(crate) failure: Box<DialFailure>,
}

impl std::error::Error for DialError {}

/// What failed.
#[derive(Debug)]
pub(crate) enum DialFailure {
    File(FileFailure),
    NoSystemRoots(String),
    ServerName(String),
    NoHandles(io::Error),
    HostNotFound(io::Error),
    LookupTimeout(Duration),
    Refused,
    Unreachable(io::Error),
    ConnectTimeout(Duration),
    HandshakeTimeout(Duration),
    NotTls,
    NoCommonProtocol,
    HungUp(io::Error),
    NameMismatch {
        expected: String,
        names: Vec<String>,
    },
    WithoutSan {
        expected: String,
        subject: String,
    },
    Version1 {
        expected: String,
    },
    Expired {
        not_after: Moment,
        now: Moment,
    },
    NotYetValid {
        not_before: Moment,
        now: Moment,
    },
    UnknownIssuer {
        issuer: String,
        trusted: Option<(PathBuf, String)>,
    },
    IsCa {
        subject: String,
    },
    NotForServers,
    WeakSignature,
    Unacceptable(String),
    ClientCertificateWanted,
    ClientCertificateRefused(AlertDescription),
    NoCommonTls(String),
    Tls(String),
    WebsocketTimeout(Duration),
    /// It answers as a web server without WebSocket: its words.
    NotWebsocket(String),
    NoMqttOverWebsocket,
    NotHttp(String),
}

impl DialFailure {
    /// Of a system call that was to connect.
    pub(crate) fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ if no_handles_left(&error) => Self::NoHandles(error),
            _ => Self::Unreachable(error),
        }
    }
}

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Ca,
    Certificate,
    Key,
    Password,
}

impl FileKind {
    /// Its key in the configuration.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Ca => "ca_file",
            Self::Certificate => "cert_file",
            Self::Key => "key_file",
            Self::Password => "password_file",
        }
    }

    /// The code of one that is missing or cannot be read.
    const fn unreadable(self) -> DialCode {
        match self {
            Self::Ca => DialCode::CaFileUnreadable,
            Self::Certificate => DialCode::CertFileUnreadable,
            Self::Key => DialCode::KeyFileUnreadable,
            Self::Password => DialCode::PasswordFileUnreadable,
        }
    }

    /// The code of one that does not hold what it should.
    const fn invalid(self) -> DialCode {
        match self {
            Self::Ca => DialCode::CaFileInvalid,
            Self::Certificate => DialCode::CertFileInvalid,
            Self::Key => DialCode::KeyFileInvalid,
            Self::Password => DialCode::PasswordFileInvalid,
        }
    }

    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Ca => "CA file",
            Self::Certificate => "certificate file",
            Self::Key => "key file",
            Self::Password => "password file",
        }
    }
}

/// A file that cannot be used.
#[derive(Debug)]
pub(crate) struct FileFailure {
    pub(crate) kind: FileKind,
    pub(crate) path: PathBuf,
    pub(crate) problem: FileProblem,
}

#[derive(Debug)]
pub(crate) enum FileProblem {
    Unread(ReadError),
    Unusable(String),
    KeyMismatch,
}

impl FileFailure {
    pub(crate) fn unread(kind: FileKind, path: &Path, error: ReadError) -> Self {
        Self { kind, path: path.to_owned(), problem: FileProblem::Unread(error) }
    }

    pub(crate) fn unusable(kind: FileKind, path: &Path, problem: String) -> Self {
        Self { kind, path: path.to_owned(), problem: FileProblem::Unusable(problem) }
    }

    pub(crate) fn key_mismatch(path: &Path) -> Self {
        Self { kind: FileKind::Key, path: path.to_owned(), problem: FileProblem::KeyMismatch }
    }
}

impl From<FileFailure> for DialFailure {
    fn from(failure: FileFailure) -> Self {
        Self::File(failure)
    }
}

impl DialError {
    pub(crate) fn new(target: &DialTarget, failure: DialFailure) -> Self {
        let (peer, address) = (target.peer.clone(), target.address.clone());
        Self { peer, address, failure: Box::new(failure) }
    }

    /// A password that cannot be had from its file.
    pub(crate) fn password(target: &DialTarget, path: &Path, error: SecretError) -> Self {
        let failure = match error {
            SecretError::Unread(error) => FileFailure::unread(FileKind::Password, path, error),
            error => FileFailure::unusable(FileKind::Password, path, error.to_string()),
        };
        Self::new(target, failure.into())
    }

    /// The names in the certificate, where none of them is the expected one.
    pub(crate) fn certificate_names(&self) -> Option<&[String]> {
        match &*self.failure {
            DialFailure::NameMismatch { names, .. } => Some(names),
            _ => None,
        }
    }

    pub fn code(&self) -> DialCode {
        match &*self.failure {
            // The file is not at fault.
            DialFailure::File(FileFailure {
                problem: FileProblem::Unread(ReadError::NoHandles(_)),
                ..
            })
            | DialFailure::NoHandles(_) => DialCode::NoFileHandles,
            DialFailure::File(FileFailure { kind, problem: FileProblem::Unread(_), .. }) => {
                kind.unreadable()
            }
            DialFailure::File(FileFailure { kind, .. }) => kind.invalid(),
            DialFailure::NoSystemRoots(_) => DialCode::NoSystemRoots,
            DialFailure::ServerName(_) => DialCode::ServerNameInvalid,
            DialFailure::HostNotFound(_) => DialCode::HostNotFound,
            DialFailure::LookupTimeout(_) => DialCode::LookupTimeout,
            DialFailure::Refused => DialCode::ConnectionRefused,
            DialFailure::Unreachable(_) => DialCode::Unreachable,
            DialFailure::ConnectTimeout(_) => DialCode::ConnectTimeout,
            DialFailure::HandshakeTimeout(_) => DialCode::TlsTimeout,
            DialFailure::NotTls => DialCode::NotTls,
            DialFailure::NoCommonProtocol => match self.peer {
                Peer::Broker { .. } => DialCode::AlpnRefused,
                _ => DialCode::NotHttp2,
            },
            DialFailure::HungUp(_) => DialCode::TlsClosed,
            DialFailure::NameMismatch { .. } => DialCode::CertificateNameMismatch,
            DialFailure::WithoutSan { .. } => DialCode::CertificateWithoutSan,
            DialFailure::Version1 { .. } => DialCode::CertificateV1,
            DialFailure::Expired { .. } => DialCode::CertificateExpired,
            DialFailure::NotYetValid { .. } => DialCode::CertificateNotYetValid,
            DialFailure::UnknownIssuer { .. } => DialCode::CertificateUnknownIssuer,
            DialFailure::IsCa { .. } => DialCode::CertificateIsCa,
            DialFailure::NotForServers
            | DialFailure::WeakSignature
            | DialFailure::Unacceptable(_) => DialCode::CertificateInvalid,
            DialFailure::ClientCertificateWanted => DialCode::ClientCertificateRequired,
            DialFailure::ClientCertificateRefused(_) => DialCode::ClientCertificateRefused,
            DialFailure::NoCommonTls(_) => DialCode::TlsIncompatible,
            DialFailure::Tls(_) => DialCode::TlsFailed,
            DialFailure::WebsocketTimeout(_) => DialCode::WebsocketTimeout,
            DialFailure::NotWebsocket(_)
            | DialFailure::NoMqttOverWebsocket
            | DialFailure::NotHttp(_) => DialCode::NotWebsocket,
        }
    }

    /// Whether trying again costs the peer nothing: nothing answers at the address now, as while it
    /// restarts or hangs, or a file of ours is missing.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(
            *self.failure,
            DialFailure::File(FileFailure { problem: FileProblem::Unread(_), .. })
                | DialFailure::HostNotFound(_)
                | DialFailure::LookupTimeout(_)
                | DialFailure::Refused
                | DialFailure::Unreachable(_)
                | DialFailure::ConnectTimeout(_)
                | DialFailure::HandshakeTimeout(_)
                | DialFailure::WebsocketTimeout(_)
                | DialFailure::HungUp(_)
        )
    }
}

/// The stable code of a failed attempt to connect, in payloads, metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
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
}
