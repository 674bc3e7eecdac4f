//! When a peer last sent something.
//!
//! Measured below TLS: answers to HTTP/2 pings and TLS records count as well as messages.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The activity on one connection, shared by its socket and its user.
#[derive(Debug)]
pub(crate) struct ActivityClock {
    base: Instant,
    nanos: AtomicU64,
}

impl ActivityClock {
    /// A clock for a connection that starts now.
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self { base: Instant::now(), nanos: AtomicU64::new(0) })
    }

    fn touch(&self) {
        let nanos = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos.store(nanos, Ordering::Relaxed);
    }

    /// When something last came; before the first time, when the connection was started.
    pub(crate) fn last_activity(&self) -> Instant {
        self.base + Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    /// How long nothing has come.
    pub(crate) fn idle_for(&self) -> Duration {
        self.last_activity().elapsed()
    }
}

/// A socket that records each receipt: of bytes, of the connection's end, of its reset.
#[derive(Debug)]
pub(crate) struct TrackedStream<S> {
    inner: S,
    clock: Arc<ActivityClock>,
}

impl<S> TrackedStream<S> {
    pub(crate) fn new(inner: S, clock: Arc<ActivityClock>) -> Self {
        Self { inner, clock }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = ready!(Pin::new(&mut this.inner).poll_read(cx, buf));
        // Bytes, the end of the stream or a reset: the peer was there to send each of them.
        let sent = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
        if read.as_ref().map_or_else(sent, |()| true) {
            this.clock.touch();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn only_what_is_received_counts_as_activity() {
        let (mut far, near) = tokio::io::duplex(64);
        let clock = ActivityClock::start();
        let mut near = TrackedStream::new(near, clock.clone());
        let started = clock.last_activity();
        near.write_all(b"?").await.unwrap();
        assert_eq!(clock.last_activity(), started);
        far.write_all(b"!").await.unwrap();
        near.read_u8().await.unwrap();
        let after_a_byte = clock.last_activity();
        assert!(after_a_byte > started);
        drop(far);
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        assert!(clock.last_activity() > after_a_byte, "a closing peer was there");
    }
}
