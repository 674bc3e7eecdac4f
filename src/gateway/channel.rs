//! HTTP/2 on one dialled connection, as a channel for calls.
//!
//! May not dial again: a channel is one connection and ends with it, so that whoever holds it knows
//! of every break. (tonic's own channels reconnect in silence, and a subscription would be lost.)

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

use super::options::GatewayOptions;
use crate::net::Stream;

/// How much of one stream may be under way unread. A full queue of 65,536 changes is 1.3 MB, so a
/// gateway can hand over all of it without waiting for us.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;

/// The same for all streams of a connection: a large list does not hold up the changes. It is as
/// large as it is for what h2 makes of it: half of it is what small frames that wait unread may
/// cost, at up to 256 bytes each, before h2 itself ends the connection (`too_many_data_frames`,
/// since 0.4.16). A stream's window full of the smallest changes, 17 bytes in a frame each as
/// grpc-go sends them, costs 28 MB.
const CONNECTION_WINDOW: u32 = 32 * STREAM_WINDOW;

/// The largest header list taken. A Multi error names each failed device in a trailer (wire,
/// section 1): a thousand are 100 to 200 KiB, and hyper's default of 16 KiB would break the whole
/// call.
const HEADER_LIST_LEN_MAX: u32 = 4 * 1024 * 1024;

/// How a connection that is idle shows that it still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeepAlive {
    /// HTTP/2 pings.
    Pings,
    /// A light call, for gateways that close a connection with `too_many_pings`: servers of grpc-go
    /// and grpc-core take one ping in five minutes, and close after the third that comes sooner.
    Calls,
}

/// Starts HTTP/2 on an open connection.
pub(super) async fn open(
    stream: Box<dyn Stream>,
    options: &GatewayOptions,
    keep_alive: KeepAlive,
) -> Result<Channel, tonic::transport::Error> {
    // The scheme of the endpoint only keeps tonic from doing TLS; the gateway sees the origin's.
    let endpoint = Endpoint::from_shared(format!("http://{}", options.address))?
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADER_LIST_LEN_MAX)
        .user_agent(concat!("gsdk2mqtt/", env!("CARGO_PKG_VERSION")))?;
    let endpoint = match format!("https://{}", options.address).parse() {
        Ok(origin) => endpoint.origin(origin),
        Err(_) => endpoint,
    };
    let endpoint = match keep_alive {
        KeepAlive::Pings => endpoint
            .http2_keep_alive_interval(options.timing.keep_alive_interval)
            .keep_alive_timeout(options.timing.keep_alive_timeout)
            .keep_alive_while_idle(true),
        KeepAlive::Calls => endpoint,
    };
    let only = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let connector = tower::service_fn(move |_| {
        let socket = only.lock().unwrap_or_else(PoisonError::into_inner).take();
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
        std::future::ready(socket.ok_or_else(gone))
    });
    endpoint.connect_with_connector(connector).await
}
