//! `/metrics`: queries the event loop and writes the text in chunks, so that a scrape holds at most
//! one group of series in memory. Each gateway, and each group of a device's series, is read at one
//! instant; a scrape as a whole is not.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::query::NoAnswer;
use super::socket::Truncated;
use super::{App, HttpSettings, unavailable};
use crate::config::DeviceSeries;
use crate::metrics::{
    CountsRow, GatewayMeasures, Row, SecondsRow, StateRow, gateways_text, info_head, info_text,
    masters_text,
};
use crate::task::{self, catch_panic};

/// Scrapes at once: Prometheus, and a second instance or a person.
pub(crate) const SCRAPES_MAX: usize = 2;
/// How long a scrape may take. Prometheus itself waits for 10 s.
const SCRAPE_DEADLINE: Duration = Duration::from_secs(10);
/// When a scrape beyond the limit may be retried, in seconds.
const RETRY_AFTER_S: &str = "10";
/// Chunks that wait for the socket.
const CHUNKS_MAX: usize = 2;

/// Text; an error aborts the answer, so that a client cannot take a part for the whole.
type Chunk = Result<String, String>;

pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    Extension(truncated): Extension<Truncated>,
) -> Response {
    let Ok(permit) = Arc::clone(&app.scrapes).try_acquire_owned() else {
        let retry = [(header::RETRY_AFTER, RETRY_AFTER_S)];
        let text = "two scrapes are already in progress\n";
        return (StatusCode::SERVICE_UNAVAILABLE, retry, text).into_response();
    };
    let deadline = Instant::now() + SCRAPE_DEADLINE;
    let settings = &app.settings;
    let measures = async {
        let gateways = settings.event_loop.gateways().await?;
        Ok::<_, NoAnswer>((gateways, settings.event_loop.masters().await?))
    };
    let (gateways, masters) = match timeout_at(deadline, measures).await {
        Ok(Ok(measures)) => measures,
        Ok(Err(error)) => return error.into_response(),
        Err(_) => return unavailable(&"the event loop is too slow"),
    };
    let Ok(mut first) = settings.metrics.text() else {
        return unavailable(&"internal error: the bridge's metrics cannot be encoded");
    };
    first.push_str(&masters_text(&masters));
    first.push_str(&gateways_text(&gateways));
    let (chunks, body) = mpsc::channel(CHUNKS_MAX);
    let writer = SeriesWriter { settings: settings.clone(), gateways, chunks };
    tokio::spawn(async move {
        let result = catch_panic(timeout_at(deadline, writer.write())).await;
        // Before the answer ends, so that its client can scrape again immediately.
        drop(permit);
        let reason = match result {
            Ok(Ok(Ok(()) | Err(WriteError::ClientLeft))) => return,
            Ok(Ok(Err(WriteError::NoAnswer(error)))) => error.to_string(),
            Ok(Err(_)) => "the scrape took longer than 10 s".to_owned(),
            Err(panic) => panic,
        };
        tracing::warn!(reason, "scrape aborted");
        truncated.set();
        // Fails if the client has left.
        _ = writer.chunks.send(Err(reason)).await;
    });
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let body = tokio_stream::once(Ok(first)).chain(ReceiverStream::new(body));
    (content_type, Body::from_stream(body)).into_response()
}

enum WriteError {
    ClientLeft,
    NoAnswer(NoAnswer),
}

impl From<NoAnswer> for WriteError {
    fn from(error: NoAnswer) -> Self {
        Self::NoAnswer(error)
    }
}

/// Writes the series of all devices.
struct SeriesWriter {
    settings: HttpSettings,
    gateways: Vec<GatewayMeasures>,
    chunks: mpsc::Sender<Chunk>,
}

impl SeriesWriter {
    async fn write(&self) -> Result<(), WriteError> {
        let groups = &self.settings.groups;
        if groups.contains(&DeviceSeries::Seconds) {
            self.rows::<SecondsRow>().await?;
        }
        if groups.contains(&DeviceSeries::Counts) {
            self.rows::<CountsRow>().await?;
        }
        self.rows::<StateRow>().await?;
        self.info().await
    }

    async fn info(&self) -> Result<(), WriteError> {
        self.send(info_head()).await?;
        let mut chunks = self.settings.event_loop.devices(&self.gateways);
        while let Some(chunk) = chunks.next().await? {
            self.send(info_text(chunk.gateway, &chunk.devices)).await?;
        }
        Ok(())
    }

    /// Prometheus text has one family after the other, so what the group's series need of all
    /// devices is kept until the last one is written.
    async fn rows<R: Row>(&self) -> Result<(), WriteError> {
        let mut all = Vec::new();
        let mut chunks = self.settings.event_loop.devices(&self.gateways);
        while let Some(chunk) = chunks.next().await? {
            all.push((chunk.gateway, chunk.devices.iter().map(R::new).collect::<Vec<_>>()));
        }
        for series in R::SERIES {
            self.send(series.head()).await?;
            for (gateway, rows) in &all {
                self.send(series.text(&gateway.name, rows)).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, text: String) -> Result<(), WriteError> {
        task::give_way();
        self.chunks.send(Ok(text)).await.map_err(|_| WriteError::ClientLeft)
    }
}
