//! The web server: the status page, the API below `/api/v1`, `/metrics`, `/healthz`, `/readyz`. It
//! queries the event loop over a bounded channel; only `/healthz` needs no answer, because it reads
//! the loop's heartbeat.

mod access;
mod api;
mod connections;
mod files;
mod metrics;
mod page;
mod query;
mod socket;
mod tokens;
mod watched;

pub(crate) use api::{AVAILABILITY_COLUMNS, csv};
pub use connections::listen;
pub(crate) use connections::listen_remedy;
pub(crate) use files::{FileContents, file_contents};
pub use query::{BridgeStatus, DEVICES_PER_QUERY, DeviceIdRange, LoopClient, LoopQuery};

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use futures_util::StreamExt as _;
use jiff::tz::TimeZone;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_stream::Stream;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

use access::{AllowedHosts, ListenerAccess};
use connections::Endpoint;
use files::Files;
use query::NoAnswer;
use socket::Transport;

use crate::config::{DeviceSeries, Http};
use crate::metrics::Metrics;
use crate::payload::Health;
use crate::store::history::Reader;
use crate::task::Heartbeat;

/// How long an answer may take to begin. Longer than the event loop may take to answer one
/// question, so that its error is reported first.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);
/// When a client connects again after it has lost its stream of events.
const RECONNECT_AFTER: Duration = Duration::from_secs(3);
/// How often a comment is sent where nothing happens, so that both sides notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Nothing from elsewhere is loaded, and only a page of the same origin may frame the status page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
     img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
     frame-ancestors 'self'";

/// What the handlers share.
#[derive(Debug)]
struct App {
    settings: HttpSettings,
    page: page::PageContext,
    api: api::Api,
    /// One permit for each scrape in progress.
    scrapes: Arc<Semaphore>,
    /// Whether the server stops.
    stop: watch::Receiver<bool>,
}

/// The server's settings, and its access to the rest of the bridge.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// The bridge's name.
    pub bridge: String,
    /// The event loop.
    pub event_loop: LoopClient,
    /// The heartbeat of the event loop.
    pub heartbeat: Heartbeat,
    /// The bridge's own metrics.
    pub metrics: Metrics,
    /// The groups of device series that are shown besides those that always are.
    pub groups: BTreeSet<DeviceSeries>,
    /// Reads recorded events and availability.
    pub history: Reader,
    /// The zone of local dates.
    pub zone: TimeZone,
    /// The names under which it may be reached, who needs no token, and its files.
    pub http: Http,
    /// Gets why these files cannot be used.
    pub file_problems: watch::Sender<Vec<String>>,
}

/// Where the server listens.
#[derive(Debug)]
pub struct Listeners {
    /// For everything.
    pub main: TcpListener,
    /// For metrics and health only, without a login.
    pub metrics: Option<TcpListener>,
}

/// Starts a runtime of one thread for the web server. In the runtime of the event loop, a loop that
/// hangs can block the server: tokio lets one task wait for all sockets and timers, and the next
/// worker that takes this over may be the one that hangs. Scrapes also take no time from the loop's
/// workers.
///
/// # Errors
/// The system gives no thread or no file handle.
pub fn start_runtime() -> std::io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("http".to_owned()).spawn(run)?;
    Ok(handle)
}

