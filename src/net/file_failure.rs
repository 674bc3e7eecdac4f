//! A certificate, key or password file of ours that cannot be used.

use std::path::{Path, PathBuf};

use super::code::DialCode;
use super::file::ReadError;
use super::target::Peer;

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
    const fn key(self) -> &'static str {
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

    const fn noun(self) -> &'static str {
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

    pub(crate) fn describe(&self, peer: &Peer) -> (DialCode, String) {
        let Self { kind, path, problem } = self;
        let (key, path) = (peer.key(kind.key()), path.display());
        let source = match (peer, kind) {
            (Peer::Gateway(_), FileKind::Ca) => {
                "copy ca.crt from the folder of the gateway's certificates"
            }
            (Peer::Master(_), FileKind::Ca) => "copy the ca.crt of the master gateway",
            (Peer::Master(_), FileKind::Certificate) => "put the tenant's certificate in PEM form",
            (Peer::Broker { .. }, FileKind::Ca) => "put the CA certificate of the broker",
            (_, FileKind::Certificate) => "put the client certificate in PEM form",
            (_, FileKind::Key) => "put the private key in PEM form",
            (_, FileKind::Password) => "put the password",
        };
        let noun = kind.noun();
        match problem {
            // The file is not at fault.
            FileProblem::Unread(error @ ReadError::NoHandles(_)) => {
                DialCode::NoFileHandles.with(format!("the {noun} {path} {error}"))
            }
            FileProblem::Unread(error @ ReadError::Missing) => kind
                .unreadable()
                .with(format!("the {noun} {path} {error}; {source} there, or correct {key}")),
            FileProblem::Unread(error @ ReadError::Forbidden) => {
                let right = match kind {
                    FileKind::Ca => "chmod a+r; the file is no secret",
                    _ => "chgrp and chmod g+r",
                };
                kind.unreadable().with(format!(
                    "the {noun} {path} {error}; give it the right ({right}), or correct {key}"
                ))
            }
            FileProblem::Unread(error) => {
                kind.unreadable().with(format!("the {noun} {path} {error}; correct {key}"))
            }
            FileProblem::Unusable(problem) => kind.invalid().with(format!(
                "the {noun} {path} {problem}; {source} there again, or correct {key}"
            )),
            FileProblem::KeyMismatch => kind.invalid().with(format!(
                "the {noun} {path} is not the key of the certificate in {}; name the two that \
                 were made together there and in {key}",
                peer.key("cert_file")
            )),
        }
    }
}
