//! Why a link ended or could not be established, and how this affects the next attempt.

use std::time::Duration;

use tonic::{Code, Status};

use super::connection::GrpcConnection;
use super::error::{
    Error, ErrorCode, LinkError, TOO_MANY_PINGS, code_name, is_too_many_pings, root_cause, text,
};
use crate::net::Peer;

/// A gateway that stops ends its streams, a proxy ends those of a certain age. A stream that ends
/// within this time after the link came up is refused.
const BRIEF: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Disconnect {
    error: LinkError,
    kind: DisconnectKind,
}

#[derive(Clone, Copy, Debug)]
enum DisconnectKind {
    /// Nothing answers at the address now, as while a gateway restarts or hangs.
    Absent,
    /// The gateway, or a proxy in front of it, ended the stream.
    StreamEnded,
    /// The gateway closed the connection because of our HTTP/2 pings.
    PingsRejected,
    /// The gateway answers, but not as it should.
    Refused,
}

impl Disconnect {
    fn new(kind: DisconnectKind, code: ErrorCode, message: String) -> Self {
        Self { error: LinkError::new(code, message), kind }
    }

    pub(crate) fn from_overflow(peer: &Peer) -> Self {
        let message = format!(
            "{peer}: the event queue is full, so the status stream was closed; all \
             states are read again when there is room"
        );
        Self::new(DisconnectKind::Refused, ErrorCode::Overflow, message)
    }

    /// From a panic during an attempt, or on a link that was up.
    pub(crate) fn from_panic(peer: &Peer, panic: &str) -> Self {
        let message =
            format!("{peer}: internal error: its task panicked; please report this: {panic}");
        Self::new(DisconnectKind::Refused, ErrorCode::Internal, message)
    }

    /// From the end of the status stream without an error.
    pub(crate) fn from_stream_end(connection: &GrpcConnection) -> Self {
        let message = format!(
            "{} ended the status stream; it is probably stopping or restarting",
            connection.options().peer
        );
        Self::new(DisconnectKind::StreamEnded, ErrorCode::StreamEnded, message)
    }

    /// From an error of the status stream.
    pub(crate) fn from_stream(connection: &GrpcConnection, error: Error) -> Self {
        match error {
            Error::Status { peer, status, .. } => Self::from_status(&peer, &status),
            error => Self::from_call(connection, error),
        }
    }

    /// From a call that failed on a link that was up. Whether a call or the stream notices first
    /// that a connection broke is chance, and does not change the reason.
    pub(crate) fn from_call(connection: &GrpcConnection, error: Error) -> Self {
        match error {
            Error::Broken { status, .. } => Self::from_transport(connection, &status),
            error => error.into(),
        }
    }

    /// From an error that the gateway sent on the stream.
    fn from_status(peer: &Peer, status: &Status) -> Self {
        let code = status.code();
        let reason = match status.message() {
            "" => String::new(),
            _ => format!(" ({})", text(status)),
        };
        let kind = match code {
            _ if is_too_many_pings(status) => DisconnectKind::PingsRejected,
            Code::Unavailable => DisconnectKind::Absent,
            _ => DisconnectKind::StreamEnded,
        };
        let name = code_name(code);
        let message = format!("{peer} refused or ended the status stream: {name}{reason}");
        Self::new(kind, ErrorCode::Grpc(code), message)
    }

    /// From a broken connection.
    fn from_transport(connection: &GrpcConnection, status: &Status) -> Self {
        let options = connection.options();
        if connection.activity().idle_for() >= options.timing.keep_alive_timeout {
            return Self::from_timeout(connection);
        }
        let hint = match connection.api_version() {
            Some(_) => String::new(),
            None => {
                format!(" before any answer; check that it is the {}", options.peer.expected_port())
            }
        };
        let (kind, cause) = match connection.pings_rejected() {
            true => (DisconnectKind::PingsRejected, TOO_MANY_PINGS.to_owned()),
            false => (DisconnectKind::Absent, root_cause(status)),
        };
        let (peer, address) = (&options.peer, &options.address);
        let message = format!("{peer}: the connection to {address} broke ({cause}){hint}");
        Self::new(kind, ErrorCode::ConnectionLost, message)
    }

    /// From a keep-alive timeout: no bytes received since the probe.
    pub(crate) fn from_timeout(connection: &GrpcConnection) -> Self {
        let options = connection.options();
        let message = format!(
            "{}: nothing received from {} for {:.0} s, not even an answer to keep-alive; \
             the gateway hangs, or the network is cut",
            options.peer,
            options.address,
            connection.activity().idle_for().as_secs_f32()
        );
        Self::new(DisconnectKind::Absent, ErrorCode::NoSignOfLife, message)
    }

    /// Whether the gateway closed the connection because of our HTTP/2 pings.
    pub(crate) const fn pings_rejected(&self) -> bool {
        matches!(self.kind, DisconnectKind::PingsRejected)
    }

    /// Whether another attempt soon costs the gateway nothing; `lasted`: how long the link was up.
    pub(crate) fn is_absence(&self, lasted: Option<Duration>) -> bool {
        match self.kind {
            DisconnectKind::Absent | DisconnectKind::PingsRejected => true,
            DisconnectKind::StreamEnded => lasted.is_some_and(|lasted| lasted >= BRIEF),
            DisconnectKind::Refused => false,
        }
    }

    pub(crate) const fn error(&self) -> &LinkError {
        &self.error
    }
}

/// From a failed call or a failed attempt to connect.
impl From<Error> for Disconnect {
    fn from(error: Error) -> Self {
        let kind =
            if error.is_absence() { DisconnectKind::Absent } else { DisconnectKind::Refused };
        Self { error: LinkError::from(&error), kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As by a proxy with a maximum age of streams.
    #[test]
    fn a_stream_that_ends_after_a_while_is_opened_again_soon() {
        let peer = Peer::Gateway("lobby".parse().unwrap());
        let end = Disconnect::from_status(&peer, &Status::internal("stream timeout"));
        assert!(end.is_absence(Some(Duration::from_secs(20))));
        assert!(!end.is_absence(Some(Duration::from_secs(1))));
        assert!(!end.is_absence(None), "it was refused");
    }
}
