//! Opens a connection to a gateway or a broker: DNS, TCP, TLS, WebSocket, within one deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::activity::{ActivityClock, TrackedStream};
use super::error::{DialCode, DialError};
use super::target::DialTarget;
use super::tls::Handshake;
use super::websocket;
use super::{NO_HANDLES_REMEDY, TcpStream, connect, no_handles_left};
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
    let handshake = match &target.tls {
        Some(tls) => Some(Handshake::prepare(target, tls).await?),
        None => None,
    };
    let until = Instant::now() + target.deadline;
    let tcp = connect_tcp(target, until).await?;
    // Small messages must not wait for more to send.
    tcp.set_nodelay(true).map_err(|error| not_connected(target, error))?;
    let activity = ActivityClock::start();
    let tcp = TrackedStream::new(tcp, activity.clone());
    let (stream, certificate, certificate_requested): (Box<dyn Stream>, _, _) = match handshake {
        Some(handshake) => {
            let (stream, certificate, requested) = handshake.connect(tcp, until).await?;
            (Box::new(stream), certificate, requested)
        }
        None => (Box::new(tcp), None, false),
    };
    let stream = match &target.websocket_path {
        Some(path) => {
            Box::new(websocket::connect(stream, target, path, certificate_requested, until).await?)
        }
        None => stream,
    };
    Ok(Dialed { stream, certificate, certificate_requested, activity })
}

/// Connects to the first of the host's addresses that answers.
pub(crate) async fn connect_tcp(
    target: &DialTarget,
    until: Instant,
) -> Result<TcpStream, DialError> {
    let DialTarget { address, peer, deadline, .. } = target;
    let (key, host, after) = (peer.address_key(), &address.host, deadline.as_secs_f32());
    let not_found = |cause| {
        let text = format!(
            "cannot find the host {host:?} ({cause}); correct {key}, or check the name server"
        );
        DialError::new(target, DialCode::HostNotFound, text)
    };
    let addresses = match timeout_at(until, lookup(address)).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) if no_handles_left(&error) => return Err(not_connected(target, error)),
        Ok(Err(error)) => return Err(not_found(error)),
        Err(_) => {
            let text = format!(
                "the name server did not answer for {host:?} within {after} s; check the network \
                 and the name server, or write an IP address into {key}"
            );
            return Err(DialError::new(target, DialCode::LookupTimeout, text));
        }
    };
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let mut last = not_found(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for (tried, address) in (0u32..).zip(addresses) {
        // A dead address (an unrouted IPv6, say) must not use up the time of those after it.
        let share = until.saturating_duration_since(Instant::now()) / (count - tried).max(1);
        last = match timeout_at(Instant::now() + share, connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => not_connected(target, error),
            Err(_) => {
                let text = format!(
                    "{} did not answer within {after} s; check {key}, and that no firewall drops \
                     port {}",
                    target.shown(),
                    target.address.port
                );
                DialError::new(target, DialCode::ConnectTimeout, text)
            }
        };
    }
    Err(last)
}

/// The error of a system call that was to connect.
fn not_connected(target: &DialTarget, cause: io::Error) -> DialError {
    let (address, key, noun) = (target.shown(), target.peer.address_key(), target.peer.noun());
    let (code, text) = match cause.kind() {
        io::ErrorKind::ConnectionRefused if target.peer.is_gateway() => DialCode::ConnectionRefused
            .with(format!(
                "{address} refused the connection; start the {noun}, correct {key}, or let the \
                 {noun} listen on that address (by default it listens on localhost only: \
                 rpc_server in its configuration)"
            )),
        io::ErrorKind::ConnectionRefused => DialCode::ConnectionRefused.with(format!(
            "nothing listens at {address} (connection refused); start the broker, or correct \
             host and port in {key}"
        )),
        _ if no_handles_left(&cause) => DialCode::NoFileHandles
            .with(format!("{address} cannot be dialled ({cause}); {NO_HANDLES_REMEDY}")),
        _ => DialCode::Unreachable
            .with(format!("cannot reach {address} ({cause}); check {key} and the network")),
    };
    DialError::new(target, code, text)
}

async fn lookup(address: &HostPort) -> io::Result<Vec<SocketAddr>> {
    #[cfg(feature = "model")]
    if let Some(addresses) = super::model::addresses_of(&address.host) {
        return Ok(addresses);
    }
    let name = (address.host.as_str(), address.port);
    Ok(tokio::net::lookup_host(name).await?.collect())
}
