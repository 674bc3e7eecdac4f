//! A network and a wall clock inside one thread, on tokio's clock and driven by a seed.

mod line;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use gsdk2mqtt::net::model::{self, Connecting, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};

pub(crate) use line::Side;
use line::{Latency, Line, LineEnd, lock};

/// Connections that may wait to be accepted.
const BACKLOG: usize = 1_024;

#[derive(Clone, Debug)]
pub(crate) struct Network(Arc<SharedNetwork>);

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
    pub(crate) fn begin(seed: u64, began_at: SystemTime) -> Self {
        let inner = Inner { listeners: BTreeMap::new(), lines: Vec::new(), held: BTreeSet::new() };
        let network = Self(Arc::new(SharedNetwork {
            began: Instant::now(),
            began_at,
            latency: Latency::with_seed(seed),
            inner: Mutex::new(inner),
            repaired: Notify::new(),
        }));
        model::install(network.clone());
        network
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
    pub(crate) fn hold(&self, address: SocketAddr, from: Side, held: bool) {
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
    pub(crate) fn cut(&self, address: SocketAddr) {
        self.each_line(address, |line| line.reset = true);
    }

    /// One side's process has ended: it reads and writes no more. What it had written is still
    /// delivered.
    pub(crate) fn kill(&self, address: SocketAddr, side: Side) {
        self.each_line(address, |line| {
            line.half(side).closed = true;
            line.half(side.other()).deaf = true;
        });
    }

    fn is_held(&self, address: SocketAddr) -> bool {
        let held = &lock(&self.0.inner).held;
        [true, false].iter().any(|from| held.contains(&(address, *from)))
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
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

impl model::Network for Network {
    /// As far from its start as tokio's clock.
    fn wall_time(&self) -> SystemTime {
        self.0.began_at + self.0.began.elapsed()
    }

    fn connect(&self, address: SocketAddr) -> Connecting {
        let network = self.clone();
        Box::pin(async move { network.dial(address).await })
    }

    fn listen(&self, address: SocketAddr) -> io::Result<mpsc::Receiver<TcpStream>> {
        let (sender, connections) = mpsc::channel(BACKLOG);
        let listeners = &mut lock(&self.0.inner).listeners;
        if listeners.get(&address).is_some_and(|there| !there.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        listeners.insert(address, sender);
        Ok(connections)
    }
}
