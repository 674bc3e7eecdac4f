//! The texts of dial errors that only brokers have: TLS on a plain port, ALPN, and WebSocket.

use std::fmt::{Formatter, Result};

use super::error::DialFailure;

/// What is wrong with the broker at this URL.
pub(crate) fn write_broker(failure: &DialFailure, url: &str, f: &mut Formatter<'_>) -> Result {
    match failure {
        DialFailure::NotTls => write!(
            f,
            "{url} does not use TLS; write {} in mqtt.url, or the broker's port for TLS",
            without_tls(url)
        ),
        DialFailure::NoCommonProtocol => write!(
            f,
            "{url} refused the protocols that the TLS handshake offers (ALPN); correct mqtt.alpn, \
             or remove it"
        ),
        DialFailure::WebsocketTimeout(after) => write!(
            f,
            "{url} accepts connections but did not answer the WebSocket handshake within {} s; it \
             hangs, or it is not the broker's port for WebSocket: correct mqtt.url",
            after.as_secs_f32()
        ),
        DialFailure::NotWebsocket(answer) => write!(
            f,
            "{url} answers plain HTTP ({answer}), not WebSocket; correct port and path in \
             mqtt.url to where the broker serves WebSocket (mosquitto: protocol websockets)"
        ),
        DialFailure::NoMqttOverWebsocket => write!(
            f,
            "{url} supports WebSocket but not its sub-protocol mqtt; correct the path in mqtt.url \
             to the one where the broker serves MQTT"
        ),
        DialFailure::NotHttp(cause) => write!(
            f,
            "{url} does not answer the WebSocket handshake ({cause}); correct the port in \
             mqtt.url, or write there {}",
            match url.starts_with("wss://") {
                true => "mqtts:// if it is a port without WebSocket",
                false => "wss:// if it uses TLS, or mqtt:// if it is a port without WebSocket",
            }
        ),
        other => write!(f, "{other:?}"),
    }
}

/// The broker's URL without TLS.
pub(crate) fn without_tls(url: &str) -> String {
    url.replacen("s://", "://", 1)
}
