//! Why a link is lost, in plain words, and what follows for the next attempt.
//!
//! May not log nor wait: `link.rs` does.

use tonic::Status;

use crate::ids::GatewayName;

use super::client::{GatewayClient, Refusal};
use super::error::{Error, code_name, is_too_many_pings, is_transport, root_cause};
use super::observation::LinkError;
use super::options::PORT_DEFAULT;
use super::subscription::StreamEnd;

/// Why a link is lost, or did not come to stand.
pub(super) struct Lost {
    pub(super) error: LinkError,
    /// Whether nobody answers at the address now, as while a gateway restarts or hangs.
    pub(super) absence: bool,
    /// Whether the gateway closed the connection because of our HTTP/2 pings.
    pub(super) pings_unwanted: bool,
}

impl Lost {
    fn new(code: &'static str, message: String) -> Self {
        let error = LinkError::new(code, message);
        Self { error, absence: false, pings_unwanted: false }
    }

    /// By a call or an attempt to connect.
    pub(super) fn by(error: &Error) -> Self {
        let absence = error.is_absence();
        Self { error: LinkError::from(error), absence, pings_unwanted: false }
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
                Self { absence: true, ..Self::new("stream_ended", message) }
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
        let absence = code == "unavailable";
        Self { absence, pings_unwanted: is_too_many_pings(status), ..Self::new(code, text) }
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
        Self { absence: true, pings_unwanted, ..Self::new("connection_lost", message) }
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
        Self { absence: true, ..Self::new("no_sign_of_life", message) }
    }
}
