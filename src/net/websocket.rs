//! MQTT over WebSocket: the handshake, and a stream of bytes in binary frames.

use std::fmt::Display;
use std::future::ready;
use std::io;

use bytes::Bytes;
use futures_util::stream::iter;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::error::{DialCode, DialError};
use super::explain::late_alert;
use super::target::DialTarget;

/// The name of MQTT among the protocols over WebSocket.
const SUB_PROTOCOL: &str = "mqtt";
/// The largest message of the broker, which may hold several packets: twice the largest packet that
/// a session accepts.
const MESSAGE_SIZE_MAX: usize = 32 << 20;
/// The bytes of one frame of ours at most: some brokers accept no longer ones by default (Artemis
/// 64 KiB).
const FRAME_SIZE_MAX: usize = 64 << 10;

/// Opens MQTT over WebSocket at this path: the bytes in the binary frames of the connection.
/// `certificate_requested`: by the TLS handshake before.
pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Send + Sync + Unpin>(
    stream: S,
    target: &DialTarget,
    path: &str,
    certificate_requested: bool,
    until: Instant,
) -> Result<impl AsyncRead + AsyncWrite + Send + Sync + Unpin + use<S>, DialError> {
    let connected = timeout_at(until, shake_hands(stream, target, path)).await.map_err(|_| {
        let text = format!(
            "{} accepts connections but did not answer the WebSocket handshake within {} s; it \
             hangs, or it is not the broker's port for WebSocket: correct mqtt.url",
            target.shown(),
            target.deadline.as_secs_f32()
        );
        DialError::new(target, DialCode::WebsocketTimeout, text)
    })?;
    let messages = connected.map_err(|error| failed(error, target, certificate_requested))?;
    let bytes = messages
        .take_while(|message| ready(!is_end(message)))
        .filter_map(|message| ready(content(message).transpose()))
        .sink_map_err(broken)
        .with_flat_map(|bytes| iter(binary_messages(bytes)));
    Ok(SinkWriter::new(StreamReader::new(CopyToBytes::new(bytes))))
}

async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    target: &DialTarget,
    path: &str,
) -> Result<WebSocketStream<S>, Error> {
    // The scheme changes nothing: TLS, if there is any, is below.
    let uri: Uri = format!("ws://{}{path}", target.address).parse()?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUB_PROTOCOL);
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_SIZE_MAX))
        .max_frame_size(Some(MESSAGE_SIZE_MAX));
    Ok(client_async_with_config(request, stream, Some(config)).await?.0)
}

/// Why there is no WebSocket.
fn failed(error: Error, target: &DialTarget, certificate_requested: bool) -> DialError {
    let url = target.shown();
    let not_websocket = |answer: &dyn Display| {
        format!(
            "{url} answers plain HTTP ({answer}), not WebSocket; correct port and path in mqtt.url \
             to where the broker serves WebSocket (mosquitto: protocol websockets)"
        )
    };
    let not_http = |cause: &dyn Display| {
        format!(
            "{url} does not answer the WebSocket handshake ({cause}); correct the port in \
             mqtt.url, or write there {}",
            match url.starts_with("wss://") {
                true => "mqtts:// if it is a port without WebSocket",
                false => "wss:// if it uses TLS, or mqtt:// if it is a port without WebSocket",
            }
        )
    };
    let text = match error {
        Error::Io(error) => match late_alert(target, certificate_requested, &error) {
            Some(error) => return error,
            None => not_http(&error),
        },
        Error::Http(response) => not_websocket(&response.status()),
        Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => format!(
            "{url} supports WebSocket but not its sub-protocol mqtt; correct the path in mqtt.url \
             to the one where the broker serves MQTT"
        ),
        Error::Protocol(
            error @ (ProtocolError::WrongHttpVersion
            | ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::SecWebSocketAcceptKeyMismatch),
        ) => not_websocket(&error),
        Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            not_http(&"it closed the connection")
        }
        error => not_http(&error),
    };
    DialError::new(target, DialCode::NotWebsocket, text)
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
