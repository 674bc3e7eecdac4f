//! Opens a connection to a gateway or a broker: DNS, TCP, TLS, WebSocket, within one deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::activity::{ActivityClock, TrackedStream};
use super::error::DialError;
use super::failure::{DialFailure, WebsocketFailure};
use super::target::DialTarget;
use super::tls::Handshake;
use super::websocket;
use super::{TcpStream, connect, no_handles_left};
use crate::certificate::Certificate;
use crate::ids::HostPort;

/// A bidirectional stream, TLS or plain.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// An open connection.
pub(crate) struct Dialed {
    pub(crate) stream: Box<dyn Stream>,
    /// The certificate the peer presented, where it could be read.
    pub(crate) certificate: Option<Certificate>,
    /// Whether the peer requested a client certificate.
    pub(crate) certificate_requested: bool,
    /// When something last came.
    pub(crate) activity: Arc<ActivityClock>,
}

/// Connects. Files are read at each call, so that a renewed or repaired one is used at once.
///
/// # Errors
/// When a file is of no use, the peer does not answer in time, or its certificate is refused.
pub(crate) async fn dial(target: &DialTarget) -> Result<Dialed, DialError> {
    dial_or_fail(target).await.map_err(|failure| DialError::new(target, failure))
}

async fn dial_or_fail(target: &DialTarget) -> Result<Dialed, DialFailure> {
    let handshake = match &target.tls {
        Some(tls) => Some(Handshake::prepare(tls, &target.address.host).await?),
        None => None,
    };
    let until = Instant::now() + target.deadline;
    let tcp = connect_tcp(&target.address, until, target.deadline).await?;
    // Small messages must not wait for more to send.
    tcp.set_nodelay(true).map_err(DialFailure::from_io)?;
    let activity = ActivityClock::start();
    let tcp = TrackedStream::new(tcp, activity.clone());
    let dialed = match handshake {
        Some(handshake) => {
            let secured = handshake.connect(tcp, until, target.deadline).await?;
            let (stream, certificate, certificate_requested) = secured;
            Dialed { stream: Box::new(stream), certificate, certificate_requested, activity }
        }
        None => Dialed {
            stream: Box::new(tcp),
            certificate: None,
            certificate_requested: false,
            activity,
        },
    };
    match &target.websocket_path {
        Some(path) => upgrade(target, path, dialed, until).await,
        None => Ok(dialed),
    }
}

/// The WebSocket handshake.
async fn upgrade(
    target: &DialTarget,
    path: &str,
    dialed: Dialed,
    until: Instant,
) -> Result<Dialed, DialFailure> {
    let Dialed { stream, certificate, certificate_requested, activity } = dialed;
    let connecting = websocket::connect(stream, &target.address, path);
    let outcome = timeout_at(until, connecting)
        .await
        .map_err(|_| DialFailure::Websocket(WebsocketFailure::Timeout(target.deadline)))?;
    let websocket =
        outcome.map_err(|error| websocket::failure(error, target, certificate_requested))?;
    Ok(Dialed { stream: Box::new(websocket), certificate, certificate_requested, activity })
}

/// Connects to the first of the host's addresses that answers.
pub(crate) async fn connect_tcp(
    address: &HostPort,
    until: Instant,
    deadline: Duration,
) -> Result<TcpStream, DialFailure> {
    let addresses = timeout_at(until, lookup(address))
        .await
        .map_err(|_| DialFailure::LookupTimeout(deadline))?
        .map_err(|error| match no_handles_left(&error) {
            true => DialFailure::NoHandles(error),
            false => DialFailure::HostNotFound(error),
        })?;
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut last = DialFailure::HostNotFound(none);
    for (tried, address) in (0u32..).zip(addresses) {
        // A dead address (an unrouted IPv6, say) must not use up the time of those after it.
        let share = until.saturating_duration_since(Instant::now()) / (count - tried).max(1);
        last = match timeout_at(Instant::now() + share, connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => DialFailure::from_io(error),
            Err(_) => DialFailure::ConnectTimeout(deadline),
        };
    }
    Err(last)
}

async fn lookup(address: &HostPort) -> io::Result<Vec<SocketAddr>> {
    #[cfg(feature = "model")]
    if let Some(addresses) = super::model::addresses_of(&address.host) {
        return Ok(addresses);
    }
    let name = (address.host.as_str(), address.port);
    Ok(tokio::net::lookup_host(name).await?.collect())
}
