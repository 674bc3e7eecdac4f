//! A client's socket that is waited for only so long when it takes nothing.
//!
//! May not hold anything back: what cannot be written at once is the caller's.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::ending::Broken;

/// How long a client may take nothing of what it has asked for. Without an end to that, a few who
/// ask and never read would keep all others out, the watchdog among them.
const TAKE_DEADLINE: Duration = Duration::from_secs(10);

/// A socket on which a write fails with [`io::ErrorKind::TimedOut`] once the other side has taken
/// nothing (that the kernel tells of, see [`super::listen`]) for [`TAKE_DEADLINE`].
#[derive(Debug)]
pub(super) struct Patient {
    socket: TcpStream,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    broken: Broken,
}

impl Patient {
    pub(super) const fn new(socket: TcpStream, broken: Broken) -> Self {
        Self { socket, waiting: None, broken }
    }

    /// What came of a write, once it has waited for long enough.
    fn bounded(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(TAKE_DEADLINE)));
        ready!(waiting.as_mut().poll(cx));
        self.broken.set();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl Drop for Patient {
    /// Resets the connection where an answer is not whole.
    fn drop(&mut self) {
        if self.broken.is_set() {
            // A socket that is closed already needs no reset.
            _ = self.socket.set_zero_linger();
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, into)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.bounded(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.bounded(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
