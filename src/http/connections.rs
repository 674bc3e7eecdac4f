//! Accepts connections, limits their number and idle time, and shuts them down. Each connection
//! uses a file handle, which gateways and broker need, too. Beyond the limit only `/healthz` is
//! answered, so that a client that holds all connections does not cause a restart of a healthy
//! bridge.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower::Layer;

use super::socket::{Transport, Truncated};
use crate::net::{FailureLog, NO_HANDLES_REMEDY, no_handles_left};

/// Connections of a listener at once: 32 pages that watch, 32 streams of events and 32 others. Few
/// beside 1,024 file handles, a common limit of a process.
const CONNECTIONS_MAX: usize = 96;
/// How long the head of a request may take, and a connection be idle before it.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Connections beyond the limit at once. A new one evicts the oldest, so that a probe, which sends
/// its request immediately, is always answered.
const EXCESS_MAX: usize = 16;
/// How long the head of their request may take.
const EXCESS_HEAD_DEADLINE: Duration = Duration::from_secs(1);
/// The pause after an error of `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// The kernel's send buffer of a connection. The kernel reports free space only once a third of it
/// is free, so a client that reads 8 kB a second makes progress within the write deadline.
const SEND_BUFFER_BYTES: u32 = 64 << 10;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// The HTTP library's buffers of a connection.
const HTTP_BUFFER_BYTES: usize = 64 << 10;

/// Listens, with the small send buffers that write deadlines need.
///
/// # Errors
/// The address cannot be bound.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What to do where an address cannot be listened on, to end a sentence.
pub(crate) fn listen_remedy(error: &io::Error, address: SocketAddr, key: &str) -> String {
    /// Ports below it are for privileged programs.
    const OPEN_PORT_MIN: u16 = 1024;
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            format!("no interface of this machine has this address; set another in {key}")
        }
        io::ErrorKind::PermissionDenied if address.port() < OPEN_PORT_MIN => format!(
            "ports below {OPEN_PORT_MIN} need the right CAP_NET_BIND_SERVICE; give it to the \
             program, or set another port in {key}"
        ),
        _ => format!("free the address or set another in {key}"),
    }
}

/// A listener, and what it serves.
pub(crate) struct Endpoint {
    pub(crate) listener: TcpListener,
    pub(crate) transport: Transport,
    pub(crate) router: Router,
    /// Answers connections beyond the limit.
    pub(crate) excess_router: Router,
}

impl Endpoint {
    /// Serves until `stop` is true, then finishes the answers in progress.
    pub(crate) async fn serve(self, mut stop: watch::Receiver<bool>) {
        let Self { listener, transport, router, excess_router } = self;
        let (connections, excess) = (GracefulShutdown::new(), GracefulShutdown::new());
        let mut oldest_excess_first = VecDeque::new();
        // Not reset: with few handles, some connections are accepted between two failures.
        let mut failures = FailureLog::default();
        let is_stopped = |stop: &bool| *stop;
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(is_stopped) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    let is_excess = connections.count() >= CONNECTIONS_MAX;
                    let (router, watcher) = match is_excess {
                        false => (router.clone(), connections.watcher()),
                        true => (excess_router.clone(), excess.watcher()),
                    };
                    let (peer, transport) = (peer.ip().to_canonical(), transport.clone());
                    let connection =
                        AcceptedConnection { socket, peer, transport, router, watcher, is_excess };
                    let task = tokio::spawn(connection.serve(stop.clone()));
                    if is_excess {
                        evict(&mut oldest_excess_first);
                        oldest_excess_first.push_back(task);
                    }
                }
                Err(error) => {
                    if failures.count(&error.to_string()).is_due {
                        let remedy = no_handles_left(&error).then_some(NO_HANDLES_REMEDY);
                        tracing::warn!(%error, remedy, "web server cannot accept a connection");
                    }
                    tokio::select! {
                        _ = stop.wait_for(is_stopped) => break,
                        () = sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
        drop(listener);
        tokio::join!(connections.shutdown(), excess.shutdown());
    }
}

/// Closes the oldest connection if another one would be too many.
fn evict(oldest_first: &mut VecDeque<JoinHandle<()>>) {
    oldest_first.retain(|task| !task.is_finished());
    if oldest_first.len() >= EXCESS_MAX
        && let Some(oldest) = oldest_first.pop_front()
    {
        oldest.abort();
    }
}

/// An accepted connection.
struct AcceptedConnection {
    socket: TcpStream,
    peer: IpAddr,
    transport: Transport,
    router: Router,
    watcher: Watcher,
    /// Beyond the limit: it has one request.
    is_excess: bool,
}

impl AcceptedConnection {
    async fn serve(self, mut stop: watch::Receiver<bool>) {
        let truncated = Truncated::default();
        let opened = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            opened = self.transport.open(self.socket, truncated.clone()) => opened,
        };
        let stream = match opened {
            Ok(stream) => stream,
            Err(error) => return log_end(&error),
        };
        let mut http = Builder::new(TokioExecutor::new()).http1_only();
        http.http1()
            .timer(TokioTimer::new())
            .keep_alive(!self.is_excess)
            .header_read_timeout(if self.is_excess { EXCESS_HEAD_DEADLINE } else { HEAD_DEADLINE })
            .max_buf_size(HTTP_BUFFER_BYTES);
        let service = Extension(truncated.clone()).layer(self.router);
        let service = TowerToHyperService::new(Extension(ConnectInfo(self.peer)).layer(service));
        let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
        let served = tokio::select! {
            biased;
            // What hyper still holds for a slow client is dropped with the connection.
            () = truncated.wait() => return,
            served = self.watcher.watch(connection) => served,
        };
        if let Err(error) = served {
            log_end(&error);
        }
    }
}

/// Clients may leave at any time.
fn log_end(error: &dyn std::fmt::Display) {
    tracing::debug!(%error, "web server connection ended");
}
