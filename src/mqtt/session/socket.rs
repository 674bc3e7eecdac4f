//! The two halves of a connection's socket: the packets that are read and those that are written.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout};

use super::codec;
use super::fault::BrokerProblem;
use super::packet::{self, Packet, TooLarge};
use crate::config::MqttVersion;
use crate::net::Stream;

/// The beginning of a TLS alert, with which no MQTT packet begins.
const TLS_ALERT: &[u8] = &[0x15];
/// The beginning of a web server's answer.
const HTTP: &[u8] = b"HTTP/";

/// Bytes read from the socket at once.
const READ_SIZE: usize = 16 * 1024;

/// The packets of the broker.
pub(crate) struct PacketReader {
    half: ReadHalf<Box<dyn Stream>>,
    buffer: BytesMut,
    /// A message that is discarded, and how many bytes of it are left.
    too_large: Option<TooLarge>,
    left: usize,
}

impl PacketReader {
    pub(crate) fn new(half: ReadHalf<Box<dyn Stream>>) -> Self {
        Self { half, buffer: BytesMut::new(), too_large: None, left: 0 }
    }

    /// Reads some bytes; none where the broker has closed the connection. Cancel safe.
    pub(crate) async fn read(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_SIZE);
        self.half.read_buf(&mut self.buffer).await
    }

    /// Reads and discards everything until the broker closes the connection.
    pub(crate) async fn discard_all(&mut self) {
        while !matches!(self.read().await, Ok(0) | Err(_)) {
            self.buffer.clear();
        }
    }

    /// The protocol that the server uses instead of MQTT, as a problem of the connection.
    pub(crate) fn other_protocol(&self) -> Option<BrokerProblem> {
        if self.buffer.starts_with(TLS_ALERT) {
            return Some(BrokerProblem::TlsExpected);
        }
        self.buffer.starts_with(HTTP).then_some(BrokerProblem::HttpServer)
    }

    /// The next packet, as far as it has been read. A message that is larger than `size_max` is
    /// given once all of it has been discarded.
    pub(crate) fn next_packet(
        &mut self,
        protocol: MqttVersion,
        size_max: u32,
    ) -> Result<Option<Packet>, String> {
        if self.too_large.is_none() {
            match packet::read(&mut self.buffer, protocol, size_max)? {
                Some(Packet::TooLarge(message)) => {
                    self.left = message.size;
                    self.too_large = Some(message);
                }
                other => return Ok(other),
            }
        }
        let count = self.left.min(self.buffer.len());
        self.buffer.advance(count);
        self.left -= count;
        Ok(self.too_large.take_if(|_| self.left == 0).map(Packet::TooLarge))
    }
}

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
