//! The status page: rendered here, readable without script. With script it loads itself again when
//! server-sent events report a change. It loads nothing from elsewhere.

mod availability;
mod bars;
mod detail;
mod detail_view;
mod devices;
mod down;
mod history;
mod overview;
mod parts;
mod updates;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query as Parameters, State};
use axum::http::{StatusCode, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use maud::Markup;
use tokio::sync::Semaphore;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;

pub(crate) use updates::follow_changes;

use super::query::NoAnswer;
use super::watched::Watched;
use super::{App, RECONNECT_AFTER, event_stream};
use crate::availability::AvailabilityRequest;
use crate::store::history::Reader;
use devices::{Filter, Search};
use down::DownDevices;
use updates::Shown;

/// Browsers that may watch at once.
const WATCHERS_MAX: usize = 32;

/// What the requests for the page share.
#[derive(Debug)]
pub(crate) struct PageContext {
    /// `None` until a browser has watched.
    shown: Watched<Option<Shown>>,
    /// Its own, which requests to the API do not hold up.
    history: Reader,
    /// Pages read all devices one at a time.
    scanning: Semaphore,
}

impl PageContext {
    pub(crate) fn new(history: &Reader) -> Self {
        let (history, scanning) = (history.with_own_limit(), Semaphore::new(1));
        Self { shown: Watched::new(None), history, scanning }
    }
}

/// The pages and their files.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(page))
        .route("/gateways/{gateway}", get(detail::gateway))
        .route("/devices/{gateway}/{device_id}", get(detail::device))
        .route("/events", get(events))
        .route("/page.css", asset("text/css; charset=utf-8", include_str!("page.css")))
        .route("/page.js", asset("text/javascript; charset=utf-8", include_str!("page.js")))
        .route("/icon.svg", asset("image/svg+xml", include_str!("icon.svg")))
}

fn asset(content_type: &'static str, text: &'static str) -> MethodRouter<Arc<App>> {
    get(move || async move { ([(header::CONTENT_TYPE, content_type)], text) })
}

async fn page(
    State(app): State<Arc<App>>,
    Parameters(filter): Parameters<Filter>,
) -> Result<Markup, NoAnswer> {
    let event_loop = &app.settings.event_loop;
    let permit = app.page.scanning.acquire().await.map_err(|_| NoAnswer::Stopping)?;
    let gateways = event_loop.gateways().await?;
    let (mut search, mut down) = (Search::new(&filter), DownDevices::new());
    let mut chunks = event_loop.devices(&gateways);
    while let Some(chunk) = chunks.next().await? {
        down.add(&chunk);
        search.add(&chunk);
    }
    drop(permit);
    let status = event_loop.bridge().await?;
    let devices = search.finish();
    let query = AvailabilityRequest {
        gateways: devices.rows.iter().map(|row| row.gateway.clone()).collect(),
        device_ids: devices.rows.iter().map(|row| row.device.device_id).collect(),
        ..bars::query(&app.settings.zone, filter.range)
    };
    let bars = async {
        match devices.rows.as_slice() {
            [] => Ok(Vec::new()),
            _ => history::availability(&app.page.history, query).await,
        }
    };
    let names = gateways.iter().map(|gateway| gateway.entry.name.clone()).collect();
    let events = history::last_events(&app.page.history, names, None);
    let (bars, events) = tokio::join!(bars, events);
    let shown = view::StatusPageContent {
        status: &status,
        gateways: &gateways,
        down: &down,
        filter: &filter,
        devices: &devices,
        bars: bars.as_deref().map_err(String::as_str),
        events: &events,
    };
    Ok(view::page(&app.settings, &shown))
}

async fn events(State(app): State<Arc<App>>) -> Response {
    if app.page.shown.watchers() >= WATCHERS_MAX {
        let text = "too many browsers watch already\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    // The page then loads what has changed since it was rendered.
    let hello = Event::default().event("hello").retry(RECONNECT_AFTER).data("null");
    // For a browser that is too slow, several changes are one.
    let changes = WatchStream::from_changes(app.page.shown.subscribe())
        .map(|_| Event::default().event("changed").data("null"));
    event_stream(&app, tokio_stream::once(hello).chain(changes))
}

#[cfg(test)]
mod tests {
    use super::devices::Condition;
    use super::*;

    fn filter(query: &str) -> Result<Filter, ()> {
        let address = format!("/?{query}").parse().unwrap();
        Parameters::try_from_uri(&address).map(|Parameters(filter)| filter).map_err(drop)
    }

    #[test]
    fn an_address_is_a_filter() {
        let parsed = filter("q=+Front%20D%C3%BCr%2&show=down&page=2&x").unwrap();
        assert_eq!(parsed.text, "front dür%2");
        assert_eq!((parsed.condition, parsed.page), (Some(Condition::Down), 2));
        assert_eq!(filter("show=&q="), Ok(Filter::default()));
        assert_eq!(filter(""), Ok(Filter::default()));
        assert!(filter("page=-1").is_err() && filter("show=all").is_err());
    }
}
