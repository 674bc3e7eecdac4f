//! `/metrics`: the loop's answers, asked for and written a piece at a time, for a few at once.
//!
//! May not hold more of the fleet than one group of series at once. Each gateway, and each group of
//! a device's series, is of one instant; the whole is of the time that it took to write.

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

use super::ending::Broken;
use super::{DEVICES_AT_ONCE, Query, Served, Settings, unavailable};
use crate::fleet::{DeviceMeasures, GatewayIndex};
use crate::ids::DeviceId;
use crate::metrics::{DeviceGroup, GatewayMeasures, gateways_text, info_head, info_text};
use crate::task::catch_panic;

/// Scrapes at once: Prometheus, and its twin or a person.
pub(super) const SCRAPES_MAX: usize = 2;
/// How long a scrape may take. Prometheus itself waits for 10 s.
const SCRAPE_DEADLINE: Duration = Duration::from_secs(10);
/// When a scrape beyond the limit may come again, in seconds.
const RETRY_AFTER_S: &str = "10";
/// Pieces that wait for the socket.
const PIECES_MAX: usize = 2;

/// A piece of the text; an error breaks the answer off, so that nobody takes it for whole.
type Piece = Result<String, String>;

pub(super) async fn metrics(
    State(served): State<Arc<Served>>,
    Extension(broken): Extension<Broken>,
) -> Response {
    let Ok(permit) = Arc::clone(&served.scrapes).try_acquire_owned() else {
        let retry = [(header::RETRY_AFTER, RETRY_AFTER_S)];
        let text = "two scrapes are under way already\n";
        return (StatusCode::SERVICE_UNAVAILABLE, retry, text).into_response();
    };
    let deadline = Instant::now() + SCRAPE_DEADLINE;
    let settings = &served.settings;
    let gateways = match timeout_at(deadline, gateways(settings)).await {
        Ok(Ok(gateways)) => gateways,
        Ok(Err(why)) => return unavailable(why),
        Err(_) => return unavailable("the loop is too slow"),
    };
    let Ok(mut first) = settings.metrics.text() else {
        return unavailable("the bridge's own metrics cannot be written");
    };
    first.push_str(&gateways_text(&gateways));
    let (pieces, written) = mpsc::channel(PIECES_MAX);
    let last = pieces.clone();
    let writer = Writer { settings: settings.clone(), gateways, pieces };
    tokio::spawn(async move {
        let ended = catch_panic(async move { timeout_at(deadline, writer.write()).await }).await;
        // Before the answer ends, so that its client may ask again at once.
        drop(permit);
        let why = match ended {
            Ok(Ok(Ok(()) | Err(Ended::Gone))) => return,
            Ok(Ok(Err(Ended::Unanswered(why)))) => why.to_owned(),
            Ok(Err(_)) => "the scrape took longer than 10 s".to_owned(),
            Err(panic) => panic,
        };
        tracing::warn!(why, "scrape broken off");
        broken.set();
        // The client may be gone.
        _ = last.send(Err(why)).await;
    });
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let body = tokio_stream::once(Ok(first)).chain(ReceiverStream::new(written));
    (content_type, Body::from_stream(body)).into_response()
}

/// The measures of all gateways.
async fn gateways(settings: &Settings) -> Result<Vec<GatewayMeasures>, &'static str> {
    let mut gateways = Vec::new();
    loop {
        let index = GatewayIndex(gateways.len());
        match settings.ask(|answer| Query::Gateway(index, answer)).await? {
            Some(measures) => gateways.push(measures),
            None => return Ok(gateways),
        }
    }
}

/// Why the writing ended early.
enum Ended {
    /// Whoever asked has gone.
    Gone,
    /// The loop did not answer.
    Unanswered(&'static str),
}

/// Writes the fleet's text.
struct Writer {
    settings: Settings,
    gateways: Vec<GatewayMeasures>,
    pieces: mpsc::Sender<Piece>,
}

impl Writer {
    async fn write(&self) -> Result<(), Ended> {
        for &group in &self.settings.groups {
            match group {
                DeviceGroup::Info => self.info().await?,
                group => self.values(group).await?,
            }
        }
        Ok(())
    }

    async fn info(&self) -> Result<(), Ended> {
        self.send(info_head()).await?;
        for (at, gateway) in self.gateways.iter().enumerate() {
            let mut pages = self.pages(at);
            while let Some(page) = pages.next().await? {
                self.send(info_text(&gateway.entry, &page)).await?;
            }
        }
        Ok(())
    }

    /// Family by family, so the values of all devices stand here until the last is written.
    async fn values(&self, group: DeviceGroup) -> Result<(), Ended> {
        let mut all = Vec::with_capacity(self.gateways.len());
        for (at, gateway) in self.gateways.iter().enumerate() {
            let mut values = Vec::with_capacity(gateway.state.devices());
            let mut pages = self.pages(at);
            while let Some(page) = pages.next().await? {
                values.extend(page.iter().map(|device| group.of(device)));
            }
            all.push(values);
        }
        for column in group.columns() {
            self.send(column.head()).await?;
            for (gateway, values) in self.gateways.iter().zip(&all) {
                for values in values.chunks(DEVICES_AT_ONCE) {
                    self.send(column.text(&gateway.entry.name, values)).await?;
                }
            }
        }
        Ok(())
    }

    async fn send(&self, text: String) -> Result<(), Ended> {
        self.pieces.send(Ok(text)).await.map_err(|_| Ended::Gone)
    }

    fn pages(&self, at: usize) -> Pages<'_> {
        Pages { settings: &self.settings, gateway: GatewayIndex(at), after: None, ended: false }
    }
}

/// A gateway's devices, so many at a time.
struct Pages<'a> {
    settings: &'a Settings,
    gateway: GatewayIndex,
    after: Option<DeviceId>,
    ended: bool,
}

impl Pages<'_> {
    async fn next(&mut self) -> Result<Option<Vec<DeviceMeasures>>, Ended> {
        if self.ended {
            return Ok(None);
        }
        let ask = |answer| Query::Devices(self.gateway, self.after, answer);
        let page = self.settings.ask(ask).await.map_err(Ended::Unanswered)?;
        self.ended = page.len() < DEVICES_AT_ONCE;
        self.after = page.last().map(|device| device.device_id);
        Ok(Some(page))
    }
}
