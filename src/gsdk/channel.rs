//! HTTP/2 on one open connection, as a tonic channel.
//!
//! The channel ends with its connection. tonic's own channels reconnect silently, which would lose
//! a subscription.
//!
//! When a gateway rejects HTTP/2 pings, grpc-go names the newest stream as processed in its GOAWAY.
//! h2 then reports the same error for that stream as for a broken connection, so the reason is
//! read here, below HTTP/2.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio_util::io::InspectReader;
use tonic::body::Body;
use tonic::codegen::http::{Response, StatusCode, header};
use tonic::transport::{self, Channel, Endpoint};
use tonic::{Code, Status};
use tower::util::MapResult;

use super::options::GatewayOptions;
use crate::net::Stream;

/// Unread bytes of one stream that may be in flight. A full queue of 65,536 changes is 1.3 MB, so a
/// gateway can send all of it without waiting for us.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;

/// The same for all streams of a connection, so that a large list does not delay the changes. Half
/// of it is what h2 allows unread small frames to cost, at up to 256 bytes each, before it ends the
/// connection (`too_many_data_frames`, since 0.4.16). A stream window full of the smallest changes,
/// 17 bytes in a frame each as grpc-go sends them, costs 28 MB.
const CONNECTION_WINDOW: u32 = 32 * STREAM_WINDOW;

/// The largest header list accepted. A Multi error names each failed device in a trailer: a
/// thousand are 100 to 200 KiB, and hyper's default of 16 KiB would fail the call.
const HEADER_LIST_LEN_MAX: u32 = 4 * 1024 * 1024;

const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: [u8; 4] = 0xb_u32.to_be_bytes();
const HEAD_LEN: usize = 9;
/// The head of a GOAWAY, the newest stream, and the error code.
const GOAWAY_LEN: usize = HEAD_LEN + 8;

/// How an idle connection is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    /// HTTP/2 pings.
    Pings,
    /// A light call, for gateways that close a connection with `too_many_pings`: servers of grpc-go
    /// and grpc-core accept one ping in five minutes, and close after the third that comes sooner.
    Calls,
}

/// A channel that fails where something else than a gRPC server answers.
pub(crate) type GrpcChannel = MapResult<Channel, CheckResponse>;

type CheckResponse =
    fn(Result<Response<Body>, transport::Error>) -> Result<Response<Body>, ChannelError>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// The status that tonic takes for the server's own.
    #[error("{0}")]
    NotGrpc(#[source] Status),
}

/// Starts HTTP/2 on an open connection; returns also whether the gateway has ended it because of
/// pings.
pub(crate) async fn open(
    stream: Box<dyn Stream>,
    options: &GatewayOptions,
    keep_alive: KeepAlive,
) -> Result<(GrpcChannel, PingsRejected), transport::Error> {
    // The endpoint's scheme only keeps tonic from doing TLS; the gateway receives the origin's.
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
    let (stream, pings_rejected) = watch_for_goaway(stream);
    let socket = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let connector = tower::service_fn(move |_| {
        let socket = socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ended = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
        std::future::ready(socket.ok_or_else(ended))
    });
    let channel = endpoint.connect_with_connector(connector).await?;
    Ok((MapResult::new(channel, check as CheckResponse), pings_rejected))
}

/// The error page of a web server or proxy is no answer. tonic would take it for the start of a
/// stream.
fn check(
    response: Result<Response<Body>, transport::Error>,
) -> Result<Response<Body>, ChannelError> {
    let response = response?;
    match response.headers().get(header::CONTENT_TYPE) {
        Some(of) if !of.as_bytes().starts_with(b"application/grpc") => {
            let status = response.status();
            let code = match status {
                StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
                _ => Code::Unknown,
            };
            let message = format!("HTTP {status} and no gRPC, as from a web server or a proxy");
            Err(ChannelError::NotGrpc(Status::new(code, message)))
        }
        _ => Ok(response),
    }
}

/// Whether the gateway has ended a connection because of pings.
pub(crate) type PingsRejected = Arc<AtomicBool>;

/// The frame that is being received.
#[derive(Debug, Default)]
struct Frames {
    /// Its first bytes: the head, and of a GOAWAY also the error code.
    start: Vec<u8>,
    /// Bytes of it that are passed over.
    skip: usize,
}

impl Frames {
    /// Whether one of these bytes completes a GOAWAY with ENHANCE_YOUR_CALM.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let mut found = false;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = if self.start.get(3) == Some(&GOAWAY) { GOAWAY_LEN } else { HEAD_LEN };
            let taken = wanted.saturating_sub(self.start.len()).min(bytes.len());
            self.start.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if let [high, middle, low, kind, ..] = self.start[..] {
                let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                let start_len = if kind == GOAWAY { GOAWAY_LEN } else { HEAD_LEN };
                if self.start.len() == start_len {
                    found |= self.start[HEAD_LEN..].ends_with(&ENHANCE_YOUR_CALM);
                    self.skip = (HEAD_LEN + length).saturating_sub(start_len);
                    self.start.clear();
                }
            }
        }
        found
    }
}

/// The same connection, and whether the gateway has ended it because of pings.
fn watch_for_goaway<S: AsyncRead>(
    stream: S,
) -> (InspectReader<S, impl FnMut(&[u8])>, PingsRejected) {
    let pings_rejected = PingsRejected::default();
    let (mut frames, found) = (Frames::default(), pings_rejected.clone());
    let inspect = move |bytes: &[u8]| {
        if frames.follow(bytes) {
            found.store(true, Ordering::Relaxed);
        }
    };
    (InspectReader::new(stream, inspect), pings_rejected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_goaway_is_found_however_its_bytes_come() {
        let calm = frame(GOAWAY, &[0, 0, 0, 1, 0, 0, 0, 0xb, b't', b'o', b'o']);
        let no_error = frame(GOAWAY, &[0, 0, 0, 0xb, 0, 0, 0, 0]);
        // Data that looks like one, and a frame without payload.
        let others = [frame(0, &calm), frame(4, &[]), no_error, frame(0, &[7; 200])].concat();
        let all = [others.clone(), calm.clone()].concat();
        for size in [1, 2, 7, 9, 17, 1_000] {
            let mut frames = Frames::default();
            assert!(!others.chunks(size).any(|bytes| frames.follow(bytes)), "{size}");
            let mut frames = Frames::default();
            assert!(all.chunks(size).any(|bytes| frames.follow(bytes)), "{size}");
        }
    }
}
