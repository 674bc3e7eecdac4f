//! Between the socket and the MQTT library: splits both directions into packets, and shows them to
//! [`Traffic`], which reads what the library does not tell.
//!
//! A DISCONNECT that was not requested is not sent: brokers drop the last will on one. A socket
//! that takes no more bytes is read to its end: what the broker sent before it closed says why.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::packet::{DISCONNECT, FixedHeader};
use super::traffic::Traffic;

/// Bytes read from the socket at once.
const READ_SIZE: usize = 16 * 1024;
/// The largest packet that is looked into; a larger one passes unread.
const CONTROL_PACKET_MAX: usize = 64 * 1024;

/// A socket whose MQTT packets are read as they pass.
#[derive(Debug)]
pub(crate) struct PacketTap<S> {
    socket: S,
    traffic: Traffic,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Whether a DISCONNECT was requested.
    stopping: Arc<AtomicBool>,
}

impl<S> PacketTap<S> {
    pub(crate) fn new(socket: S, traffic: Traffic, stopping: Arc<AtomicBool>) -> Self {
        let (incoming, outgoing) = (Incoming::default(), Outgoing::default());
        Self { socket, traffic, incoming, outgoing, stopping }
    }
}

/// Packets from the broker.
#[derive(Debug, Default)]
struct Incoming {
    buffer: BytesMut,
    /// Bytes at the front of the buffer that the library may have.
    released: usize,
    /// Bytes of an unread packet that have not come yet.
    passing: usize,
}

impl Incoming {
    /// Releases complete packets.
    fn scan(&mut self, traffic: &Traffic) {
        loop {
            let waiting = self.buffer.len() - self.released;
            let pass = self.passing.min(waiting);
            self.released += pass;
            self.passing -= pass;
            let Some(rest) = self.buffer.get_mut(self.released..) else { return };
            let Some(header) = FixedHeader::read(rest) else { return };
            let total = header.size();
            if !Traffic::is_noted(header.kind()) || total > CONTROL_PACKET_MAX {
                self.passing = total;
                continue;
            }
            let Some(body) = rest.get_mut(header.len..total) else { return };
            traffic.received(header.kind(), body);
            self.released += total;
        }
    }
}

/// Packets to the broker.
#[derive(Debug, Default)]
struct Outgoing {
    /// The beginning of a packet whose identifier has not been written yet.
    partial: Vec<u8>,
    /// Bytes of the current packet that are not written yet and need not be read.
    passing: usize,
    /// A DISCONNECT was dropped, or the broker takes no more; nothing follows.
    closed: bool,
}

