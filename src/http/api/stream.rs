//! Recorded events as server-sent events. Each stream reads the history at the pace of its client,
//! so that a slow one delays nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use axum::response::sse::Event;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::super::watched::Watched;
use super::super::{App, RECONNECT_AFTER, event_stream};
use super::answer::ApiRequest;
use super::events::{check_gateways, filter};
use super::params::number;
use super::problem::Problem;
use crate::store::history::{EVENT_ID_MAX, EventFilter, Reader};

/// Streams at once.
const STREAMS_MAX: usize = 32;
/// How often new events are looked for while there is a stream.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// Events that are read at once, and their bytes.
const PAGE_EVENTS: usize = 100;
const PAGE_BYTES: usize = 64 << 10;
/// Events that wait for the socket.
const QUEUE_EVENTS: usize = 16;

/// What the streams share.
#[derive(Debug)]
pub(crate) struct EventStreams {
    slots: Arc<Semaphore>,
    /// Apart from other queries, which may take seconds.
    history: Reader,
    /// The ID of the newest event.
    newest: Watched<u64>,
}

impl EventStreams {
    pub(crate) fn new(history: Reader) -> Self {
        let slots = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { slots, history, newest: Watched::new(0) }
    }
}

/// Looks for new events while there is a stream.
pub(crate) async fn follow_history(app: &App) {
    let streams = &app.api.streams;
    // While the history cannot be read, nothing is new.
    let read = || async { streams.history.newest_id().await.ok() };
    streams.newest.follow(POLL_EVERY, read).await;
}

pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<Response, Problem> {
    let mut params = request.params();
    let mut filter = filter(&mut params)?;
    params.finish()?;
    if let Some(header) = request.headers.get("last-event-id").filter(|id| !id.is_empty()) {
        let text = header.to_str().unwrap_or_default();
        filter.after_id = Some(number("Last-Event-ID", text, 0..=EVENT_ID_MAX)?);
    }
    check_gateways(&app, &filter).await?;
    let streams = &app.api.streams;
    let slot = Arc::clone(&streams.slots).try_acquire_owned().map_err(|_| {
        Problem::busy(format!("{STREAMS_MAX} streams are open already; close one, or read /events"))
    })?;
    if filter.after_id.is_none() {
        filter.after_id = Some(streams.history.newest_id().await?);
    }
    (filter.limit, filter.max_bytes) = (PAGE_EVENTS, PAGE_BYTES);
    let (events, queue) = mpsc::channel(QUEUE_EVENTS);
    let feed = Feed {
        filter,
        history: streams.history.clone(),
        newest: streams.newest.subscribe(),
        events,
        _slot: slot,
    };
    tokio::spawn(feed.send_events());
    let first = tokio_stream::once(Event::default().retry(RECONNECT_AFTER).comment("open"));
    Ok(event_stream(&app, first.chain(ReceiverStream::new(queue))))
}

/// What a stream names of an event.
#[derive(Deserialize)]
struct EventHead {
    id: u64,
    event_type: String,
}

/// One stream.
struct Feed {
    /// Events that follow those that were sent.
    filter: EventFilter,
    history: Reader,
    newest: watch::Receiver<u64>,
    events: mpsc::Sender<Event>,
    _slot: OwnedSemaphorePermit,
}

impl Feed {
    /// Sends what is recorded; ends with `None` once the client has left or the history cannot be
    /// read. The client then connects again.
    async fn send_events(mut self) -> Option<()> {
        loop {
            let page = match self.history.query(self.filter.clone()).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::debug!(error = error.with_cause(), "event stream ended");
                    return None;
                }
            };
            if let Some(gap) = &page.gap {
                let gap = serde_json::to_string(gap).ok()?;
                self.events.send(Event::default().event("gap").data(gap)).await.ok()?;
            }
            for event in &page.events {
                self.events.send(message(event)?).await.ok()?;
            }
            self.filter.after_id = Some(page.next);
            if !page.more {
                let events = self.events.clone();
                let has_newer = self.newest.wait_for(|newest| *newest > page.next);
                let has_newer = tokio::select! {
                    () = events.closed() => false,
                    newer = has_newer => newer.is_ok(),
                };
                if !has_newer {
                    return None;
                }
            }
        }
    }
}

fn message(event: &RawValue) -> Option<Event> {
    let head: EventHead = serde_json::from_str(event.get()).ok()?;
    // One line, as its writer makes it; another program may have changed the file.
    let one_line = |text: &str| text.replace(['\r', '\n'], " ");
    let id = head.id.to_string();
    Some(Event::default().id(id).event(one_line(&head.event_type)).data(one_line(event.get())))
}
