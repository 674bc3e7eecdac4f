//! The reading half of a connection's socket, with what is not parsed yet.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, ReadHalf};

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
