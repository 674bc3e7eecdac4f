//! Connects to gateways and brokers, in the same way; also TCP and the wall clock. With the feature
//! `model`, for our own tests only, a test can replace the latter two.

use std::io;
use std::time::UNIX_EPOCH;

use crate::ids::Moment;

mod activity;
mod certificate_failure;
mod dial;
mod error;
mod explain;
mod file;
mod file_failure;
#[cfg(feature = "model")]
pub mod model;
mod presented;
mod retry;
mod target;
mod tls;
mod verifier;
mod websocket;

pub(crate) use activity::ActivityClock;
pub(crate) use dial::{Dialed, Stream, dial};
pub use error::{DialCode, DialError};
pub(crate) use explain::{late_alert, late_refusal, tls_error};
pub(crate) use file::{ReadError, file_problem, read as read_file, read_secret, shown_path};
pub(crate) use file_failure::no_password;
pub(crate) use presented::{PresentedCertificate, presented_certificate};
pub use retry::BackoffPolicy;
pub(crate) use retry::{Backoff, CountedFailure, FailureLog};
pub(crate) use target::{DialTarget, Tls};
pub use target::{Peer, TlsFiles};
pub(crate) use tls::{certificates, client_certificate, private_key};

#[cfg(feature = "model")]
pub(crate) use model::{TcpListener, TcpStream, connect, listen};
#[cfg(all(feature = "simulator", not(feature = "model")))]
pub(crate) use tokio::net::TcpListener;
#[cfg(not(feature = "model"))]
pub(crate) use tokio::net::TcpStream;

/// Listens on a port that another process may have closed a moment ago.
#[cfg(feature = "simulator")]
pub(crate) fn bind(address: std::net::SocketAddr) -> io::Result<tokio::net::TcpListener> {
    use tokio::net::TcpSocket;
    /// The kernel's queue of connections not yet accepted.
    const BACKLOG: u32 = 1_024;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether the process or the machine has no file handles left.
pub(crate) fn no_handles_left(error: &io::Error) -> bool {
    /// ENFILE and EMFILE, which have these numbers on every system we are built for.
    const NO_HANDLES: [i32; 2] = [23, 24];
    error.raw_os_error().is_some_and(|number| NO_HANDLES.contains(&number))
}

/// The remedy, to end a sentence.
pub(crate) const NO_HANDLES_REMEDY: &str = "this program has no file handles left: raise its \
                                            limit (LimitNOFILE= under systemd, ulimit -n)";

/// Listens on a port.
#[cfg(all(feature = "simulator", not(feature = "model")))]
pub(crate) use bind as listen;

/// Dials.
#[cfg(not(feature = "model"))]
pub(crate) async fn connect(address: std::net::SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address).await
}

/// The wall-clock time.
pub(crate) fn wall_time() -> Moment {
    #[cfg(feature = "model")]
    let now = model::wall_time();
    #[cfg(not(feature = "model"))]
    let now = std::time::SystemTime::now();
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment::from_millis(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}
