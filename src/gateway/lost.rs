//! Why a link is lost, in plain words, and what follows for the next attempt.
//!
//! May not log nor wait: `link.rs` does.

use std::time::Duration;

use tonic::{Code, Status};

use crate::ids::GatewayName;

use super::client::{GatewayClient, Refusal};
use super::error::{Error, code_name, is_too_many_pings, is_transport, root_cause};
use super::observation::LinkError;
use super::options::PORT_DEFAULT;
use super::subscription::StreamEnd;

/// Why a link is lost, or did not come to stand.
pub(super) struct Lost {
    pub(super) error: LinkError,
    pub(super) kind: LostKind,
    /// Whether the gateway closed the connection because of our HTTP/2 pings.
    pub(super) pings_unwanted: bool,
}

/// What a loss says of the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LostKind {
    /// Nothing answers at the address now, as while a gateway restarts or hangs.
    Absent,
    /// The gateway ended the stream in order, as when it stops; or at once, as when it is wrong.
    Ended,
    /// Something answers, but not as it should.
    Wrong,
}

/// A stream that the gateway ends in order sooner than this was not ended by a gateway that stops.
const BRIEF: Duration = Duration::from_secs(5);

impl LostKind {
    /// Whether asking again soon costs the gateway nothing, after a link that held this long.
    pub(super) fn is_absence(self, held: Option<Duration>) -> bool {
        match self {
            Self::Absent => true,
            Self::Ended => held.is_some_and(|held| held >= BRIEF),
            Self::Wrong => false,
        }
    }
}

impl Lost {
    fn new(code: &'static str, message: String) -> Self {
        let error = LinkError::new(code, message);
        Self { error, kind: LostKind::Wrong, pings_unwanted: false }
    }

    /// By a call or an attempt to connect.
    pub(super) fn by(error: &Error) -> Self {
        let kind = if error.is_absence() { LostKind::Absent } else { LostKind::Wrong };
        Self { error: LinkError::from(error), kind, pings_unwanted: false }
    }

    /// By a full queue.
    pub(super) fn by_overflow(gateway: &GatewayName) -> Self {
        let message = format!(
            "gateway {gateway}: more changes than can be taken up are waiting, so its stream was \
             dropped; all states are read anew once there is room"
        );
        Self::new("overflow", message)
    }

    /// By the end of the stream.
    pub(super) fn by_stream(client: &GatewayClient, end: StreamEnd) -> Self {
        match end {
            Err(status) if client.wants_certificate(&status) => {
                Self::by(&client.error("SubscribeStatus", Refusal::Answer(status)))
            }
            Err(status) if is_transport(&status) => Self::by_break(client, &status),
            Err(status) => Self::by_refusal(client, &status),
            Ok(()) => {
                let message = format!(
                    "gateway {} ended the status stream; it is probably stopping or restarting",
                    client.options().name
                );
                Self { kind: LostKind::Ended, ..Self::new("stream_ended", message) }
            }
        }
    }

    fn by_refusal(client: &GatewayClient, status: &Status) -> Self {
        let (gateway, code) = (&client.options().name, code_name(status.code()));
        let text = format!("gateway {gateway} refused or ended the status stream: {code}");
        let text = match status.message() {
            "" => text,
            message => format!("{text} ({message})"),
        };
        let unavailable = status.code() == Code::Unavailable;
        let kind = if unavailable { LostKind::Absent } else { LostKind::Wrong };
        Self { kind, pings_unwanted: is_too_many_pings(status), ..Self::new(code, text) }
    }

    fn by_break(client: &GatewayClient, status: &Status) -> Self {
        let options = client.options();
        if client.activity().idle_for() >= options.timing.keep_alive_timeout {
            return Self::by_silence(client);
        }
        let message = format!(
            "gateway {}: the connection to {} broke ({})",
            options.name,
            options.address,
            root_cause(status)
        );
        let message = match client.package() {
            Some(_) => message,
            None => format!(
                "{message} before any answer; check that it is the gateway's gRPC port (usually \
                 {PORT_DEFAULT})"
            ),
        };
        let pings_unwanted = is_too_many_pings(status);
        Self { kind: LostKind::Absent, pings_unwanted, ..Self::new("connection_lost", message) }
    }

    /// By nothing having come, though a sign of life was asked for.
    pub(super) fn by_silence(client: &GatewayClient) -> Self {
        let options = client.options();
        let message = format!(
            "gateway {}: nothing came from {} for {:.0} s, not even an answer to a sign of life; \
             it hangs, or the network in between is cut",
            options.name,
            options.address,
            client.activity().idle_for().as_secs_f32()
        );
        Self { kind: LostKind::Absent, ..Self::new("no_sign_of_life", message) }
    }
}
