//! HTTP/2 pings as a server of grpc-go counts them: a ping within five minutes of the previous one,
//! while the server has sent nothing, is a strike, and the third strike ends the connection with
//! GOAWAY `too_many_pings`.
//!
//! hyper answers pings by itself, so this code follows the frames below it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tonic::transport::server::Connected;

/// grpc-go's `EnforcementPolicy.MinTime`.
const MIN_INTERVAL: Duration = Duration::from_secs(5 * 60);
const STRIKES_MAX: u32 = 2;

const PREFACE_LEN: usize = 24;
const HEAD_LEN: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Finds the heads of frames in one direction of a connection.
#[derive(Debug, Default)]
struct FrameHeads {
    /// Bytes to pass over: of the preface or of a payload.
    skip: usize,
    head: Vec<u8>,
}

impl FrameHeads {
    /// Calls `frame` with the head of each frame that begins in these bytes.
    fn follow(&mut self, mut bytes: &[u8], mut frame: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD_LEN - self.head.len()).min(bytes.len());
            if self.skip == 0 {
                self.head.extend_from_slice(&bytes[..taken]);
                bytes = &bytes[taken..];
            }
            if self.head.len() == HEAD_LEN {
                let length = [0, self.head[0], self.head[1], self.head[2]];
                self.skip = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                frame(&self.head);
                self.head.clear();
            }
        }
    }

    fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.head.is_empty()
    }
}

/// A connection that takes only so many pings.
#[derive(Debug)]
pub(crate) struct PingGuard<S> {
    stream: S,
    is_enforced: bool,
    received: FrameHeads,
    sent: FrameHeads,
    /// Whether the server has sent headers or data since the last ping.
    has_sent: bool,
    last_ping: Option<Instant>,
    strikes: u32,
    newest_stream: u32,
    /// What is left to send before the connection ends.
    closing: Option<Vec<u8>>,
}

impl<S> PingGuard<S> {
    pub(crate) fn new(stream: S, is_enforced: bool) -> Self {
        Self {
            stream,
            is_enforced,
            received: FrameHeads { skip: PREFACE_LEN, head: Vec::new() },
            sent: FrameHeads::default(),
            has_sent: false,
            last_ping: None,
            strikes: 0,
            newest_stream: 0,
            closing: None,
        }
    }

    fn follow_received(&mut self, bytes: &[u8]) {
        let mut received = std::mem::take(&mut self.received);
        received.follow(bytes, |head| match head[3] {
            PING if head[4] & ACK == 0 => self.pinged(Instant::now()),
            HEADERS => {
                self.newest_stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            }
            _ => {}
        });
        self.received = received;
    }

    fn pinged(&mut self, now: Instant) {
        let is_soon = self.last_ping.is_some_and(|last| now < last + MIN_INTERVAL);
        if std::mem::take(&mut self.has_sent) {
            self.strikes = 0;
        } else {
            self.strikes += u32::from(is_soon);
        }
        self.last_ping = Some(now);
        if self.strikes > STRIKES_MAX {
            // Within a frame nothing can be inserted.
            let can_insert = self.sent.is_between_frames();
            self.closing = Some(if can_insert { goaway(self.newest_stream) } else { Vec::new() });
        }
    }

    fn follow_sent(&mut self, bytes: &[u8]) {
        let has_sent = &mut self.has_sent;
        self.sent.follow(bytes, |head| *has_sent |= matches!(head[3], DATA | HEADERS));
    }
}

/// It names the newest stream as processed, as grpc-go does.
fn goaway(newest_stream: u32) -> Vec<u8> {
    let message = b"too_many_pings";
    let length = u8::try_from(8 + message.len()).unwrap_or(u8::MAX);
    let mut frame = vec![0, 0, length, GOAWAY, 0, 0, 0, 0, 0];
    frame.extend(newest_stream.to_be_bytes());
    frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
    frame.extend(message);
    frame
}

impl<S: AsyncWrite + Unpin> PingGuard<S> {
    /// Sends the remaining bytes; then the connection ends with an error.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while let Some(left) = self.closing.as_mut().filter(|left| !left.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, left)) {
                Ok(written) if written > 0 => drop(left.drain(..written)),
                Ok(_) | Err(_) => left.clear(),
            }
        }
        // Without an orderly end of TLS, clients take it for a broken connection. Fails where the
        // client is gone already.
        _ = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
        Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, "too many pings"))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for PingGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            if self.is_enforced {
                self.follow_received(&buf.filled()[before..]);
            }
        }
        if self.closing.is_some() {
            return self.poll_close(cx).map(Err);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PingGuard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.as_mut().poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.closing.is_some() {
            return self.poll_close(cx).map(Err);
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        if self.is_enforced {
            let mut left = written;
            for buf in bufs {
                let of_this = left.min(buf.len());
                self.follow_sent(&buf[..of_this]);
                left -= of_this;
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: Connected> Connected for PingGuard<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PINGED: [u8; 17] = [0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const ANSWER: [u8; 11] = [0, 0, 2, DATA, 0, 0, 0, 0, 1, 7, 7];

    fn guard() -> PingGuard<()> {
        let mut guard = PingGuard::new((), true);
        guard.follow_received(&[0; PREFACE_LEN]);
        guard
    }

    #[tokio::test(start_paused = true)]
    async fn the_third_ping_too_soon_ends_a_quiet_connection() {
        let mut guard = guard();
        for pings in 1..=4 {
            assert!(guard.closing.is_none(), "after {} pings", pings - 1);
            // However the bytes come.
            PINGED.iter().for_each(|byte| guard.follow_received(&[*byte]));
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        let closing = guard.closing.unwrap();
        assert!(closing.ends_with(b"too_many_pings"));
        assert_eq!(closing[13..17], ENHANCE_YOUR_CALM.to_be_bytes());
    }

    #[tokio::test(start_paused = true)]
    async fn pings_between_answers_and_pings_that_are_rare_are_taken() {
        let mut guard = guard();
        for _ in 0..20 {
            guard.follow_received(&PINGED);
            guard.follow_sent(&ANSWER);
        }
        for _ in 0..20 {
            tokio::time::advance(MIN_INTERVAL).await;
            guard.follow_received(&PINGED);
        }
        assert!(guard.closing.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn within_a_frame_the_connection_ends_silently() {
        let mut guard = guard();
        guard.follow_sent(&ANSWER[..10]);
        (0..5).for_each(|_| guard.follow_received(&PINGED));
        assert_eq!(guard.closing, Some(Vec::new()));
    }
}
