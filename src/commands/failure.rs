//! Why a command was not run or failed: a stable code, and a message with the remedy.

use std::fmt;

use serde::{Serialize, Serializer};
use tonic::Code;

use crate::gsdk::{Error, ErrorCode, NOT_STORED};
use crate::ids::{DeviceId, GatewayName};

/// The code of a failure in answers, metrics and the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum FailureCode {
    /// The gateway's own code, which is gRPC's in snake case, or that of its link.
    Gateway(ErrorCode),
    InvalidRequest,
    UnknownCommand,
    /// `commands.allow` does not name the command.
    NotPermitted,
    RateLimited,
    /// The request is too large.
    TooLarge,
    /// The answer is larger than the broker accepts.
    AnswerTooLarge,
    /// The request expired before it ran.
    Expired,
    /// There is no link to the gateway.
    GatewayUnavailable,
    /// The bridge stopped while the command ran: its outcome is unknown.
    Interrupted,
    /// No answer in time: the outcome is unknown.
    Timeout,
}

impl FailureCode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway(code) => code.as_str(),
            other => other.into(),
        }
    }

    /// The gRPC code, if it is one.
    pub const fn grpc(self) -> Option<Code> {
        match self {
            Self::Gateway(ErrorCode::Grpc(code)) => Some(code),
            _ => None,
        }
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for FailureCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl From<Code> for FailureCode {
    fn from(code: Code) -> Self {
        Self::Gateway(ErrorCode::Grpc(code))
    }
}

impl From<&Error> for FailureCode {
    fn from(error: &Error) -> Self {
        match error {
            Error::Deadline { .. } => Self::Timeout,
            Error::Dial(_) => Self::GatewayUnavailable,
            Error::NotStored(error) => Self::from(&**error),
            _ => Self::Gateway(error.code()),
        }
    }
}

/// Why a command was not run or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    pub code: FailureCode,
    /// What is wrong and what to do.
    pub message: String,
    /// Whether a change may have been made, at least in part.
    #[serde(skip)]
    pub may_be_made: bool,
}

impl Failure {
    pub fn new(code: impl Into<FailureCode>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), may_be_made: false }
    }

    /// The gateway has made a change that its master could not store.
    #[must_use]
    pub fn not_stored(self) -> Self {
        let message = format!("{}; {NOT_STORED}", self.message);
        Self { message, may_be_made: true, ..self }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailureCode::InvalidRequest, message)
    }

    /// A command contradicts what the configuration declares of a device.
    pub fn declared_by_configuration(gateway: &GatewayName, id: DeviceId) -> Self {
        Self::invalid(format!(
            "the configuration declares how device {id} is connected; change \
             gateways.{gateway}.devices.{id}.connect there (\"observe\" leaves it to commands) \
             and restart the bridge"
        ))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = FailureCode::from(&error);
        let remedy = match error.grpc_code() {
            Some(Code::NotFound) if error.is_gateway_missing() => {
                "; `check --connect` lists the gateways that the master has for this tenant"
            }
            Some(Code::NotFound) => "; `devices` shows what the gateway has",
            _ => "",
        };
        let may_be_made = error.outcome_unknown();
        Self { code, message: format!("{error}{remedy}"), may_be_made }
    }
}
