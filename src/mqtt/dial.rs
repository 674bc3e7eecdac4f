//! The way to the broker's socket: name, TCP, TLS, each with a deadline and its own words.
//!
//! May not speak MQTT. The socket is opened here and not by the MQTT library, so that every
//! failure is known by its kind and not by a text.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::fault::Fault;
use super::session::Settings;
use super::tls;
use crate::certificate::Certificate;
use crate::net::{TcpStream, no_handles_left};

/// Opens the socket to the broker, TLS included.
pub(super) async fn dial(settings: &Settings) -> Result<Socket, Fault> {
    let deadline = Instant::now() + settings.limits.connect_deadline;
    let tcp = connect_tcp(settings, deadline).await?;
    // Acknowledgements and single events must not wait for more to send.
    tcp.set_nodelay(true)
        .map_err(|source| Fault::Unreachable { broker: settings.url(), source })?;
    let Some(files) = &settings.tls else {
        return Ok(Socket(Io::Plain(tcp)));
    };
    let connector = TlsConnector::from(files.load()?);
    let name = ServerName::try_from(settings.host.clone()).map_err(|_| {
        Fault::Tls(format!("{:?} is not a host name; correct mqtt.url", settings.host))
    })?;
    let doing = "shaking hands (TLS)";
    let tls = within(settings, deadline, doing, connector.connect(name, tcp)).await?;
    let tls = tls.map_err(|error| {
        let plain = format!("mqtt://{}:<plain port>", settings.host);
        tls::handshake_fault(files, &settings.url(), &settings.host, &plain, &error)
    })?;
    Ok(Socket(Io::Tls(Box::new(tls))))
}

async fn connect_tcp(settings: &Settings, deadline: Instant) -> Result<TcpStream, Fault> {
    let name = (settings.host.as_str(), settings.port);
    let doing = "looking up its name";
    let found = within(settings, deadline, doing, tokio::net::lookup_host(name)).await?;
    let resolve = |source| Fault::Resolve { host: settings.host.clone(), source };
    let addresses: Vec<SocketAddr> = found.map_err(resolve)?.collect();
    let mut last = resolve(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for (tried, address) in (0u32..).zip(addresses) {
        // A dead address (an unrouted IPv6, say) may not use up the time of those after it.
        let share = deadline.saturating_duration_since(Instant::now()) / (count - tried).max(1);
        let attempt = timeout_at(Instant::now() + share, TcpStream::connect(address)).await;
        last = match attempt {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Fault::Refused { broker: settings.url() }
            }
            Ok(Err(source)) if no_handles_left(&source) => {
                Fault::NoHandles { broker: settings.url(), source }
            }
            Ok(Err(source)) => Fault::Unreachable { broker: settings.url(), source },
            Err(_) => too_late(settings, "connecting"),
        };
    }
    Err(last)
}

async fn within<T>(
    settings: &Settings,
    deadline: Instant,
    doing: &'static str,
    work: impl Future<Output = T>,
) -> Result<T, Fault> {
    timeout_at(deadline, work).await.map_err(|_| too_late(settings, doing))
}

fn too_late(settings: &Settings, doing: &'static str) -> Fault {
    let after: Duration = settings.limits.connect_deadline;
    Fault::Deadline { broker: settings.url(), doing, after }
}

/// An open socket to the broker.
#[derive(Debug)]
pub(super) struct Socket(Io);

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// The broker's certificate, with TLS.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        match &self.0 {
            Io::Plain(_) => None,
            Io::Tls(tls) => Certificate::read(tls.get_ref().1.peer_certificates()?.first()?),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Io::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Io::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Io::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Io::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Io::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Io::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Io::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Io::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
