//! What the integration tests start and wait for.

pub(crate) mod bridge;
pub(crate) mod certificates;
pub(crate) mod gateway;
pub(crate) mod master;
pub(crate) mod mosquitto;
pub(crate) mod proxy;
pub(crate) mod scripted_broker;
pub(crate) mod subscriber;
pub(crate) mod terminal;
pub(crate) mod watcher;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gsdk2mqtt::simulator::{Simulator, SimulatorSettings};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The deadline of any condition. Long, because machines may be busy; a test
/// that passes does not wait for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A program that is ended after two minutes, with exit code 124, so that a test fails instead of
/// waiting for it forever. It gets the signals sent to this process, except SIGKILL.
pub(crate) fn bounded(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=1", "120", program]);
    command
}

/// A generator for the random choices of a test. Its seed is printed, and `TEST_SEED` sets it.
#[expect(clippy::print_stdout, reason = "shown where the test fails")]
pub(crate) fn seeded() -> fastrand::Rng {
    let seed = std::env::var("TEST_SEED");
    let seed = seed.map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// A name that no other client of this machine has.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{name}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Awaits `work`, and fails the test with `what` if that takes too long.
pub(crate) async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// A simulated gateway with this number of devices, all managed and connected.
pub(crate) async fn simulator(count: usize) -> Simulator {
    let simulator = Simulator::start(SimulatorSettings::fast(count)).await.unwrap();
    eventually("every device is connected", || {
        let managed = simulator.control().managed();
        let connected = managed.iter().filter(|device| matches!(device.status, 1 | 2)).count();
        (connected == count).then_some(())
    })
    .await;
    simulator
}

/// An address at which every attempt to connect hangs: a listener with a full backlog.
pub(crate) struct BlackHole {
    pub(crate) address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    pub(crate) async fn open() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let (address, mut waiting) = (listener.local_addr().unwrap(), Vec::new());
        let answered = || tokio::time::timeout(LOOK_EVERY * 10, TcpStream::connect(address));
        while let Ok(connected) = answered().await {
            waiting.push(connected.unwrap());
        }
        Self { address, _listener: listener, _waiting: waiting }
    }
}

/// Between two polls of a condition.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Polls until `look` returns a value, and fails the test with `what` if that takes too long.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    patiently(what, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await
}
