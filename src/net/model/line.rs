//! A connection of the model: the bytes in flight in each direction, and its two ends.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Network, Side, TcpStream, lock};

/// Bytes under way in one direction; more wait with their writer.
const UNDER_WAY_MAX: usize = 64 * 1_024;

/// A connection, as both ends share it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) address: SocketAddr,
    pub(super) reset: bool,
    /// What the client sends, and what the server sends.
    halves: [Half; 2],
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Half {
    under_way: VecDeque<(Instant, VecDeque<u8>)>,
    bytes: usize,
    pub(super) held: bool,
    /// Nothing more is sent.
    pub(super) closed: bool,
    /// Nobody listens any more.
    pub(super) deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Line {
    pub(super) fn between(address: SocketAddr) -> Self {
        Self { address, reset: false, halves: [Half::default(), Half::default()] }
    }

    pub(super) const fn half(&mut self, from: Side) -> &mut Half {
        let [client, server] = &mut self.halves;
        match from {
            Side::Client => client,
            Side::Server => server,
        }
    }

    pub(super) fn wake(&mut self) {
        for half in &mut self.halves {
            for waker in [half.reader.take(), half.writer.take()].into_iter().flatten() {
                waker.wake();
            }
        }
    }
}

/// One end of a connection of the model.
#[derive(Debug)]
pub struct End {
    line: Arc<Mutex<Line>>,
    side: Side,
    /// When what is under way arrives.
    alarm: Option<Pin<Box<Sleep>>>,
    network: Network,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut line = lock(&self.line);
        line.half(self.side).closed = true;
        line.half(self.side.other()).deaf = true;
        line.wake();
    }
}

impl End {
    pub(super) fn of(line: &Arc<Mutex<Line>>, side: Side, network: &Network) -> Self {
        Self { line: line.clone(), side, alarm: None, network: network.clone() }
    }

    /// Resets the connection.
    pub(super) fn reset(&self) {
        lock(&self.line).reset = true;
    }

    /// `Ready` once something has arrived; with the instant of the next arrival if one is known.
    fn take(
        &self,
        cx: &Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Result<Poll<io::Result<()>>, Instant> {
        let mut line = lock(&self.line);
        if line.reset {
            return Ok(Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())));
        }
        let half = line.half(self.side.other());
        if half.deaf {
            return Ok(Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())));
        }
        half.reader = Some(cx.waker().clone());
        if half.held {
            return Ok(Poll::Pending);
        }
        let now = Instant::now();
        let Some((due, bytes)) = half.under_way.front_mut() else {
            return Ok(if half.closed { Poll::Ready(Ok(())) } else { Poll::Pending });
        };
        if *due > now {
            return Err(*due);
        }
        let count = bytes.len().min(buffer.remaining());
        let taken: Vec<u8> = bytes.drain(..count).collect();
        buffer.put_slice(&taken);
        if bytes.is_empty() {
            half.under_way.pop_front();
        }
        half.bytes -= count;
        if let Some(writer) = half.writer.take() {
            writer.wake();
        }
        Ok(Poll::Ready(Ok(())))
    }

    fn read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let due = match self.take(cx, buffer) {
                Ok(poll) => return poll,
                Err(due) => due,
            };
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
            alarm.as_mut().reset(due);
            ready!(alarm.as_mut().poll(cx));
        }
    }

    fn write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let due = Instant::now() + self.network.latency();
        let mut line = lock(&self.line);
        let reset = line.reset;
        let half = line.half(self.side);
        if reset || half.deaf || half.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = UNDER_WAY_MAX.saturating_sub(half.bytes);
        if room == 0 {
            half.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = room.min(bytes.len());
        // In order, whatever the hiccups.
        let due = half.under_way.back().map_or(due, |(last, _)| due.max(*last));
        half.under_way.push_back((due, bytes.iter().copied().take(count).collect()));
        half.bytes += count;
        if let Some(reader) = half.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn shut_down(&self) {
        let mut line = lock(&self.line);
        line.half(self.side).closed = true;
        line.wake();
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Real(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Model(end) => end.read(cx, buffer),
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Real(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Model(end) => end.write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Real(stream) => Pin::new(stream).poll_flush(cx),
            Self::Model(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Real(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Model(end) => {
                end.shut_down();
                Poll::Ready(Ok(()))
            }
        }
    }
}
