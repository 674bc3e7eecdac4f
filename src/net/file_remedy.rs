//! The texts of dial errors about a certificate, key or password file of ours.

use std::fmt::{Formatter, Result};

use super::error::{FileFailure, FileKind, FileProblem};
use super::file::ReadError;
use super::target::Peer;

/// What is wrong with a file, and what to do.
pub(crate) fn write_file(peer: &Peer, failure: &FileFailure, f: &mut Formatter<'_>) -> Result {
    let FileFailure { kind, path, problem } = failure;
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
        FileProblem::Unread(error @ ReadError::Missing) => {
            write!(f, "the {noun} {path} {error}; {source} there, or correct {key}")
        }
        FileProblem::Unread(error @ ReadError::Forbidden) if *kind == FileKind::Ca => write!(
            f,
            "the {noun} {path} {error}; give it the right (chmod a+r; the file is no secret), \
             or correct {key}"
        ),
        FileProblem::Unread(error @ ReadError::Forbidden) => write!(
            f,
            "the {noun} {path} {error}; give it the right (chgrp and chmod g+r), or correct \
             {key}"
        ),
        FileProblem::Unread(error @ ReadError::NoHandles(_)) => {
            write!(f, "the {noun} {path} {error}")
        }
        FileProblem::Unread(error) => write!(f, "the {noun} {path} {error}; correct {key}"),
        FileProblem::Unusable(problem) => {
            write!(f, "the {noun} {path} {problem}; {source} there again, or correct {key}")
        }
        FileProblem::KeyMismatch => write!(
            f,
            "the {noun} {path} is not the key of the certificate in {}; name the two that \
             were made together there and in {key}",
            peer.key("cert_file")
        ),
    }
}
