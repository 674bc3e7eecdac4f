//! MQTT over WebSocket: the handshake, and a stream of bytes in binary frames.

use std::future::ready;
use std::io;

use bytes::Bytes;
use futures_util::stream::iter;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Error, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::explain::late_failure;
use super::failure::{DialFailure, WebsocketFailure};
use super::target::DialTarget;
use crate::ids::HostPort;

/// The name of MQTT among the protocols over WebSocket.
const SUB_PROTOCOL: &str = "mqtt";
/// The largest message of the broker, which may hold several packets: twice the largest packet that
/// a session accepts.
const MESSAGE_SIZE_MAX: usize = 32 << 20;
/// The bytes of one frame of ours at most: some brokers accept no longer ones by default (Artemis
/// 64 KiB).
const FRAME_SIZE_MAX: usize = 64 << 10;

/// Opens MQTT over WebSocket at this path: the bytes in the binary frames of the connection.
pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Send + Sync + Unpin>(
    stream: S,
    address: &HostPort,
    path: &str,
) -> Result<impl AsyncRead + AsyncWrite + Send + Sync + Unpin + use<S>, Error> {
    // The scheme changes nothing: TLS, if there is any, is below.
    let uri: Uri = format!("ws://{address}{path}").parse()?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUB_PROTOCOL);
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_SIZE_MAX))
        .max_frame_size(Some(MESSAGE_SIZE_MAX));
    let (messages, _) = client_async_with_config(request, stream, Some(config)).await?;
    let bytes = messages
        .take_while(|message| ready(!is_end(message)))
        .filter_map(|message| ready(content(message).transpose()))
        .sink_map_err(broken)
        .with_flat_map(|bytes| iter(binary_messages(bytes)));
    Ok(SinkWriter::new(StreamReader::new(CopyToBytes::new(bytes))))
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

/// Whether the broker ends the connection with this.
const fn is_end(message: &Result<Message, Error>) -> bool {
    matches!(
        message,
        Ok(Message::Close(_)) | Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))
    )
}

/// The bytes of a message; `None` where it carries none of MQTT.
fn content(message: Result<Message, Error>) -> io::Result<Option<Bytes>> {
    match message.map_err(broken)? {
        Message::Binary(bytes) => Ok(Some(bytes)),
        Message::Text(_) => {
            let message = "a text frame came over WebSocket, and MQTT has binary ones";
            Err(io::Error::new(io::ErrorKind::InvalidData, message))
        }
        // The library answers pings.
        _ => Ok(None),
    }
}

/// What is written, in messages of [`FRAME_SIZE_MAX`] at most.
fn binary_messages(mut bytes: Bytes) -> impl Iterator<Item = io::Result<Message>> {
    std::iter::from_fn(move || {
        let frame = bytes.split_to(bytes.len().min(FRAME_SIZE_MAX));
        (!frame.is_empty()).then_some(Ok(Message::Binary(frame)))
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
