//! The web server: the status page, `/metrics`, `/healthz`, `/readyz` (contract, section 5).
//!
//! May not touch the loop's state: it asks over a bounded channel. Only `/healthz` asks nothing: it
//! reads the loop's heartbeat.

mod connections;
mod ending;
mod host;
mod metrics;
mod overload;
pub mod page;
mod patient;

pub use connections::listen;
pub use host::Hosts;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

use crate::fleet::{DeviceMeasures, GatewayIndex};
use crate::ids::DeviceId;
use crate::metrics::{DeviceGroup, GatewayMeasures, Metrics};
use crate::payload::Health;
use crate::task::Heartbeat;

/// How long the loop may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Requests on their way to the loop; more than a handful at once means that it is stuck.
pub const QUERIES_MAX: usize = 64;
/// How many devices the loop copies for one answer.
pub const DEVICES_AT_ONCE: usize = 1_000;

/// What the server asks the loop.
#[derive(Debug)]
pub enum Query {
    /// Whether it is ready, and in what it is degraded.
    Ready(oneshot::Sender<Health>),
    /// The measures of one gateway; `None` past the last.
    Gateway(GatewayIndex, oneshot::Sender<Option<GatewayMeasures>>),
    /// The measures of a gateway's devices after this one, [`DEVICES_AT_ONCE`] at most.
    Devices(GatewayIndex, Option<DeviceId>, oneshot::Sender<Vec<DeviceMeasures>>),
    /// A page of devices, with all that stands around it.
    Page(page::Wanted, oneshot::Sender<page::Page>),
    /// What the page has to be told since this was last asked.
    Changes(oneshot::Sender<page::Changes>),
}

/// What the handlers share.
#[derive(Debug)]
struct Served {
    settings: Settings,
    hub: page::Hub,
    /// Whose page is being made.
    turn: Semaphore,
    /// A permit for each scrape under way.
    scrapes: Arc<Semaphore>,
}

/// What the server is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where its questions go.
    pub queries: mpsc::Sender<Query>,
    /// The bridge's own metrics.
    pub metrics: Metrics,
    /// Which device series are shown.
    pub groups: BTreeSet<DeviceGroup>,
    /// The loop's sign of life.
    pub heartbeat: Heartbeat,
    /// The names under which the server is reached.
    pub hosts: Hosts,
}

/// Starts a runtime of one thread for the web server. In the runtime of the event loop, a loop that
/// hangs can take the server with it: tokio has one task wait for all sockets and timers, and the
/// worker that has it next may be the one that hangs. A scrape also takes no time from the loop's
/// workers.
///
/// # Errors
/// The system gives no thread or no file handle.
pub fn start_runtime() -> std::io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let serve_on = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("http".to_owned()).spawn(serve_on)?;
    Ok(handle)
}

/// Serves on this listener until `shutdown` is done.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let (heartbeat, hosts) = (settings.heartbeat.clone(), settings.hosts.clone());
    let served = Arc::new(Served {
        settings,
        hub: page::Hub::default(),
        turn: Semaphore::new(1),
        scrapes: Arc::new(Semaphore::new(metrics::SCRAPES_MAX)),
    });
    // The fastest level makes a tenth of the metrics' text; the best takes five times as long.
    let compression = CompressionLayer::new().quality(CompressionLevel::Fastest);
    let router = Router::new()
        .route("/", get(page::page))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/icon.svg", get(page::icon))
        .route("/events", get(page::events))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(served.clone())
        // The last is the first to see a request.
        .layer(compression)
        .layer(from_fn(ending::close_in_http_1_0))
        .layer(from_fn_with_state(hosts, host::check));
    // Whoever watches is let go first: the server ends when nobody is being answered.
    let (stop, mut stopped) = watch::channel(false);
    let shutdown = async move {
        shutdown.await;
        stop.send_replace(true);
    };
    let told = page::tell_on(served, async move { _ = stopped.wait_for(|stop| *stop).await });
    tokio::join!(connections::serve(listener, router, heartbeat, shutdown), told);
}

impl Settings {
    /// The loop's answer; otherwise why there is none.
    async fn ask<T>(
        &self,
        query: impl FnOnce(oneshot::Sender<T>) -> Query,
    ) -> Result<T, &'static str> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.queries.send(query(answer)).await.ok()?;
            answered.await.ok()
        };
        match timeout(ANSWER_DEADLINE, asked).await {
            Ok(answer) => answer.ok_or("the bridge is stopping"),
            Err(_) => Err("the loop has not turned for 10 s"),
        }
    }
}

async fn healthz(State(served): State<Arc<Served>>) -> Response {
    if served.settings.heartbeat.is_alive() {
        "ok\n".into_response()
    } else {
        unavailable("the event loop has not run for 10 s")
    }
}

async fn readyz(State(served): State<Arc<Served>>) -> Response {
    let health = served.settings.ask(Query::Ready).await;
    let health = health.unwrap_or_else(|why| Health {
        ready: false,
        reasons: vec![why.to_owned()],
        degraded: Vec::new(),
    });
    let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}

fn unavailable(message: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{message}\n")).into_response()
}
