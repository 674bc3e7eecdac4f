//! The writing half of a connection's socket, with the packets that are not written yet.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::time::{Instant, timeout};

use super::codec;
use crate::net::Stream;

/// For the last packet to be written.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(1);

/// The packets on their way to the broker.
pub(crate) struct PacketWriter {
    half: WriteHalf<Box<dyn Stream>>,
    buffer: BytesMut,
    is_flushed: bool,
    /// The broker has closed the connection. What it sent before may name the reason, so reading
    /// continues.
    is_closed: bool,
    /// When the last packet was sent.
    sent_at: Instant,
}

impl PacketWriter {
    pub(crate) fn new(half: WriteHalf<Box<dyn Stream>>) -> Self {
        let (buffer, sent_at) = (BytesMut::new(), Instant::now());
        Self { half, buffer, is_flushed: true, is_closed: false, sent_at }
    }

    /// The buffer to add packets to.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        self.is_flushed = false;
        &mut self.buffer
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.is_flushed && !self.is_closed
    }

    /// Writes everything. Safe to cancel.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self.try_flush().await {
            Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {
                self.is_closed = true;
                Ok(())
            }
            result => result,
        }
    }

    async fn try_flush(&mut self) -> io::Result<()> {
        self.half.write_all_buf(&mut self.buffer).await?;
        self.half.flush().await?;
        (self.is_flushed, self.sent_at) = (true, Instant::now());
        Ok(())
    }

    /// Adds a ping if nothing was sent for this long; returns when the next one is due.
    pub(crate) fn ping(&mut self, now: Instant, keep_alive: Duration) -> Instant {
        if self.sent_at + keep_alive <= now {
            self.sent_at = now;
            self.buffer().extend_from_slice(codec::PINGREQ);
        }
        self.sent_at + keep_alive
    }

    /// Sends DISCONNECT, on which the broker does not publish the last will.
    pub(crate) async fn disconnect(&mut self) {
        self.buffer().extend_from_slice(codec::DISCONNECT);
        let goodbye = async {
            if !self.is_closed {
                self.flush().await?;
            }
            // A WebSocket may not be used after its error.
            if self.is_closed { Ok(()) } else { self.half.shutdown().await }
        };
        // A broker that does not read is not waited for.
        _ = timeout(GOODBYE_DEADLINE, goodbye).await;
    }
}
