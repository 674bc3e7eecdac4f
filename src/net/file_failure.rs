//! A certificate, key or password file of ours that cannot be used.

use std::path::Path;

use super::error::{DialCode, DialError};
use super::file::{ReadError, SecretError, shown_path};
use super::target::{DialTarget, Peer};

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

/// The error for a file that cannot be read.
pub(crate) fn unread(
    target: &DialTarget,
    kind: FileKind,
    path: &Path,
    error: &ReadError,
) -> DialError {
    let FileWords { key, noun, unreadable, .. } = kind.words();
    let (key, path) = (target.peer.key(key), shown_path(path));
    let (code, remedy) = match error {
        // The file is not at fault.
        ReadError::NoHandles(_) => (DialCode::NoFileHandles, String::new()),
        ReadError::Missing => {
            (unreadable, format!("; {} there, or correct {key}", source(&target.peer, kind)))
        }
        ReadError::Forbidden => {
            let right = match kind {
                FileKind::Ca => "chmod a+r; the file is no secret",
                _ => "chgrp and chmod g+r",
            };
            (unreadable, format!("; give it the right ({right}), or correct {key}"))
        }
        _ => (unreadable, format!("; correct {key}")),
    };
    DialError::new(target, code, format!("the {noun} {path} {error}{remedy}"))
}

/// The error for a file that does not hold what it should.
pub(crate) fn unusable(
    target: &DialTarget,
    kind: FileKind,
    path: &Path,
    problem: &str,
) -> DialError {
    let FileWords { key, noun, invalid, .. } = kind.words();
    let text = format!(
        "the {noun} {} {problem}; {} there again, or correct {}",
        shown_path(path),
        source(&target.peer, kind),
        target.peer.key(key)
    );
    DialError::new(target, invalid, text)
}

/// The error for a key that is not the certificate's.
pub(crate) fn key_mismatch(target: &DialTarget, path: &Path) -> DialError {
    let text = format!(
        "the key file {} is not the key of the certificate in {}; name the two that were made \
         together there and in {}",
        shown_path(path),
        target.peer.key("cert_file"),
        target.peer.key("key_file")
    );
    DialError::new(target, DialCode::KeyFileInvalid, text)
}

/// The error for a password that cannot be had from its file.
pub(crate) fn no_password(target: &DialTarget, path: &Path, error: &SecretError) -> DialError {
    match error {
        SecretError::Unread(error) => unread(target, FileKind::Password, path, error),
        error => unusable(target, FileKind::Password, path, &error.to_string()),
    }
}

/// Where what belongs into a file comes from.
const fn source(peer: &Peer, kind: FileKind) -> &'static str {
    match (peer, kind) {
        (Peer::Gateway(_) | Peer::Address(_), FileKind::Ca) => {
            "copy ca.crt from the folder of the gateway's certificates"
        }
        (Peer::Master(_), FileKind::Ca) => "copy the ca.crt of the master gateway",
        (Peer::Master(_), FileKind::Certificate) => "put the tenant's certificate in PEM form",
        (Peer::Broker { .. }, FileKind::Ca) => "put the CA certificate of the broker",
        (_, FileKind::Certificate) => "put the client certificate in PEM form",
        (_, FileKind::Key) => "put the private key in PEM form",
        (_, FileKind::Password) => "put the password",
    }
}
