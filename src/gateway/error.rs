//! What can go wrong between us and a gateway, in plain words and with a stable code.
//!
//! May not decide what follows from an error: the caller does.

use std::error::Error as StdError;
use std::time::Duration;

use tonic::{Code, Status};

use crate::ids::{GatewayName, HostPort};
use crate::net::{CERTIFICATE_ALERTS, DialError, MASTER_PORT};

use super::options::PORT_DEFAULT;

/// What grpc-go and grpc-core put into the GOAWAY that answers frequent pings, with blanks for its
/// underscores: newer servers of grpc-core end the streams with these words before.
const TOO_MANY_PINGS: &str = "too many pings";

/// A failed call, or a failed connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection came about.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The gateway answered with an error.
    #[error("gateway {gateway} answered {method} with {code}: {message}")]
    Answered {
        /// Which gateway.
        gateway: GatewayName,
        /// Which call, as on the wire.
        method: &'static str,
        /// The gRPC code in snake_case.
        code: &'static str,
        /// The gateway's own words.
        message: String,
    },
    /// The gateway did not answer in time. What was asked for may have been done all the same.
    #[error(
        "gateway {gateway} did not answer {method} within {} s; whether it was done is not known",
        deadline.as_secs_f32()
    )]
    Deadline {
        /// Which gateway.
        gateway: GatewayName,
        /// Which call, as on the wire.
        method: &'static str,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The connection broke. What was asked for may have been done all the same.
    #[error(
        "the connection to gateway {gateway} broke during {method} ({cause}); whether it was done \
         is not known"
    )]
    Broken {
        /// Which gateway.
        gateway: GatewayName,
        /// Which call, as on the wire.
        method: &'static str,
        /// What broke it.
        cause: String,
    },
    /// Neither package's service is known at this address.
    #[error(
        "gateway {gateway}: {address} knows neither gsdk.connect.Connect nor connect.Connect, so \
         it is no device gateway of the G-SDK; set gateways.{gateway}.address to one (port \
         {PORT_DEFAULT}; port {MASTER_PORT} is a master gateway)"
    )]
    NotADeviceGateway {
        /// Which gateway.
        gateway: GatewayName,
        /// What was dialled.
        address: HostPort,
    },
    /// It takes TLS but asks for a client certificate afterwards (TLS 1.3).
    #[error(
        "gateway {gateway}: {address} asks for a client certificate, as a master gateway does \
         (port {MASTER_PORT}); set gateways.{gateway}.address to a device gateway (port \
         {PORT_DEFAULT})"
    )]
    ClientCertificateWanted {
        /// Which gateway.
        gateway: GatewayName,
        /// What was dialled.
        address: HostPort,
    },
}

impl Error {
    /// A stable word for the error in snake_case: the gRPC code for a call's, a dial error's own.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Dial(error) => error.code(),
            Self::Answered { code, .. } => code,
            Self::Deadline { .. } => "deadline_exceeded",
            Self::Broken { .. } => "unavailable",
            Self::NotADeviceGateway { .. } => "not_a_device_gateway",
            Self::ClientCertificateWanted { .. } => "client_certificate_required",
        }
    }

    /// Whether the outcome of what was asked for is not known.
    #[must_use]
    pub const fn outcome_unknown(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::Broken { .. })
    }

    /// Whether nobody answers at the address now, as while a gateway restarts or hangs.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_absence(),
            Self::Broken { .. } | Self::Deadline { .. } => true,
            Self::Answered { .. }
            | Self::NotADeviceGateway { .. }
            | Self::ClientCertificateWanted { .. } => false,
        }
    }
}

/// A gRPC code in snake_case, as in all payloads and metrics.
#[must_use]
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

/// Whether a status was made here from a broken connection, not sent by the gateway.
pub(super) fn is_transport(status: &Status) -> bool {
    status.source().is_some() || status.code() == Code::Unknown && is_unready(status.message())
}

/// The words of the generated client when the channel itself is gone.
fn is_unready(message: &str) -> bool {
    message.starts_with("Service was not ready")
}

/// Whether the gateway closed the connection because of our HTTP/2 pings.
pub(super) fn is_too_many_pings(status: &Status) -> bool {
    let says_so = |text: &str| {
        let text = text.to_ascii_lowercase().replace('_', " ");
        text.contains(TOO_MANY_PINGS)
    };
    // tonic's code for a GOAWAY with ENHANCE_YOUR_CALM.
    is_transport(status) && status.code() == Code::ResourceExhausted
        || says_so(status.message())
        || chain(status).any(|error| says_so(&error.to_string()))
}

/// Whether the gateway closed the connection because it wants a certificate of ours. Between TLS
/// and here the alert is kept only as text, so its name is looked for.
pub(super) fn is_certificate_wanted(status: &Status) -> bool {
    let cause = root_cause(status);
    is_transport(status)
        && CERTIFICATE_ALERTS.iter().any(|alert| cause.ends_with(&format!("alert: {alert:?}")))
}

/// The innermost cause of a broken connection.
pub(super) fn root_cause(status: &Status) -> String {
    match chain(status).last().map(ToString::to_string) {
        // What rustls says of every process that is killed, with a link to its manual.
        Some(cause) if cause.contains("close_notify") => "the other side closed it".to_owned(),
        Some(cause) => cause,
        None => status.message().to_owned(),
    }
}

fn chain<'a>(status: &'a Status) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(status.source(), |error: &&'a (dyn StdError + 'static)| {
        let error: &'a (dyn StdError + 'static) = *error;
        error.source()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_servers_that_take_no_pings_are_known() {
        // As grpc-core 1.85 ends the streams of such a connection.
        assert!(is_too_many_pings(&Status::unavailable("Too many pings")));
        assert!(is_too_many_pings(&Status::unknown("GOAWAY: too_many_pings")));
        assert!(!is_too_many_pings(&Status::resource_exhausted("too many clients")));
    }
}
