//! A network and a wall clock inside one thread, on tokio's clock and driven by a seed.
//!
//! Compiled with the feature `model` only, which no released program has. A thread without a
//! [`Network`] uses the machine's own sockets and clock.

mod line;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};

use line::{Latency, Line, lock};
pub use line::{LineEnd, Side};

/// Connections that may wait to be accepted.
const BACKLOG: usize = 1_024;

thread_local! {
    static NETWORK: RefCell<Option<Network>> = const { RefCell::new(None) };
}

/// The network of this thread.
#[derive(Clone, Debug)]
pub struct Network(Arc<SharedNetwork>);

#[derive(Debug)]
struct SharedNetwork {
    began: Instant,
    began_at: SystemTime,
    latency: Latency,
    inner: Mutex<Inner>,
    repaired: Notify,
}

#[derive(Debug)]
struct Inner {
    listeners: BTreeMap<SocketAddr, mpsc::Sender<TcpStream>>,
    lines: Vec<Weak<Mutex<Line>>>,
    /// The listener towards which nothing is delivered, and from which side.
    held: BTreeSet<(SocketAddr, bool)>,
}

impl Network {
    /// Starts a network for this thread; its wall clock starts at `began_at`.
    #[must_use]
    pub fn begin(seed: u64, began_at: SystemTime) -> Self {
        let inner = Inner { listeners: BTreeMap::new(), lines: Vec::new(), held: BTreeSet::new() };
        let network = Self(Arc::new(SharedNetwork {
            began: Instant::now(),
            began_at,
            latency: Latency::with_seed(seed),
            inner: Mutex::new(inner),
            repaired: Notify::new(),
        }));
        NETWORK.with(|place| place.replace(Some(network.clone())));
        network
    }

    fn of_this_thread() -> Option<Self> {
        NETWORK.with(|place| place.borrow().clone())
    }

    fn each_line(&self, address: SocketAddr, mut act: impl FnMut(&mut Line)) {
        let mut inner = lock(&self.0.inner);
        inner.lines.retain(|line| line.strong_count() > 0);
        for line in inner.lines.iter().filter_map(Weak::upgrade) {
            let mut line = lock(&line);
            if line.address == address {
                act(&mut line);
                line.wake();
            }
        }
    }

    /// Lets nothing through that `from` sends on connections with this listener, or all again. TCP
    /// sends again what was lost, so it arrives late and not never.
    pub fn hold(&self, address: SocketAddr, from: Side, held: bool) {
        let key = (address, from == Side::Client);
        if held {
            lock(&self.0.inner).held.insert(key);
        } else {
            lock(&self.0.inner).held.remove(&key);
        }
        self.each_line(address, |line| line.half(from).held = held);
        self.0.repaired.notify_waiters();
    }

    /// Resets all connections with this listener.
    pub fn cut(&self, address: SocketAddr) {
        self.each_line(address, |line| line.reset = true);
    }

    /// One side's process has ended: it reads and writes no more. What it had written is still
    /// delivered.
    pub fn kill(&self, address: SocketAddr, side: Side) {
        self.each_line(address, |line| {
            line.half(side).closed = true;
            line.half(side.other()).deaf = true;
        });
    }

    fn is_held(&self, address: SocketAddr) -> bool {
        let held = &lock(&self.0.inner).held;
        [true, false].iter().any(|from| held.contains(&(address, *from)))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        sleep(self.0.latency.draw()).await;
        while self.is_held(address) {
            self.0.repaired.notified().await;
        }
        let mut inner = lock(&self.0.inner);
        let listener = inner.listeners.get(&address).cloned();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = listener.ok_or_else(refused)?;
        let line = Arc::new(Mutex::new(Line::between(address)));
        let end = |side| LineEnd::of(&line, side, &self.0.latency);
        listener.try_send(Box::new(end(Side::Server))).map_err(|_| refused())?;
        inner.lines.push(Arc::downgrade(&line));
        Ok(Box::new(end(Side::Client)))
    }
}

/// The wall-clock time: in a model as far from its start as tokio's clock.
pub(crate) fn wall_time() -> SystemTime {
    let network = Network::of_this_thread();
    network.map_or_else(SystemTime::now, |it| it.0.began_at + it.0.began.elapsed())
}

/// Whether this thread has a model network.
pub(crate) fn is_active() -> bool {
    Network::of_this_thread().is_some()
}

static NAMES: Mutex<BTreeMap<String, Vec<SocketAddr>>> = Mutex::new(BTreeMap::new());

/// Gives a host name these addresses, in this order, for the whole process.
pub fn name_host(host: &str, addresses: Vec<SocketAddr>) {
    lock(&NAMES).insert(host.to_owned(), addresses);
}

/// The addresses of a host that a test has named.
pub(crate) fn addresses_of(host: &str) -> Option<Vec<SocketAddr>> {
    lock(&NAMES).get(host).cloned()
}

/// Listens on a port, in a model of the model.
///
/// # Errors
/// When the port is taken.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let Some(network) = Network::of_this_thread() else {
        return super::bind(address).map(TcpListener::Real);
    };
    let (sender, connections) = mpsc::channel(BACKLOG);
    let listeners = &mut lock(&network.0.inner).listeners;
    if listeners.get(&address).is_some_and(|there| !there.is_closed()) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    listeners.insert(address, sender);
    Ok(TcpListener::Model { address, connections: tokio::sync::Mutex::new(connections) })
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

impl Socket for LineEnd {
    fn set_nodelay(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn set_zero_linger(&self) -> io::Result<()> {
        self.reset();
        Ok(())
    }
}

/// Dials; in a model it is refused when nothing listens.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    match Network::of_this_thread() {
        Some(network) => network.connect(address).await,
        None => Ok(Box::new(tokio::net::TcpStream::connect(address).await?)),
    }
}
