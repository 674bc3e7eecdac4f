//! The JSON API below `/api/v1` (docs/api.md): read-only, bounded in rows, bytes and time. It
//! queries the event loop for small copies, and reads the history in parallel with its writer.

mod answer;
mod availability;
mod bridge;
pub(crate) mod csv;
mod devices;
mod events;
mod params;
mod problem;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::App;
use crate::schema;
use crate::store::history::Reader;
use answer::ApiRequest;
pub(crate) use availability::COLUMNS as AVAILABILITY_COLUMNS;
pub(crate) use devices::searchable;
pub(crate) use problem::Problem;
use stream::EventStreams;
pub(crate) use stream::follow_history;

/// How long an answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Requests at once that read all devices.
const SCANS_MAX: usize = 2;

/// What the requests to the API share.
#[derive(Debug)]
pub(crate) struct Api {
    history: Reader,
    /// One permit for each request that reads all devices.
    scans: Semaphore,
    streams: EventStreams,
}

impl Api {
    pub(crate) fn new(history: &Reader) -> Self {
        let streams = EventStreams::new(history.with_own_limit());
        Self { history: history.with_own_limit(), scans: Semaphore::new(SCANS_MAX), streams }
    }
}

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/bridge", get(bridge::bridge))
        .route("/masters", get(bridge::masters))
        .route("/gateways", get(bridge::gateways))
        .route("/gateways/{gateway}", get(bridge::gateway))
        .route("/devices", get(devices::devices))
        .route("/devices/{gateway}/{device_id}", get(devices::device))
        .route("/availability", get(availability::availability))
        .route("/events", get(events::events))
        .route("/events/stream", get(stream::stream))
        .route("/openapi.json", get(openapi))
        .layer(from_fn(within_deadline))
        .method_not_allowed_fallback(only_reads)
}

async fn only_reads() -> Problem {
    let detail = "the API is read-only; use GET or HEAD";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// Ends a request that takes too long; a stream of events has to begin in time.
async fn within_deadline(request: Request, next: Next) -> Result<Response, Problem> {
    timeout(ANSWER_DEADLINE, next.run(request)).await.map_err(|_| {
        Problem::busy("there was no answer within 5 s; request less, or repeat the request later")
    })
}

async fn openapi(request: ApiRequest) -> Result<Response, Problem> {
    request.params().finish()?;
    Ok(request.respond("application/json", schema::open_api()))
}
