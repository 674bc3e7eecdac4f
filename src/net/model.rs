//! The network and wall clock of a thread, and the addresses of host names, as a test sets them.
//!
//! Compiled with the feature `model` only, which no released program has. A thread without a
//! [`Network`] uses the machine's own sockets and clock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

thread_local! {
    static NETWORK: RefCell<Option<Box<dyn Network>>> = const { RefCell::new(None) };
}

/// A network and a wall clock.
pub trait Network {
    fn wall_time(&self) -> SystemTime;

    /// Dials.
    fn connect(&self, address: SocketAddr) -> Connecting;

    /// Listens on a port; returns its connections.
    ///
    /// # Errors
    /// When the port is taken.
    fn listen(&self, address: SocketAddr) -> io::Result<mpsc::Receiver<TcpStream>>;
}

/// A connection that is being opened.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Replaces the network and the clock of this thread.
pub fn install(network: impl Network + 'static) {
    NETWORK.set(Some(Box::new(network)));
}

/// Asks the network of this thread, if it has one.
fn ask<T>(question: impl FnOnce(&dyn Network) -> T) -> Option<T> {
    NETWORK.with_borrow(|network| network.as_deref().map(question))
}

pub(crate) fn wall_time() -> SystemTime {
    ask(|network| network.wall_time()).unwrap_or_else(SystemTime::now)
}

/// Whether this thread has a network of its own.
pub(crate) fn is_active() -> bool {
    ask(|_| ()).is_some()
}

static NAMES: Mutex<BTreeMap<String, Vec<SocketAddr>>> = Mutex::new(BTreeMap::new());

/// Gives a host name these addresses, in this order, for the whole process.
pub fn name_host(host: &str, addresses: Vec<SocketAddr>) {
    names().insert(host.to_owned(), addresses);
}

/// The addresses of a host that a test has named.
pub(crate) fn addresses_of(host: &str) -> Option<Vec<SocketAddr>> {
    names().get(host).cloned()
}

fn names() -> MutexGuard<'static, BTreeMap<String, Vec<SocketAddr>>> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Dials.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    match ask(|network| network.connect(address)) {
        Some(connecting) => connecting.await,
        None => Ok(Box::new(tokio::net::TcpStream::connect(address).await?)),
    }
}

/// Listens on a port.
///
/// # Errors
/// When the port is taken.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match ask(|network| network.listen(address)) {
        Some(connections) => Ok(TcpListener::Model { address, connections: connections?.into() }),
        None => super::bind(address).map(TcpListener::Real),
    }
}

/// A port that is listened on.
#[derive(Debug)]
pub enum TcpListener {
    /// The machine's.
    Real(tokio::net::TcpListener),
    /// The model's.
    Model {
        /// Where.
        address: SocketAddr,
        /// Who has dialled.
        connections: tokio::sync::Mutex<mpsc::Receiver<TcpStream>>,
    },
}

impl TcpListener {
    /// The next connection.
    ///
    /// # Errors
    /// As the machine's.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::Real(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok((Box::new(stream), from))
            }
            Self::Model { address, connections } => {
                let next = connections.lock().await.recv().await;
                next.map(|stream| (stream, *address)).ok_or_else(|| io::ErrorKind::NotFound.into())
            }
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the machine's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Real(listener) => listener.local_addr(),
            Self::Model { address, .. } => Ok(*address),
        }
    }
}

/// A connection: the machine's or the model's.
pub type TcpStream = Box<dyn Socket>;

/// The options of a connection.
pub trait Socket: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin {
    fn set_nodelay(&self, on: bool) -> io::Result<()>;
    fn set_zero_linger(&self) -> io::Result<()>;
}

impl Socket for tokio::net::TcpStream {
    fn set_nodelay(&self, on: bool) -> io::Result<()> {
        Self::set_nodelay(self, on)
    }

    fn set_zero_linger(&self) -> io::Result<()> {
        Self::set_zero_linger(self)
    }
}
