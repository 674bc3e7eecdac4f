//! Module `gsdk` against small servers of our own over real TLS.

mod flood;
mod frames;
mod life;
mod link;
mod peer;
mod proxy;
mod tls;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gsdk2mqtt::fleet::GatewayIndex;
use gsdk2mqtt::gsdk::{
    GatewayClient, GatewayOptions, Link, LinkError, LinkReport, LinkTiming, RpcObserver, RpcRecord,
    code_name,
};
use gsdk2mqtt::ids::{GATEWAY_PORT, HostPort};
use gsdk2mqtt::net::{BackoffPolicy, Peer, TlsFiles};
use tokio::sync::{mpsc, watch};

use crate::harness::PATIENCE;

/// Short times, so that a lost link is detected and reconnected within a test's deadline.
fn quick() -> LinkTiming {
    LinkTiming {
        dial: Duration::from_secs(5),
        subscribe_grace: Duration::from_millis(50),
        keep_alive_interval: Duration::from_millis(300),
        keep_alive_timeout: Duration::from_millis(300),
        retry: BackoffPolicy {
            first: Duration::from_millis(40),
            absent_max: Duration::from_millis(200),
            max: Duration::from_millis(200),
            ..BackoffPolicy::default()
        },
    }
}

/// A gateway called `lobby`.
fn lobby(address: &str, ca_file: &Path) -> GatewayOptions {
    GatewayOptions {
        peer: Peer::Gateway("lobby".parse().unwrap()),
        address: HostPort::parse(address, GATEWAY_PORT).unwrap(),
        files: TlsFiles { ca_file: Some(ca_file.to_owned()), ..TlsFiles::default() },
        server_name: None,
        queue_size: 65_536,
        timing: quick(),
    }
}

/// Method and code of the calls that ended.
type Calls = Arc<Mutex<Vec<(&'static str, &'static str)>>>;

/// An observer that keeps all reports.
fn recorder() -> (RpcObserver, Calls) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let observer =
        move |rpc: &RpcRecord| kept.lock().unwrap().push((rpc.method, code_name(rpc.code)));
    (Arc::new(observer), seen)
}

/// A running link and its reports.
struct Observed {
    link: Link,
    queue: mpsc::Receiver<(GatewayIndex, LinkReport)>,
    stop: watch::Sender<bool>,
}

impl Observed {
    fn start(options: GatewayOptions, capacity: usize) -> Self {
        Self::start_with(options, capacity, recorder().0)
    }

    fn start_with(options: GatewayOptions, capacity: usize, observer: RpcObserver) -> Self {
        let (sender, queue) = mpsc::channel(capacity);
        let (stop, stopped) = watch::channel(false);
        let link = Link::start(GatewayIndex(0), options, sender, observer, stopped);
        Self { link, queue, stop }
    }

    /// The client of the link; `None` while it is down.
    fn client(&self) -> Option<GatewayClient> {
        self.link.clients().borrow().clone()
    }

    /// The next report.
    async fn next(&mut self) -> LinkReport {
        let next = tokio::time::timeout(PATIENCE, self.queue.recv()).await;
        next.expect("an observation within the patience").expect("the task still runs").1
    }

    /// The next matching report; those before it are dropped.
    async fn next_that(&mut self, fits: impl Fn(&LinkReport) -> bool) -> LinkReport {
        loop {
            let next = self.next().await;
            if fits(&next) {
                return next;
            }
        }
    }

    /// Waits until the link is up.
    async fn up(&mut self) {
        self.next_that(|report| matches!(report, LinkReport::Up { .. })).await;
    }

    /// The end of the link, which has to be reported next: its last activity and the reason.
    async fn down(&mut self) -> (Instant, LinkError) {
        match self.next().await {
            LinkReport::Down { error, last_activity: Some(at) } => (at, error),
            other => panic!("the end of the link, not {other:?}"),
        }
    }

    /// A failed attempt, which has to be reported next: its reason.
    async fn failed(&mut self) -> LinkError {
        match self.next().await {
            LinkReport::Down { error, last_activity: None } => error,
            other => panic!("a failed attempt, not {other:?}"),
        }
    }

    /// The end of the link, after any other reports.
    async fn down_after_all(&mut self) -> (Instant, LinkError) {
        loop {
            if let LinkReport::Down { error, last_activity: Some(at) } = self.next().await {
                return (at, error);
            }
        }
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        tokio::time::timeout(PATIENCE, self.link.ended()).await.expect("the task ends on request");
    }
}

/// Waits until a condition holds.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
