//! A connection of the model: the bytes in flight in each direction, and its two ends.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use gsdk2mqtt::net::model::Socket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes under way in one direction; more wait with their writer.
const UNDER_WAY_MAX: usize = 64 * 1_024;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who dialled.
    Client,
    /// Who listened.
    Server,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// How long bytes take, by chance.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Arc<Mutex<fastrand::Rng>>);

impl Latency {
    pub(crate) fn with_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// Mostly of a good network, with a hiccup now and then.
    pub(crate) fn draw(&self) -> Duration {
        let rng = &mut lock(&self.0);
        let micros =
            if rng.u32(..200) == 0 { rng.u64(20_000..400_000) } else { rng.u64(100..3_000) };
        Duration::from_micros(micros)
    }
}

/// A connection, as both ends share it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    pub(crate) reset: bool,
    /// What the client sends, and what the server sends.
    halves: [Half; 2],
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Half {
    under_way: VecDeque<(Instant, VecDeque<u8>)>,
    bytes: usize,
    pub(crate) held: bool,
    /// Nothing more is sent.
    pub(crate) closed: bool,
    /// The listener is closed.
    pub(crate) deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Line {
    pub(crate) fn between(address: SocketAddr) -> Self {
        Self { address, reset: false, halves: [Half::default(), Half::default()] }
    }

    pub(crate) const fn half(&mut self, from: Side) -> &mut Half {
        let [client, server] = &mut self.halves;
        match from {
            Side::Client => client,
            Side::Server => server,
        }
    }

    pub(crate) fn wake(&mut self) {
        for half in &mut self.halves {
            for waker in [half.reader.take(), half.writer.take()].into_iter().flatten() {
                waker.wake();
            }
        }
    }
}

/// One end of a connection of the model.
#[derive(Debug)]
pub(crate) struct LineEnd {
    line: Arc<Mutex<Line>>,
    side: Side,
    /// When what is under way arrives.
    alarm: Option<Pin<Box<Sleep>>>,
    latency: Latency,
}

impl Drop for LineEnd {
    fn drop(&mut self) {
        let mut line = lock(&self.line);
        line.half(self.side).closed = true;
        line.half(self.side.other()).deaf = true;
        line.wake();
    }
}

impl LineEnd {
    pub(crate) fn of(line: &Arc<Mutex<Line>>, side: Side, latency: &Latency) -> Self {
        Self { line: line.clone(), side, alarm: None, latency: latency.clone() }
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
}

impl AsyncRead for LineEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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
}

impl AsyncWrite for LineEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let due = Instant::now() + self.latency.draw();
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

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = lock(&self.line);
        line.half(self.side).closed = true;
        line.wake();
        Poll::Ready(Ok(()))
    }
}

impl Socket for LineEnd {
    fn set_nodelay(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    /// Resets the connection.
    fn set_zero_linger(&self) -> io::Result<()> {
        lock(&self.line).reset = true;
        Ok(())
    }
}
