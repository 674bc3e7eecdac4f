//! Answers connections beyond the limit: `/healthz`, so that a client that holds all connections
//! does not make a healthy bridge look dead, and 503 for everything else.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::task::Heartbeat;

/// Connections beyond the limit at once. A new one evicts the oldest, so that a probe, which sends
/// its request immediately, is always answered.
const EXCESS_MAX: usize = 16;
/// How long each of them may take to send its request.
const HEAD_DEADLINE: Duration = Duration::from_secs(1);
/// Bytes that are read of a request.
const HEAD_BYTES: usize = 4 << 10;

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 10\r\n\
                    connection: close\r\n\r\n";

/// The connections beyond the limit.
#[derive(Debug)]
pub(crate) struct ExcessConnections {
    heartbeat: Heartbeat,
    tasks: JoinSet<()>,
    /// The oldest first; dropping a sender evicts its connection.
    waiting: VecDeque<oneshot::Sender<()>>,
}

impl ExcessConnections {
    pub(crate) fn new(heartbeat: Heartbeat) -> Self {
        Self { heartbeat, tasks: JoinSet::new(), waiting: VecDeque::new() }
    }

    pub(crate) fn answer(&mut self, socket: TcpStream) {
        while self.tasks.try_join_next().is_some() {}
        self.waiting.retain(|waiting| !waiting.is_closed());
        if self.waiting.len() >= EXCESS_MAX {
            self.waiting.pop_front();
        }
        let (evict, evicted) = oneshot::channel();
        self.waiting.push_back(evict);
        self.tasks.spawn(answer(socket, self.heartbeat.clone(), evicted));
    }

    pub(crate) async fn finish(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn answer(mut socket: TcpStream, heartbeat: Heartbeat, evicted: oneshot::Receiver<()>) {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    tokio::select! {
        // Whatever was received in time is parsed.
        _ = timeout(HEAD_DEADLINE, read_head(&mut socket, &mut head)) => {}
        _ = evicted => {}
    }
    let answer = answer_to(&head, heartbeat.is_alive());
    // It fits into the socket's buffer.
    _ = socket.try_write(answer.as_bytes());
    _ = socket.shutdown().await;
}

/// Reads until the empty line: closing a socket with unread bytes would reset it before the client
/// has read the answer.
async fn read_head(socket: &mut TcpStream, head: &mut Vec<u8>) {
    while head.len() < HEAD_BYTES && !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match socket.read_buf(head).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn answer_to(head: &[u8], alive: bool) -> String {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default();
    let path = words.next().and_then(|target| target.split('?').next());
    let complete = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    if !complete || path != Some("/healthz") || !matches!(method, "GET" | "HEAD") {
        return BUSY.to_owned();
    }
    let (status, body) =
        if alive { ("200 OK", "ok\n") } else { ("503 Service Unavailable", "event loop hangs\n") };
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{}",
        body.len(),
        if method == "GET" { body } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_request_for_healthz_is_answered() {
        for asked in ["GET /healthz HTTP/1.0\r\n", "HEAD /healthz?x=1 HTTP/1.1\r\nHost: x\r\n"] {
            let (alive, dead) =
                (answer_to(asked.as_bytes(), true), answer_to(asked.as_bytes(), false));
            assert!(alive.starts_with("HTTP/1.1 200 "), "{alive}");
            assert!(dead.starts_with("HTTP/1.1 503 ") && dead != BUSY, "{dead}");
            assert_eq!(alive.ends_with("\r\n\r\nok\n"), asked.starts_with("GET"));
        }
        for asked in [
            "",
            "GET",
            "GET /healthz",
            "GET /healthz HTT",
            "GET / HTTP/1.1\r\n",
            "POST /healthz HTTP/1.1\r\n",
            "GET /healthz/x HTTP/1.1\r\n",
            "\u{0}\u{1}",
        ] {
            assert_eq!(answer_to(asked.as_bytes(), true), BUSY, "{asked}");
        }
    }
}
