//! Why a connection could not be established: one error for gateways and brokers, because the
//! causes are the same.

use std::path::Path;

use super::certificate_failure::CertificateFailure;
use super::code::DialCode;
use super::failure::DialFailure;
use super::file::SecretError;
use super::file_failure::{FileFailure, FileKind};
use super::target::DialTarget;
use crate::ids::Moment;

/// A failed attempt to connect.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DialError {
    pub(crate) code: DialCode,
    message: String,
    /// Those in the certificate, where none of them is the expected one.
    pub(crate) names: Vec<String>,
    /// When the certificate ends that was refused.
    pub(crate) certificate_expires_at: Option<Moment>,
}

impl DialError {
    pub(crate) fn new(target: &DialTarget, failure: DialFailure) -> Self {
        let (code, mut message) = failure.describe(target);
        if target.peer.is_gateway() {
            message = format!("{}: {message}", target.peer);
        }
        let (mut names, mut certificate_expires_at) = (Vec::new(), None);
        if let DialFailure::Certificate { failure, not_after } = failure {
            certificate_expires_at = Some(not_after);
            if let CertificateFailure::NameMismatch { names: presented, .. } = failure {
                names = presented;
            }
        }
        Self { code, message, names, certificate_expires_at }
    }

    /// A password that cannot be had from its file.
    pub(crate) fn password(target: &DialTarget, path: &Path, error: SecretError) -> Self {
        let failure = match error {
            SecretError::Unread(error) => FileFailure::unread(FileKind::Password, path, error),
            error => FileFailure::unusable(FileKind::Password, path, error.to_string()),
        };
        Self::new(target, failure.into())
    }
}
