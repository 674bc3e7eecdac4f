//! Answers connections beyond the limit: `/healthz`, so that a client that holds all connections
//! does not cause a restart of a healthy bridge, and 503 for everything else.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::socket::Truncated;
use super::transport::Transport;
use crate::task::Heartbeat;

/// Connections beyond the limit at once. A new one evicts the oldest, so that a probe, which sends
/// its request immediately, is always answered.
const EXCESS_MAX: usize = 16;
/// How long each of them may take to send its request.
const HEAD_DEADLINE: Duration = Duration::from_secs(1);
/// Bytes that are read of a request.
const HEAD_BYTES: u64 = 4 << 10;

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 10\r\n\
                    connection: close\r\n\r\n";

/// The connections beyond the limit.
#[derive(Debug)]
pub(crate) struct ExcessConnections {
    heartbeat: Heartbeat,
    oldest_first: VecDeque<JoinHandle<()>>,
}

impl ExcessConnections {
    pub(crate) fn new(heartbeat: Heartbeat) -> Self {
        Self { heartbeat, oldest_first: VecDeque::new() }
    }

    pub(crate) fn answer(&mut self, socket: TcpStream, transport: Transport) {
        self.oldest_first.retain(|task| !task.is_finished());
        if self.oldest_first.len() >= EXCESS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        let answer = answer(socket, transport, self.heartbeat.clone());
        self.oldest_first.push_back(tokio::spawn(answer));
    }

    pub(crate) async fn finish(self) {
        for task in self.oldest_first {
            _ = task.await;
        }
    }
}

async fn answer(socket: TcpStream, transport: Transport, heartbeat: Heartbeat) {
    let opened = timeout(HEAD_DEADLINE, transport.open(socket, Truncated::default())).await;
    let Ok(Ok(mut stream)) = opened else { return };
    let mut request = String::new();
    // What was received in time is answered.
    _ = timeout(HEAD_DEADLINE, read_head(&mut stream, &mut request)).await;
    let answer = answer_to(&request, heartbeat.is_alive());
    let write = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // It fits into the socket's buffer.
    _ = timeout(HEAD_DEADLINE, write).await;
}

/// Reads the request line, and on until the empty line: closing a socket with unread bytes would
/// reset it before the client has read the answer.
async fn read_head(socket: impl AsyncRead + Unpin, request: &mut String) -> io::Result<()> {
    let mut lines = BufReader::new(socket.take(HEAD_BYTES)).lines();
    *request = lines.next_line().await?.unwrap_or_default();
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    Ok(())
}

fn answer_to(request: &str, alive: bool) -> String {
    let is_get = request.starts_with("GET /healthz HTTP/1.");
    if !is_get && !request.starts_with("HEAD /healthz HTTP/1.") {
        return BUSY.to_owned();
    }
    let (status, body) =
        if alive { ("200 OK", "ok\n") } else { ("503 Service Unavailable", "event loop hangs\n") };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    if is_get { head + body } else { head }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_request_for_healthz_is_answered() {
        for request in ["GET /healthz HTTP/1.0", "HEAD /healthz HTTP/1.1"] {
            let (alive, dead) = (answer_to(request, true), answer_to(request, false));
            assert!(alive.starts_with("HTTP/1.1 200 "), "{alive}");
            assert!(dead.starts_with("HTTP/1.1 503 ") && dead != BUSY, "{dead}");
            assert_eq!(alive.ends_with("\r\n\r\nok\n"), request.starts_with("GET"));
        }
        for request in [
            "",
            "GET",
            "GET /healthz",
            "GET /healthz HTT",
            "GET / HTTP/1.1",
            "POST /healthz HTTP/1.1",
            "GET /healthz/x HTTP/1.1",
            "\u{0}\u{1}",
        ] {
            assert_eq!(answer_to(request, true), BUSY, "{request}");
        }
    }
}
