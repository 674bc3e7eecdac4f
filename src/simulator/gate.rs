//! Connections that can be stalled and cut from outside, below TLS. A stalled connection answers
//! nothing, not even HTTP/2 pings or a TLS handshake, like one to a frozen process; a cut one ends
//! with a TCP reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::transport::server::Connected;

use crate::net::TcpStream;

/// How the connections of one listener are treated.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    stalled: bool,
    /// How often the connections of the moment were cut.
    cuts: u64,
}

/// The gates of all connections of one listener.
#[derive(Debug, Default)]
pub(crate) struct ConnectionGates(watch::Sender<Flow>);

impl ConnectionGates {
    /// Puts a gate into a new connection.
    pub(crate) fn guard(self: &Arc<Self>, stream: TcpStream) -> GatedStream {
        let (gates, cuts) = (self.clone(), self.0.borrow().cuts);
        GatedStream { stream, gates, cuts, changes: WatchStream::new(self.0.subscribe()) }
    }

    /// Stalls all connections, also future ones, or opens them again.
    pub(crate) fn set_stalled(&self, stalled: bool) {
        self.0.send_modify(|flow| flow.stalled = stalled);
    }

    /// Cuts all present connections.
    pub(crate) fn cut(&self) {
        self.0.send_modify(|flow| flow.cuts += 1);
    }

    /// How many connections are open.
    pub(crate) fn open_count(&self) -> usize {
        self.0.receiver_count()
    }
}

/// A TCP connection with a gate.
#[derive(Debug)]
pub(crate) struct GatedStream {
    stream: TcpStream,
    gates: Arc<ConnectionGates>,
    /// The cuts before it was made.
    cuts: u64,
    changes: WatchStream<Flow>,
}

impl Connected for GatedStream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl GatedStream {
    fn is_cut(&self) -> bool {
        self.gates.0.borrow().cuts > self.cuts
    }

    /// `Ready` while the gate is open. Wakes the task at the gate's next change also then, as it
    /// will wait for the socket.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Poll::Ready(Some(_)) = Pin::new(&mut self.changes).poll_next(cx) {}
        if self.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.gates.0.borrow().stalled { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl Drop for GatedStream {
    fn drop(&mut self) {
        if self.is_cut() {
            // Fails for a socket that is closed already, which needs no reset.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for GatedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for GatedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
