//! The pages of one gateway and of one device: their state, topics and last events.

use std::borrow::Cow;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::Markup;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::detail_view::{self, Frame};
use super::{App, unavailable};
use crate::fleet::GatewayIndex;
use crate::http::query::{BridgeStatus, EVENTS_MAX, EventRow, NoAnswer, Query};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::metrics::GatewayMeasures;
use crate::net;
use crate::payload::Subject;
use crate::store::history::{FILE_NAME, Filter, Order};
use crate::topics::Topics;

/// How long events are read.
const QUERY_DEADLINE: Duration = Duration::from_secs(2);
/// The most bytes of the events that are read.
const EVENTS_BYTES: usize = 256 << 10;

/// Why there is no page.
enum NoPage {
    NoAnswer(NoAnswer),
    /// There is no such gateway or device.
    Missing,
}

impl From<NoAnswer> for NoPage {
    fn from(error: NoAnswer) -> Self {
        Self::NoAnswer(error)
    }
}

pub(crate) async fn gateway(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    respond(render_gateway(&app, &name).await)
}

pub(crate) async fn device(
    State(app): State<Arc<App>>,
    Path((gateway, device_id)): Path<(String, String)>,
) -> Response {
    respond(render_device(&app, &gateway, &device_id).await)
}

fn respond(page: Result<Markup, NoPage>) -> Response {
    match page {
        Ok(page) => page.into_response(),
        Err(NoPage::NoAnswer(error)) => unavailable(&error),
        Err(NoPage::Missing) => {
            (StatusCode::NOT_FOUND, "this bridge has no such gateway or device\n").into_response()
        }
    }
}

async fn render_gateway(app: &App, name: &str) -> Result<Markup, NoPage> {
    let (_, gateway) = find(app, name).await?;
    let topics = topics(app).await?;
    let of = &gateway.entry.name;
    let all = topics.event(&Subject::Gateway(of.clone()), "+");
    let topics = [topics.gateway_state(of), topics.gateway_info(of), all];
    let events = recorded(app, of, None).await;
    let frame = frame(app, "../", of, None, &topics);
    Ok(detail_view::gateway(&frame, &gateway, &events))
}

async fn render_device(app: &App, name: &str, device_id: &str) -> Result<Markup, NoPage> {
    let device_id: DeviceId = device_id.parse().map_err(|_| NoPage::Missing)?;
    let (index, gateway) = find(app, name).await?;
    let range = (Bound::Included(device_id), Bound::Included(device_id));
    let query = |answer| Query::States(index, range, answer);
    let states = app.settings.event_loop.ask(query).await?;
    let state = states.first().ok_or(NoPage::Missing)?;
    let topics = topics(app).await?;
    let of = &gateway.entry.name;
    let all = topics.event(&Subject::Device(of.clone(), device_id), "+");
    let topics = [topics.device_state(of, device_id), all];
    let events = recorded(app, of, Some(device_id)).await;
    let frame = frame(app, "../../", of, Some(device_id), &topics);
    Ok(detail_view::device(&frame, &gateway, state, &events))
}

async fn find(app: &App, name: &str) -> Result<(GatewayIndex, GatewayMeasures), NoPage> {
    let name: GatewayName = name.parse().map_err(|_| NoPage::Missing)?;
    let query = |answer| Query::FindGateway(name, answer);
    app.settings.event_loop.ask(query).await?.ok_or(NoPage::Missing)
}

async fn topics(app: &App) -> Result<Topics, NoAnswer> {
    let BridgeStatus { info, .. } = app.settings.event_loop.ask(Query::Bridge).await?;
    Ok(Topics::new(info.base_topic, info.bridge))
}

fn frame<'a>(
    app: &'a App,
    root: &'static str,
    gateway: &GatewayName,
    device_id: Option<DeviceId>,
    topics: &'a [String],
) -> Frame<'a> {
    let now = net::wall_time();
    let local = now.timestamp().to_zoned_datetime(app.settings.zone.clone());
    let month = local.strftime("%Y-%m").to_string();
    let mut events = form_urlencoded::Serializer::new(format!("{root}api/v1/events?"));
    events.append_pair("gateway", gateway.as_str());
    if let Some(device_id) = device_id {
        events.append_pair("device_id", &device_id.to_string());
    }
    for (name, value) in [("from", &*month), ("to", &month), ("limit", "10000"), ("format", "csv")]
    {
        events.append_pair(name, value);
    }
    Frame { bridge: &app.settings.bridge, root, now, topics, csv: events.finish() }
}

/// The last events of a gateway or device, the newest first, or why they cannot be read.
async fn recorded(
    app: &App,
    gateway: &GatewayName,
    device_id: Option<DeviceId>,
) -> Result<Vec<EventRow>, String> {
    let filter = Filter {
        gateways: vec![gateway.clone()],
        device_ids: device_id.into_iter().collect(),
        event_types: Vec::new(),
        after_id: None,
        before_id: None,
        from: None,
        to: None,
        order: Order::NewestFirst,
        limit: EVENTS_MAX,
        max_bytes: EVENTS_BYTES,
        deadline: QUERY_DEADLINE,
    };
    match app.api.history().query(filter).await {
        Ok(page) => Ok(page.events.iter().filter_map(|event| row(event)).collect()),
        Err(error) => Err(format!("{FILE_NAME} cannot be read now: {}", error.with_cause())),
    }
}

/// What the page shows of a recorded event.
#[derive(Deserialize)]
struct Recorded {
    event_type: String,
    received_at: String,
    gateway: String,
    name: Option<String>,
    status: Option<String>,
    previous: Option<String>,
    duration_s: Option<f64>,
    what: Option<String>,
    count: Option<u64>,
}

fn row(event: &RawValue) -> Option<EventRow> {
    let event: Recorded = serde_json::from_str(event.get()).ok()?;
    let at: Timestamp = event.received_at.parse().ok()?;
    let parts = [
        event.previous.map(|previous| format!("{previous} →")),
        event.status,
        event.count.map(|count| format!("{count} of")),
        event.what,
    ];
    let detail = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
    #[expect(clippy::cast_possible_truncation, reason = "of a duration, and it saturates")]
    let duration_ms = event.duration_s.map(|seconds| (seconds * 1000.0) as i64);
    Some(EventRow {
        at: Moment::from_millis(at.as_millisecond()),
        gateway: event.gateway,
        device: event.name,
        event_type: Cow::Owned(event.event_type),
        detail,
        duration_ms,
    })
}
