//! The sign of life: when the last byte came from a gateway.
//!
//! May not interpret what comes: answers to HTTP/2 pings and TLS records count as much as messages.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The moment of the last byte received on one connection, shared by socket and task.
#[derive(Debug)]
pub(super) struct Life {
    base: Instant,
    nanos: AtomicU64,
}

impl Life {
    /// A life that begins now.
    pub(super) fn begin() -> Arc<Self> {
        Arc::new(Self { base: Instant::now(), nanos: AtomicU64::new(0) })
    }

    fn sign(&self) {
        let nanos = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos.store(nanos, Ordering::Relaxed);
    }

    /// When the last byte came; before the first one, when the connection was begun.
    pub(super) fn last_sign(&self) -> Instant {
        self.base + Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    /// How long nothing has come.
    pub(super) fn silence(&self) -> Duration {
        self.last_sign().elapsed()
    }
}

/// A socket that notes each receipt of bytes.
#[derive(Debug)]
pub(super) struct Living<S> {
    inner: S,
    life: Arc<Life>,
}

impl<S> Living<S> {
    pub(super) fn new(inner: S, life: Arc<Life>) -> Self {
        Self { inner, life }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Living<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            this.life.sign();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Living<S> {
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
    async fn only_received_bytes_are_a_sign_of_life() {
        let (mut far, near) = tokio::io::duplex(64);
        let life = Life::begin();
        let mut near = Living::new(near, life.clone());
        let begun = life.last_sign();
        near.write_all(b"?").await.unwrap();
        assert_eq!(life.last_sign(), begun);
        far.write_all(b"!").await.unwrap();
        near.read_u8().await.unwrap();
        assert!(life.last_sign() > begun);
    }
}
