//! Connections that can be stalled and cut from outside, below TLS.
//!
//! May not know what flows through them. A stalled connection answers nothing, not even HTTP/2
//! pings or a TLS handshake, as one to a frozen process; a cut one ends in a TCP reset.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::TcpStream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    Stalled,
    Cut,
}

#[derive(Debug)]
struct Valve {
    flow: Flow,
    read: Option<Waker>,
    write: Option<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All connections of one listener.
#[derive(Debug, Default)]
pub(crate) struct Valves {
    inner: Mutex<(bool, Vec<Weak<Mutex<Valve>>>)>,
}

impl Valves {
    /// Puts a valve into a new connection, stalled if all are.
    pub(crate) fn fit(&self, stream: TcpStream) -> Wire {
        let mut inner = lock(&self.inner);
        let flow = if inner.0 { Flow::Stalled } else { Flow::Open };
        let valve = Arc::new(Mutex::new(Valve { flow, read: None, write: None }));
        inner.1.retain(|valve| valve.strong_count() > 0);
        inner.1.push(Arc::downgrade(&valve));
        Wire { stream, valve }
    }

    /// Stalls all connections, also future ones, or lets them flow again.
    pub(crate) fn stall(&self, stalled: bool) {
        let mut inner = lock(&self.inner);
        inner.0 = stalled;
        set(&inner.1, if stalled { Flow::Stalled } else { Flow::Open });
    }

    /// Cuts all present connections.
    pub(crate) fn cut(&self) {
        set(&lock(&self.inner).1, Flow::Cut);
    }

    /// How many connections are open.
    pub(crate) fn open_count(&self) -> usize {
        lock(&self.inner).1.iter().filter(|valve| valve.strong_count() > 0).count()
    }
}

fn set(valves: &[Weak<Mutex<Valve>>], flow: Flow) {
    for valve in valves.iter().filter_map(Weak::upgrade) {
        let mut valve = lock(&valve);
        if valve.flow == Flow::Cut {
            continue;
        }
        valve.flow = flow;
        for waker in [valve.read.take(), valve.write.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// A TCP connection with a valve in it.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    valve: Arc<Mutex<Valve>>,
}

/// Which half of a connection asks.
#[derive(Clone, Copy)]
enum Half {
    Read,
    Write,
}

impl Wire {
    fn poll_open(&self, cx: &Context<'_>, half: Half) -> Poll<io::Result<()>> {
        let mut valve = lock(&self.valve);
        match valve.flow {
            Flow::Cut => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Flow::Open | Flow::Stalled => {}
        }
        // Kept even while open: a change of the valve has to wake who waits for the socket.
        let place = match half {
            Half::Read => &mut valve.read,
            Half::Write => &mut valve.write,
        };
        match place {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *place = Some(cx.waker().clone()),
        }
        if valve.flow == Flow::Open { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if lock(&self.valve).flow == Flow::Cut {
            // A socket that is gone already needs no reset.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_open(cx, Half::Read))?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
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
