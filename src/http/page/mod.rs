//! The status page: rendered here, readable without script. With script it loads itself again when
//! server-sent events report a change, so that it has one way to be rendered. It loads nothing from
//! elsewhere.

mod availability;
mod bars;
mod detail;
mod devices;
mod history;
mod overview;
mod parts;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query as Parameters, State};
use axum::http::{StatusCode, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use maud::{Markup, html};
use tokio::sync::Semaphore;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;

use super::query::NoAnswer;
use super::watched::Watched;
use super::{App, RECONNECT_AFTER, event_stream};
use crate::availability::AvailabilityRequest;
use crate::store::history::Reader;
use devices::{Filter, ShownDevices};

/// Browsers that may watch at once.
const WATCHERS_MAX: usize = 32;
/// How often changes are looked for while a browser watches.
const CHANGES_EVERY: Duration = Duration::from_secs(1);

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

/// What pages show, as far as it is needed to notice a change. Pages load themselves now and then
/// anyway, for what is not in it, as a certificate of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    device_changes: u64,
    /// The bridge and its gateways.
    overview: String,
    /// The ID of the newest event, or why it cannot be read.
    newest_event: Result<u64, String>,
}

impl Shown {
    async fn read(app: &App, history: &Reader) -> Result<Self, NoAnswer> {
        let event_loop = &app.settings.event_loop;
        let status = event_loop.bridge().await?;
        let gateways = event_loop.gateways().await?;
        let overview = overview::overview(&status, &gateways, &html! {}).into_string();
        let newest_event = history::newest_id(history).await;
        Ok(Self { device_changes: status.device_changes, overview, newest_event })
    }
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
    let mut devices = ShownDevices::new(&filter);
    let mut chunks = event_loop.devices(&gateways);
    while let Some(chunk) = chunks.next().await? {
        devices.add(&chunk);
    }
    drop(permit);
    let status = event_loop.bridge().await?;
    let rows = devices.rows();
    let query = AvailabilityRequest {
        gateways: rows.iter().map(|row| row.gateway.clone()).collect(),
        device_ids: rows.iter().map(|row| row.device.device_id).collect(),
        ..bars::query(&app.settings.zone, filter.range)
    };
    let bars = async {
        match rows.as_slice() {
            [] => Ok(Vec::new()),
            _ => history::availability(&app.page.history, query).await,
        }
    };
    let names = gateways.iter().map(|gateway| gateway.entry.name.clone()).collect();
    let events = history::last_events(&app.page.history, names, None);
    let (bars, events) = tokio::join!(bars, events);
    Ok(view::page(&app.settings, &status, &gateways, &devices, &bars, &events))
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

/// Looks for changes while a browser watches.
pub(crate) async fn follow_changes(app: &App) {
    // Its own, which the bars of pages do not hold up.
    let history = &app.settings.history.with_own_limit();
    // Without an answer of the event loop, the next time.
    let read = || async move { Shown::read(app, history).await.ok().map(Some) };
    app.page.shown.follow(CHANGES_EVERY, read).await;
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
