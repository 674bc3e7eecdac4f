//! Errors of a gateway's calls and links, each with a stable code and a remedy.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};

use super::rpc::Method;
use crate::ids::{GATEWAY_PORT, HostPort, MASTER_PORT, Moment};
use crate::net::{DialCode, DialError, Peer};

/// The text with which grpc-go and grpc-core reject frequent pings, with spaces for underscores:
/// the first write it with underscores into GOAWAY, newer servers of grpc-core end the streams
/// with it as a message before that.
pub(crate) const TOO_MANY_PINGS: &str = "too many pings";

/// The characters of a gateway's own text in one of ours, which is logged and published.
const TEXT_LEN_MAX: usize = 500;

/// The end of a message about a change that a gateway has made and its master could not store.
pub(crate) const NOT_STORED: &str = "the gateway has the change, but unless it is repeated the \
                                     master may undo it at the gateway's next connection";

/// A failed call, or a failed attempt to connect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The gateway answered with an error.
    #[error("{peer} answered {method} with {}: {}", code_name(status.code()), text(status))]
    Status { peer: Peer, method: Method, status: Status },
    /// No answer in time. The gateway may have executed the call.
    #[error("{peer} did not answer {method} within {} s{}", rounded(*deadline), doubt(*method))]
    Deadline { peer: Peer, method: Method, deadline: Duration },
    /// The connection broke. The gateway may have executed the call.
    #[error(
        "the connection to {peer} broke during {method} ({}){}",
        root_cause(status),
        doubt(*method)
    )]
    Broken { peer: Peer, method: Method, status: Status },
    /// The service is unknown at this address in both API versions.
    #[error(
        "{peer}: {address} knows neither gsdk.connect.Connect nor connect.Connect, so it is no \
         device gateway of the G-SDK; set {} to one (port {GATEWAY_PORT}; port {MASTER_PORT} is a \
         master gateway)",
        peer.address_key()
    )]
    NotADeviceGateway { peer: Peer, address: HostPort },
    /// The same for the services of a master.
    #[error(
        "{peer}: {address} knows neither gsdk.login.Login nor login.Login, so it is no master \
         gateway of the G-SDK; set {} to one (port {MASTER_PORT}), or describe this device gateway \
         under [gateways.NAME], without cert_file and key_file",
        peer.address_key()
    )]
    NotAMasterGateway { peer: Peer, address: HostPort },
    /// The master does not accept the tenant's certificate.
    #[error(
        "{peer} refused the login: {}: {}; put the certificate of a tenant of this master into \
         {}, and its key into {}",
        code_name(status.code()),
        text(status),
        peer.key("cert_file"),
        peer.key("key_file")
    )]
    LoginRefused { peer: Peer, status: Status },
    /// A gateway has made a change that its master could not store.
    #[error("{0}; {NOT_STORED}")]
    NotStored(Box<Self>),
}

/// Seconds with milliseconds.
fn rounded(deadline: Duration) -> f64 {
    (deadline.as_secs_f64() * 1000.0).round() / 1000.0
}

/// The end of the message about a call without an answer.
const fn doubt(method: Method) -> &'static str {
    if method.is_change { "; whether it was done is not known" } else { "" }
}

impl Error {
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Dial(error) => ErrorCode::Dial(error.code),
            Self::Status { status, .. } => ErrorCode::Grpc(status.code()),
            Self::Deadline { .. } => ErrorCode::Grpc(Code::DeadlineExceeded),
            Self::Broken { .. } => ErrorCode::Grpc(Code::Unavailable),
            Self::NotADeviceGateway { .. } => ErrorCode::NotADeviceGateway,
            Self::NotAMasterGateway { .. } => ErrorCode::NotAMasterGateway,
            Self::LoginRefused { .. } => ErrorCode::LoginRefused,
            Self::NotStored(error) => error.code(),
        }
    }

    /// The code with which the gateway itself answered, if it did.
    pub fn grpc_code(&self) -> Option<Code> {
        match self {
            Self::Status { status, .. } => Some(status.code()),
            Self::NotStored(error) => error.grpc_code(),
            _ => None,
        }
    }

    /// Whether a master answered that it does not have the gateway: its reads name nothing else.
    pub(crate) fn is_gateway_missing(&self) -> bool {
        match self {
            Self::Status { peer: Peer::Master(_), method, status } => {
                status.code() == Code::NotFound && !method.is_change
            }
            Self::NotStored(error) => error.is_gateway_missing(),
            _ => false,
        }
    }

    /// Whether the gateway may have executed the call, or a part of it.
    pub const fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::Broken { .. } | Self::NotStored(_))
    }

    /// That of a call to store a change which the gateway has made.
    pub(crate) fn not_stored(self) -> Self {
        Self::NotStored(Box::new(self))
    }

    /// Whether nothing answers at the address now, as while a gateway restarts or hangs.
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            Self::Dial(error) => error.code.is_absence(),
            error => matches!(error, Self::Broken { .. } | Self::Deadline { .. }),
        }
    }
}

