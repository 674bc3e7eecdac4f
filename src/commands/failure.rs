//! Why a command was not run, or failed: a stable code, and words that say what to do.
//!
//! May not decide what follows.

use serde::Serialize;
use tonic::Code;

use crate::gsdk::Error;

/// The codes that are the bridge's own; the others are gRPC's in snake case.
pub mod code {
    /// Something in the request is wrong.
    pub const INVALID_REQUEST: &str = "invalid_request";
    /// There is no such command.
    pub const UNKNOWN_COMMAND: &str = "unknown_command";
    /// `commands.allow` does not name it.
    pub const NOT_PERMITTED: &str = "not_permitted";
    /// Too many requests.
    pub const RATE_LIMITED: &str = "rate_limited";
    /// The request is too large.
    pub const TOO_LARGE: &str = "too_large";
    /// The answer is larger than the broker takes.
    pub const ANSWER_TOO_LARGE: &str = "answer_too_large";
    /// The request's expiry ran out while it waited.
    pub const EXPIRED: &str = "expired";
    /// There is no link to the gateway.
    pub const GATEWAY_UNAVAILABLE: &str = "gateway_unavailable";
    /// The bridge stopped while it ran: the outcome is not known.
    pub const INTERRUPTED: &str = "interrupted";
    /// What is asked for cannot be read now.
    pub const UNAVAILABLE: &str = "unavailable";
    /// No answer in time: the outcome is not known.
    pub const TIMEOUT: &str = "timeout";
}

/// Why a command was not run, or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// A gRPC code in snake case, or one of [`code`].
    pub code: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl Failure {
    /// A failure with this code.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The request is wrong.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(code::INVALID_REQUEST, message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Deadline { .. } => code::TIMEOUT,
            Error::Dial(_) => code::GATEWAY_UNAVAILABLE,
            _ => error.code().as_str(),
        };
        let remedy = match error.grpc_code() {
            Some(Code::NotFound) => "; `devices` shows what the gateway has",
            _ => "",
        };
        Self::new(code, format!("{error}{remedy}"))
    }
}
