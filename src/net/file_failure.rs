//! A certificate, key or password file of ours that cannot be used.

use std::path::{Path, PathBuf};

use super::code::DialCode;
use super::file::{ReadError, shown_path};
use super::target::Peer;

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Ca,
    Certificate,
    Key,
    Password,
}

/// How a file is named, and the codes of one that cannot be used.
struct FileWords {
    /// Its key in the configuration.
    key: &'static str,
    noun: &'static str,
    unreadable: DialCode,
    /// It does not hold what it should.
    invalid: DialCode,
}

impl FileKind {
    const fn words(self) -> FileWords {
        use DialCode as Code;
        let (key, noun, unreadable, invalid) = match self {
            Self::Ca => ("ca_file", "CA file", Code::CaFileUnreadable, Code::CaFileInvalid),
            Self::Certificate => {
                ("cert_file", "certificate file", Code::CertFileUnreadable, Code::CertFileInvalid)
            }
            Self::Key => ("key_file", "key file", Code::KeyFileUnreadable, Code::KeyFileInvalid),
            Self::Password => (
                "password_file",
                "password file",
                Code::PasswordFileUnreadable,
                Code::PasswordFileInvalid,
            ),
        };
        FileWords { key, noun, unreadable, invalid }
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
        let FileWords { key, noun, unreadable, invalid } = kind.words();
        let (key, path) = (peer.key(key), shown_path(path));
        let source = match (peer, kind) {
            (Peer::Gateway(_) | Peer::Address(_), FileKind::Ca) => {
                "copy ca.crt from the folder of the gateway's certificates"
            }
            (Peer::Master(_), FileKind::Ca) => "copy the ca.crt of the master gateway",
            (Peer::Master(_), FileKind::Certificate) => "put the tenant's certificate in PEM form",
            (Peer::Broker { .. }, FileKind::Ca) => "put the CA certificate of the broker",
            (_, FileKind::Certificate) => "put the client certificate in PEM form",
            (_, FileKind::Key) => "put the private key in PEM form",
            (_, FileKind::Password) => "put the password",
        };
        match problem {
            // The file is not at fault.
            FileProblem::Unread(error @ ReadError::NoHandles(_)) => {
                DialCode::NoFileHandles.with(format!("the {noun} {path} {error}"))
            }
            FileProblem::Unread(error @ ReadError::Missing) => unreadable
                .with(format!("the {noun} {path} {error}; {source} there, or correct {key}")),
            FileProblem::Unread(error @ ReadError::Forbidden) => {
                let right = match kind {
                    FileKind::Ca => "chmod a+r; the file is no secret",
                    _ => "chgrp and chmod g+r",
                };
                unreadable.with(format!(
                    "the {noun} {path} {error}; give it the right ({right}), or correct {key}"
                ))
            }
            FileProblem::Unread(error) => {
                unreadable.with(format!("the {noun} {path} {error}; correct {key}"))
            }
            FileProblem::Unusable(problem) => invalid.with(format!(
                "the {noun} {path} {problem}; {source} there again, or correct {key}"
            )),
            FileProblem::KeyMismatch => invalid.with(format!(
                "the {noun} {path} is not the key of the certificate in {}; name the two that \
                 were made together there and in {key}",
                peer.key("cert_file")
            )),
        }
    }
}