impl Outgoing {
    /// How many of these bytes come before a DISCONNECT.
    fn before_disconnect(&self, bytes: &[u8]) -> usize {
        let mut at = match FixedHeader::read(&self.partial) {
            Some(header) => header.size().saturating_sub(self.partial.len()),
            None if self.partial.is_empty() => self.passing,
            None => return bytes.len(),
        };
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if rest[0] >> 4 == DISCONNECT {
                return at;
            }
            match FixedHeader::read(rest) {
                Some(header) => at += header.size(),
                None => break,
            }
        }
        bytes.len()
    }

    /// The socket takes no more bytes. Where the broker has closed it, reading tells so after the
    /// packets that came before, so this is no error yet.
    fn failed(&mut self, error: io::Error) -> io::Result<()> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        if !matches!(error.kind(), BrokenPipe | ConnectionReset) {
            return Err(error);
        }
        self.closed = true;
        Ok(())
    }

    /// These bytes were written.
    fn written(&mut self, mut bytes: &[u8], traffic: &Traffic) {
        while !bytes.is_empty() {
            if self.passing > 0 {
                let pass = self.passing.min(bytes.len());
                self.passing -= pass;
                bytes = &bytes[pass..];
                continue;
            }
            if self.partial.is_empty()
                && let Some(size) = traffic.written(bytes)
            {
                self.passing = size;
                continue;
            }
            // Reached only for a packet that was cut before its identifier.
            self.partial.push(bytes[0]);
            bytes = &bytes[1..];
            if let Some(size) = traffic.written(&self.partial) {
                self.passing = size.saturating_sub(self.partial.len());
                self.partial.clear();
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacketTap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.incoming.released > 0 {
                let count = this.incoming.released.min(into.remaining());
                into.put_slice(&this.incoming.buffer[..count]);
                this.incoming.buffer.advance(count);
                this.incoming.released -= count;
                return Poll::Ready(Ok(()));
            }
            this.incoming.buffer.reserve(READ_SIZE);
            let read = ready!({
                let read = pin!(this.socket.read_buf(&mut this.incoming.buffer));
                read.poll(context)
            })?;
            if read == 0 {
                // The library sees an incomplete packet as it is.
                this.incoming.released = this.incoming.buffer.len();
                if this.incoming.released == 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let new = this.incoming.buffer.len() - read;
                this.traffic.bytes_received(this.incoming.buffer.get(new).copied().unwrap_or(0));
                this.incoming.scan(&this.traffic);
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacketTap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut wanted = bytes.len();
        if !this.stopping.load(Ordering::Relaxed) {
            wanted = if this.outgoing.closed { 0 } else { this.outgoing.before_disconnect(bytes) };
            if wanted == 0 && !bytes.is_empty() {
                this.outgoing.closed = true;
                return Poll::Ready(Ok(bytes.len()));
            }
        }
        match ready!(Pin::new(&mut this.socket).poll_write(context, &bytes[..wanted])) {
            Ok(count) => {
                this.outgoing.written(&bytes[..count], &this.traffic);
                Poll::Ready(Ok(count))
            }
            Err(error) => {
                this.outgoing.failed(error)?;
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = ready!(Pin::new(&mut this.socket).poll_flush(context));
        Poll::Ready(flushed.or_else(|error| this.outgoing.failed(error)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::mqtt::session::Protocol;
    use crate::mqtt::session::ack_tracker::topic_hash;

    /// CONNACK (refused, with a reason), PUBACK 0x95 of packet 7, SUBACK 0x11 and 0xFF of packet 8,
    /// a PUBLISH, DISCONNECT 0xEE.
    const FROM_BROKER: &[u8] = b"\x20\x08\x00\xff\x05\x1f\x00\x02no\x40\x03\x00\x07\x95\
        \x90\x05\x00\x08\x00\x11\xff\x30\x07\x00\x03t/ahi\xe0\x01\xee";
    /// The same with codes that the library lists.
    const FOR_LIBRARY: &[u8] = b"\x20\x08\x00\x80\x05\x1f\x00\x02no\x40\x03\x00\x07\x00\
        \x90\x05\x00\x08\x00\x00\x00\x30\x07\x00\x03t/ahi\xe0\x01\x80";
    /// A PUBLISH of t/a with packet identifier 7, a ping, the same of t/b with 8.
    const TO_BROKER: &[u8] = b"\x32\x08\x00\x03t/a\x00\x07x\xc0\x00\x32\x08\x00\x03t/b\x00\x08y";
    const DISCONNECT: &[u8] = b"\xe0\x02\x81\x00";

    /// A socket that gives and takes bytes in pieces of these sizes.
    #[derive(Debug)]
    struct Pieces {
        input: &'static [u8],
        output: Vec<u8>,
        sizes: Vec<usize>,
        next: usize,
        /// Writing fails as it does once the other side has closed.
        broken: bool,
    }

    impl Pieces {
        fn size(&mut self) -> usize {
            self.next += 1;
            self.sizes[self.next % self.sizes.len()]
        }
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let count = self.size().min(self.input.len()).min(into.remaining());
            let (piece, rest) = self.input.split_at(count);
            into.put_slice(piece);
            self.input = rest;
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Pieces {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let count = self.size().min(bytes.len());
            self.output.extend(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn tap(sizes: Vec<usize>) -> PacketTap<Pieces> {
        let socket =
            Pieces { input: FROM_BROKER, output: Vec::new(), sizes, next: 0, broken: false };
        let traffic = Traffic::new(Protocol::V5, 30, 10);
        let topics: [&[u8]; 2] = [b"t/a", b"t/b"];
        for (token, topic) in (0..).zip(topics) {
            let given = traffic.acks().publish(token, topic_hash(topic), 10, || Ok::<_, ()>(()));
            assert_eq!(given, Some(Ok(())));
        }
        PacketTap::new(socket, traffic, Arc::default())
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    proptest! {
        #[test]
        fn wherever_the_bytes_are_cut_the_codes_are_recorded_and_replaced(
            sizes in proptest::collection::vec(1_usize..12, 1..6),
        ) {
            let mut tap = tap(sizes);
            let mut read = Vec::new();
            run(tap.read_to_end(&mut read)).unwrap();
            prop_assert_eq!(read, FOR_LIBRARY);
            let refused = tap.traffic.connack().unwrap().unwrap_err();
            prop_assert_eq!((refused.code, refused.text.as_deref()), (0xFF, Some("no")));
            prop_assert_eq!(tap.traffic.disconnect().unwrap().code, 0xEE);
        }

        #[test]
        fn wherever_the_bytes_are_cut_topics_are_recorded_and_no_disconnect_passes(
            sizes in proptest::collection::vec(1_usize..12, 1..6),
        ) {
            let mut tap = tap(sizes);
            let mut read = Vec::new();
            run(async {
                tap.write_all(TO_BROKER).await?;
                tap.write_all(DISCONNECT).await?;
                tap.read_to_end(&mut read).await
            })
            .unwrap();
            prop_assert_eq!(&tap.socket.output, TO_BROKER);
            let acks = tap.traffic.acks().take_acks();
            prop_assert_eq!(acks.len(), 1);
            prop_assert_eq!((acks[0].token, acks[0].result.unwrap_err().code()), (0, 0x95));
        }
    }

    #[test]
    fn a_disconnect_that_was_asked_for_passes() {
        let mut tap = tap(vec![100]);
        tap.stopping.store(true, Ordering::Relaxed);
        run(tap.write_all(b"\xe0\x00")).unwrap();
        assert_eq!(tap.socket.output, b"\xe0\x00");
    }

    #[test]
    fn a_disconnect_is_read_although_writing_fails_before() {
        let mut tap = tap(vec![100]);
        tap.socket.broken = true;
        run(async {
            tap.write_all(TO_BROKER).await?;
            tap.flush().await?;
            tap.read_to_end(&mut Vec::new()).await
        })
        .unwrap();
        assert_eq!(tap.traffic.disconnect().unwrap().code, 0xEE);
    }
}
