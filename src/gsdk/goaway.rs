//! Finds the GOAWAY with which a gateway rejects HTTP/2 pings.
//!
//! grpc-go names in it the newest stream as processed. h2 then fails that stream as it fails one of
//! a connection that broke, so the reason is read here, below HTTP/2.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: [u8; 4] = 0xb_u32.to_be_bytes();
const HEAD_LEN: usize = 9;
/// The head of a GOAWAY, the newest stream, and the error code.
const GOAWAY_LEN: usize = HEAD_LEN + 8;

/// Whether a connection was ended because of pings; shared by its socket and its user.
pub(crate) type PingsRejected = Arc<AtomicBool>;

/// A connection whose received frames are followed.
#[derive(Debug)]
pub(crate) struct GoAwayReader<S> {
    stream: S,
    frames: Frames,
    pings_rejected: PingsRejected,
}

/// The frame that is being received.
#[derive(Debug, Default)]
struct Frames {
    /// Its first bytes: the head, and of a GOAWAY also the error code.
    start: Vec<u8>,
    /// Bytes of it that are passed over.
    skip: usize,
}

impl Frames {
    /// Whether one of these bytes completes a GOAWAY with ENHANCE_YOUR_CALM.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let mut found = false;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = if self.start.get(3) == Some(&GOAWAY) { GOAWAY_LEN } else { HEAD_LEN };
            let taken = wanted.saturating_sub(self.start.len()).min(bytes.len());
            self.start.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if let [high, middle, low, kind, ..] = self.start[..] {
                let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                let start_len = if kind == GOAWAY { GOAWAY_LEN } else { HEAD_LEN };
                if self.start.len() == start_len {
                    found |= self.start[HEAD_LEN..].ends_with(&ENHANCE_YOUR_CALM);
                    self.skip = (HEAD_LEN + length).saturating_sub(start_len);
                    self.start.clear();
                }
            }
        }
        found
    }
}

impl<S> GoAwayReader<S> {
    pub(crate) fn new(stream: S) -> (Self, PingsRejected) {
        let pings_rejected = PingsRejected::default();
        let reader =
            Self { stream, frames: Frames::default(), pings_rejected: pings_rejected.clone() };
        (reader, pings_rejected)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GoAwayReader<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if this.frames.follow(&buf.filled()[before..]) {
            this.pings_rejected.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GoAwayReader<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_goaway_is_found_however_its_bytes_come() {
        let calm = frame(GOAWAY, &[0, 0, 0, 1, 0, 0, 0, 0xb, b't', b'o', b'o']);
        let no_error = frame(GOAWAY, &[0, 0, 0, 0xb, 0, 0, 0, 0]);
        // Data that looks like one, and a frame without payload.
        let others = [frame(0, &calm), frame(4, &[]), no_error, frame(0, &[7; 200])].concat();
        let all = [others.clone(), calm.clone()].concat();
        for size in [1, 2, 7, 9, 17, 1_000] {
            let mut frames = Frames::default();
            assert!(!others.chunks(size).any(|bytes| frames.follow(bytes)), "{size}");
            let mut frames = Frames::default();
            assert!(all.chunks(size).any(|bytes| frames.follow(bytes)), "{size}");
        }
    }
}