/// Serves on these listeners until `stop` is true.
pub async fn serve(listeners: Listeners, settings: HttpSettings, stop: watch::Receiver<bool>) {
    let mut files = Files::new(&settings.http, settings.file_problems.clone());
    let access = ListenerAccess::new(settings.http.anonymous_from.clone(), files.tokens());
    let transport = Transport::new(files.tls());
    let page = page::PageContext::new(&settings.history);
    let scrapes = Arc::new(Semaphore::new(metrics::SCRAPES_MAX));
    let hosts = AllowedHosts::new(&settings.http.hosts);
    let api = api::Api::new(&settings.history);
    let app = Arc::new(App { settings, page, api, scrapes, stop: stop.clone() });
    let excess_router = Router::new().route("/healthz", get(healthz)).fallback(busy);
    let excess_router = excess_router.with_state(Arc::clone(&app));
    let metrics = listeners.metrics.map(|listener| {
        let routes = metrics_routes().fallback(not_for_metrics);
        let router = with_headers(with_limits(routes.with_state(Arc::clone(&app))));
        let (transport, excess_router) = (Transport::default(), excess_router.clone());
        Endpoint { listener, transport, router, excess_router }
    });
    let router = with_limits(routes().with_state(Arc::clone(&app)))
        .layer(from_fn_with_state(access, access::check_token))
        .layer(from_fn_with_state(hosts, access::check_host));
    let router = with_headers(router);
    let main = Endpoint { listener: listeners.main, transport, router, excess_router };
    // Clients that come at once need the tokens and the certificate.
    files.read().await;
    let background = async {
        tokio::join!(files.follow(), api::follow_history(&app), page::follow_changes(&app));
    };
    let mut stopped = stop.clone();
    let until_stop = async {
        tokio::select! {
            // Without a sender the bridge has ended.
            _ = stopped.wait_for(|stop| *stop) => {}
            () = background => {}
        }
    };
    let serve_metrics = async {
        if let Some(metrics) = metrics {
            metrics.serve(stop.clone()).await;
        }
    };
    tokio::join!(main.serve(stop.clone()), serve_metrics, until_stop);
}

fn routes() -> Router<Arc<App>> {
    metrics_routes().merge(page::routes()).nest("/api/v1", api::routes()).fallback(no_path)
}

fn metrics_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

/// With deadlines and compression. The last layer is the first to see a request.
fn with_limits(router: Router) -> Router {
    router
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST_DEADLINE))
        // The fastest level makes the metrics' text ten times smaller; the best takes five times
        // as long.
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
        .layer(from_fn(socket::close_http_1_0))
}

/// With the headers that every answer has.
fn with_headers(router: Router) -> Router {
    let set =
        |name, value| SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value));
    router
        .layer(set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .layer(set(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(set(header::REFERRER_POLICY, "no-referrer"))
        .layer(set(header::CACHE_CONTROL, "no-cache"))
}

async fn healthz(State(app): State<Arc<App>>) -> Response {
    if app.settings.heartbeat.is_alive() {
        "ok\n".into_response()
    } else {
        unavailable(&"the event loop has not run for 10 s")
    }
}

async fn readyz(State(app): State<Arc<App>>) -> Response {
    let health = match app.settings.event_loop.bridge().await {
        Ok(status) => status.health,
        Err(error) => {
            Health { ready: false, reasons: vec![error.to_string()], degraded: Vec::new() }
        }
    };
    let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}

/// The answer beyond the limit of connections to a request for something else than `/healthz`.
async fn busy() -> impl IntoResponse {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")])
}

async fn no_path(uri: Uri) -> Response {
    if uri.path().starts_with("/api/") {
        return api::Problem::no_path(uri.path()).into_response();
    }
    StatusCode::NOT_FOUND.into_response()
}

/// The answer of the metrics' listener to a request for something else.
async fn not_for_metrics(uri: Uri) -> Response {
    let detail = "only /metrics, /healthz and /readyz are here; the page and the API are at \
                  http.listen";
    api::Problem::new(StatusCode::NOT_FOUND, "not_found", detail).answer(uri.path())
}

/// An answer of server-sent events. It ends when the server stops, which waits for all answers.
fn event_stream(app: &App, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let mut stop = app.stop.clone();
    let events = events.take_until(async move { _ = stop.wait_for(|stop| *stop).await });
    // For proxies: neither buffer nor compress.
    let headers = [("cache-control", "no-cache, no-transform"), ("x-accel-buffering", "no")];
    let events = Sse::new(events.map(Ok::<_, Infallible>));
    (headers, events.keep_alive(KeepAlive::new().interval(KEEP_ALIVE))).into_response()
}

impl IntoResponse for NoAnswer {
    fn into_response(self) -> Response {
        unavailable(&self)
    }
}

fn unavailable(message: &impl Display) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{message}\n")).into_response()
}