/// The stable code of an error in payloads, metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[cfg_attr(test, derive(strum::VariantNames))]
#[strum(serialize_all = "snake_case")]
pub enum ErrorCode {
    Dial(DialCode),
    Grpc(Code),
    NotADeviceGateway,
    NotAMasterGateway,
    LoginRefused,
    /// The master has no connection to the gateway.
    GatewayNotConnected,
    /// The master does not list the gateway.
    GatewayNotListed,
    ConnectionLost,
    StreamEnded,
    NoSignOfLife,
    Overflow,
    /// An attempt to connect, or the link, ended in a panic.
    Internal,
}

impl ErrorCode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dial(code) => code.as_str(),
            Self::Grpc(code) => code_name(code),
            other => other.into(),
        }
    }

    /// Whether a master says that it has no connection to the gateway.
    pub(crate) const fn is_gateway_absent(self) -> bool {
        matches!(self, Self::GatewayNotConnected | Self::GatewayNotListed)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A gRPC code in snake_case, as in all payloads and metrics.
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The message of a status that the gateway sent, cut at [`TEXT_LEN_MAX`].
pub(crate) fn text(status: &Status) -> &str {
    match status.message() {
        "" => "no reason given",
        message => {
            let end = message.char_indices().nth(TEXT_LEN_MAX).map(|(end, _)| end);
            &message[..end.unwrap_or(message.len())]
        }
    }
}

/// Whether tonic made this status from a broken connection, so that the gateway did not send it.
pub(crate) fn is_transport(status: &Status) -> bool {
    status.source().is_some()
}

/// Whether the gateway ended a stream because of our HTTP/2 pings.
pub(crate) fn is_too_many_pings(status: &Status) -> bool {
    status.message().to_ascii_lowercase().replace('_', " ").contains(TOO_MANY_PINGS)
}

/// The innermost cause of a broken connection.
pub(crate) fn root_cause(status: &Status) -> String {
    match sources(status).last().map(ToString::to_string) {
        // rustls's text for a killed process, with a link to its manual.
        Some(cause) if cause.contains("close_notify") => "the other side closed it".to_owned(),
        Some(cause) => cause,
        None => status.message().to_owned(),
    }
}

fn sources<'a>(status: &'a Status) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let source = |error: &&'a (dyn StdError + 'static)| (*error).source();
    std::iter::successors(status.source(), source)
}

/// Why a link is down or a list failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkError {
    pub code: ErrorCode,
    /// What failed and what to do, in one line that names the gateway.
    pub message: Arc<str>,
    /// When the gateway's certificate ends, if that was refused.
    pub certificate_expires_at: Option<Moment>,
}

impl LinkError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<Arc<str>>) -> Self {
        Self { code, message: message.into(), certificate_expires_at: None }
    }
}

impl From<&Error> for LinkError {
    fn from(error: &Error) -> Self {
        let certificate_expires_at = match error {
            Error::Dial(error) => error.certificate_expires_at,
            _ => None,
        };
        Self { certificate_expires_at, ..Self::new(error.code(), error.to_string()) }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::VariantNames as _;

    #[test]
    fn the_troubleshooting_page_has_every_code() {
        let page = std::fs::read_to_string("docs/troubleshooting.md").unwrap();
        // These two hold codes: DialCode is checked, those of gRPC are on the page as one.
        let own = ErrorCode::VARIANTS.iter().filter(|name| !["dial", "grpc"].contains(name));
        for code in own.chain(DialCode::VARIANTS) {
            assert!(page.contains(&format!("`{code}`")), "docs/troubleshooting.md lacks {code}");
        }
    }

    #[test]
    fn rejected_pings_are_recognized_in_the_texts_of_all_servers() {
        // As grpc-core 1.85 ends the streams of such a connection.
        assert!(is_too_many_pings(&Status::unavailable("Too many pings")));
        assert!(is_too_many_pings(&Status::unknown("GOAWAY: too_many_pings")));
        assert!(!is_too_many_pings(&Status::resource_exhausted("too many clients")));
    }
}
