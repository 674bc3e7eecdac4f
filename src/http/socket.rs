//! The socket under each HTTP connection: plain, or TLS if a certificate is configured, with a
//! write deadline, and a reset where an answer is truncated. hyper has neither of these.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::Version;
use axum::middleware::Next;
use axum::response::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::net;

/// How long a client may accept no bytes of its answer. Clients that never read would otherwise
/// hold their connections without end.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Set when an answer on this connection is incomplete. The connection is then reset instead of
/// closed: in HTTP/1.0 a close would look like the end of the answer. Handlers get it as an
/// extension of the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truncated(watch::Sender<bool>);

impl Truncated {
    pub(crate) fn set(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn wait(&self) {
        _ = self.0.subscribe().wait_for(|is_set| *is_set).await;
    }
}

/// A socket whose writes fail with [`io::ErrorKind::TimedOut`] when the kernel has accepted no
/// bytes for [`WRITE_TIMEOUT`].
#[derive(Debug)]
pub(crate) struct WriteTimeout {
    socket: TcpStream,
    /// Runs while a write is pending.
    timer: Option<Pin<Box<Sleep>>>,
    truncated: Truncated,
}

impl WriteTimeout {
    pub(crate) const fn new(socket: TcpStream, truncated: Truncated) -> Self {
        Self { socket, timer: None, truncated }
    }

    fn check(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        ready!(timer.as_mut().poll(cx));
        self.truncated.set();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl Drop for WriteTimeout {
    fn drop(&mut self) {
        if *self.truncated.0.borrow() {
            // Fails only if the socket is closed already.
            _ = self.socket.set_zero_linger();
        }
    }
}

impl AsyncRead for WriteTimeout {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for WriteTimeout {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.check(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The transport of one listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transport(Option<watch::Receiver<Option<Arc<ServerConfig>>>>);

impl Transport {
    /// TLS with the newest of these settings; without a receiver there is none.
    pub(crate) const fn new(tls: Option<watch::Receiver<Option<Arc<ServerConfig>>>>) -> Self {
        Self(tls)
    }

    /// Opens the transport on an accepted connection.
    ///
    /// # Errors
    /// The handshake failed, or there is no certificate yet.
    pub(crate) async fn open(
        &self,
        socket: TcpStream,
        truncated: Truncated,
    ) -> io::Result<Box<dyn net::Stream>> {
        let socket = WriteTimeout::new(socket, truncated);
        let Some(tls) = &self.0 else { return Ok(Box::new(socket)) };
        let config = tls.borrow().clone();
        let config = config.ok_or_else(|| io::Error::other("there is no certificate yet"))?;
        let handshake = TlsAcceptor::from(config).accept(socket);
        Ok(Box::new(timeout(HANDSHAKE_DEADLINE, handshake).await??))
    }
}

/// Works around hyper 1.12: an answer without a length in HTTP/1.0 ends with its connection, but
/// hyper leaves the connection open when the end of the body comes after all was flushed, until
/// its task is woken again.
pub(crate) async fn close_http_1_0(request: Request, next: Next) -> Response {
    let is_chunked = request.version() > Version::HTTP_10;
    let response = next.run(request).await;
    if is_chunked || response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| Body::from_stream(WakeAtEnd(body.into_data_stream())))
}

struct WakeAtEnd(BodyDataStream);

impl tokio_stream::Stream for WakeAtEnd {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = ready!(Pin::new(&mut self.0).poll_next(cx));
        if chunk.is_none() {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(chunk)
    }
}
