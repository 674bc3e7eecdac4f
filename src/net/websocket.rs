//! MQTT over WebSocket: the handshake, and a stream of bytes in binary frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::explain::late_failure;
use super::failure::{DialFailure, WebsocketFailure};
use super::target::DialTarget;
use crate::ids::HostPort;

/// The name of MQTT among the protocols over WebSocket.
const SUB_PROTOCOL: &str = "mqtt";
/// The largest message of the broker, which may hold several packets: twice the largest packet that
/// a session accepts.
const MESSAGE_SIZE_MAX: usize = 32 << 20;
/// The bytes of one frame of ours at most, so that a large packet takes no large copy.
const FRAME_SIZE_MAX: usize = 64 << 10;

/// The bytes in the binary frames of a connection.
pub(crate) struct WebSocket<S> {
    frames: WebSocketStream<S>,
    /// What has been received and not yet read.
    received: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Opens MQTT over WebSocket at this path.
    pub(crate) async fn connect(stream: S, address: &HostPort, path: &str) -> Result<Self, Error> {
        // The scheme changes nothing: TLS, if there is any, is below.
        let uri: Uri = format!("ws://{address}{path}").parse()?;
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUB_PROTOCOL);
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_SIZE_MAX))
            .max_frame_size(Some(MESSAGE_SIZE_MAX));
        let (frames, _) = client_async_with_config(request, stream, Some(config)).await?;
        Ok(Self { frames, received: Bytes::new() })
    }
}

/// Why there is no WebSocket; `certificate_requested`: by the TLS handshake before.
pub(crate) fn failure(
    error: Error,
    target: &DialTarget,
    certificate_requested: bool,
) -> DialFailure {
    DialFailure::Websocket(match error {
        Error::Io(error) => match late_failure(target, certificate_requested, &error) {
            Some(failure) => return DialFailure::Tls(failure),
            None => WebsocketFailure::NotHttp(error.to_string()),
        },
        Error::Http(response) => WebsocketFailure::NotWebsocket(response.status().to_string()),
        Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => WebsocketFailure::NoMqtt,
        Error::Protocol(
            error @ (ProtocolError::WrongHttpVersion
            | ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::SecWebSocketAcceptKeyMismatch),
        ) => WebsocketFailure::NotWebsocket(error.to_string()),
        Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            WebsocketFailure::NotHttp("it closed the connection".to_owned())
        }
        error => WebsocketFailure::NotHttp(error.to_string()),
    })
}

/// An error of an open connection. What its socket says is passed on as it is: it may be an alert
/// of TLS.
fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.received.is_empty() {
            match ready!(self.frames.poll_next_unpin(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.received = bytes,
                Some(Ok(Message::Text(_))) => {
                    let message = "a text frame came over WebSocket, and MQTT has binary ones";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
                }
                // The library answers pings.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_)))
                | Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)))
                | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let count = self.received.len().min(buf.remaining());
        buf.put_slice(&self.received[..count]);
        self.received.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.frames.poll_ready_unpin(cx)).map_err(broken)?;
        let frame = &bytes[..bytes.len().min(FRAME_SIZE_MAX)];
        let message = Message::Binary(Bytes::copy_from_slice(frame));
        self.frames.start_send_unpin(message).map_err(broken)?;
        Poll::Ready(Ok(frame.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.frames.poll_flush_unpin(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.frames.poll_close_unpin(cx).map_err(broken)
    }
}
