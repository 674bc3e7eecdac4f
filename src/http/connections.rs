//! The web server's connections: how many at once, and how long one may say nothing. How long
//! one may take nothing is `patient`'s.
//!
//! May not look at what is asked. Every connection is a file handle, and the links to gateways and
//! broker need some too: clients of the page may never use up what those live on.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::Layer;

use super::ending::Broken;
use super::overload::Overload;
use super::patient::Patient;
use crate::net::{NO_HANDLES_REMEDY, no_handles_left};
use crate::task::Heartbeat;

/// Connections at once: twice the browsers that may watch, and few beside 1,024 file handles, the
/// smallest limit that is common.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// How long the head of a request may take, and a connection be idle before it.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long nobody is accepted after the system refused to.
const ACCEPT_REST: Duration = Duration::from_secs(1);
/// What the kernel holds for a client. It tells of room only once a third of it is free, so whoever
/// takes 8 kB a second is seen to take something within 10 s. Clients use no more memory either.
const SEND_BUFFER_BYTES: u32 = 64 << 10;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// What the HTTP library holds of a request's head or of an answer, a piece of it more at most.
const HTTP_BUFFER_BYTES: usize = 64 << 10;

/// Listens, with little room for answers that are not yet taken: so a client that reads is seen to.
///
/// # Errors
/// The address cannot be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop` is done, and then what was begun.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    heartbeat: Heartbeat,
    stop: impl Future<Output = ()>,
) {
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut overload = Overload::new(heartbeat);
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((socket, _)) if connections.len() < CONNECTIONS_MAX => {
                connections.spawn(answer(socket, router.clone(), stopped.clone()));
            }
            Ok((socket, _)) => overload.answer(socket),
            Err(error) => {
                let remedy = no_handles_left(&error).then_some(NO_HANDLES_REMEDY);
                tracing::warn!(%error, remedy, "the web server cannot accept a connection");
                tokio::select! {
                    () = &mut stop => break,
                    () = sleep(ACCEPT_REST) => {}
                }
            }
        }
    }
    drop(listener);
    stopping.send_replace(true);
    while connections.join_next().await.is_some() {}
    overload.end().await;
}

/// Answers one connection until it ends; after `stopped` only what it has asked already.
async fn answer(socket: TcpStream, router: Router, mut stopped: watch::Receiver<bool>) {
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HTTP_BUFFER_BYTES);
    let broken = Broken::default();
    let service = TowerToHyperService::new(Extension(broken.clone()).layer(router));
    let connection = http.serve_connection(TokioIo::new(Patient::new(socket, broken)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = async { _ = stopped.wait_for(|stopped| *stopped).await } => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // Clients go as they like.
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the web server ended");
    }
}
