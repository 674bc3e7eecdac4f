//! Connections that can be stalled and cut from outside, below TLS. A stalled connection answers
//! nothing, not even HTTP/2 pings or a TLS handshake, like one to a frozen process; a cut one ends
//! with a TCP reset.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use crate::net::TcpStream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    Stalled,
    Cut,
}

#[derive(Debug)]
struct ConnectionGate {
    flow: Flow,
    read: Option<Waker>,
    write: Option<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Inner {
    /// Whether new connections are stalled.
    stalled: bool,
    gates: Vec<Weak<Mutex<ConnectionGate>>>,
}

/// The gates of all connections of one listener.
#[derive(Debug, Default)]
pub(crate) struct ConnectionGates(Mutex<Inner>);

impl ConnectionGates {
    /// Puts a gate into a new connection, stalled if all are.
    pub(crate) fn guard(&self, stream: TcpStream) -> GatedStream {
        let mut inner = lock(&self.0);
        let flow = if inner.stalled { Flow::Stalled } else { Flow::Open };
        let gate = Arc::new(Mutex::new(ConnectionGate { flow, read: None, write: None }));
        inner.gates.retain(|gate| gate.strong_count() > 0);
        inner.gates.push(Arc::downgrade(&gate));
        GatedStream { stream, gate }
    }

    /// Stalls all connections, also future ones, or opens them again.
    pub(crate) fn set_stalled(&self, stalled: bool) {
        let mut inner = lock(&self.0);
        inner.stalled = stalled;
        set(&inner.gates, if stalled { Flow::Stalled } else { Flow::Open });
    }

    /// Cuts all present connections.
    pub(crate) fn cut(&self) {
        set(&lock(&self.0).gates, Flow::Cut);
    }

    /// How many connections are open.
    pub(crate) fn open_count(&self) -> usize {
        lock(&self.0).gates.iter().filter(|gate| gate.strong_count() > 0).count()
    }
}

fn set(gates: &[Weak<Mutex<ConnectionGate>>], flow: Flow) {
    for gate in gates.iter().filter_map(Weak::upgrade) {
        let mut gate = lock(&gate);
        if gate.flow == Flow::Cut {
            continue;
        }
        gate.flow = flow;
        for waker in [gate.read.take(), gate.write.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// A TCP connection with a gate.
#[derive(Debug)]
pub(crate) struct GatedStream {
    stream: TcpStream,
    gate: Arc<Mutex<ConnectionGate>>,
}

impl Connected for GatedStream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// A half of a connection.
#[derive(Clone, Copy)]
enum Half {
    Read,
    Write,
}

impl GatedStream {
    fn poll_open(&self, cx: &Context<'_>, half: Half) -> Poll<io::Result<()>> {
        let mut gate = lock(&self.gate);
        match gate.flow {
            Flow::Cut => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Flow::Open | Flow::Stalled => {}
        }
        // Kept even while open: a change of the gate wakes the task that waits for the socket.
        let waker = match half {
            Half::Read => &mut gate.read,
            Half::Write => &mut gate.write,
        };
        match waker {
            Some(known) => known.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        if gate.flow == Flow::Open { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Drop for GatedStream {
    fn drop(&mut self) {
        if lock(&self.gate).flow == Flow::Cut {
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
        std::task::ready!(self.poll_open(cx, Half::Read))?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for GatedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_open(cx, Half::Write))?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_open(cx, Half::Write))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_open(cx, Half::Write))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
