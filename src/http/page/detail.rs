//! The pages of one gateway and of one device: their state, topics and last events.

use std::sync::Arc;

use axum::extract::{Path, Query as Parameters, State};
use axum::http::StatusCode;
use maud::Markup;
use serde::Deserialize;

use super::availability::AvailabilitySection;
use super::bars::{self, PageRange};
use super::detail_view::{self, DetailPageContent};
use super::{App, history};
use crate::availability::{AvailabilityRequest, BucketSize};
use crate::http::query::NoAnswer;
use crate::ids::{DeviceId, GatewayName};
use crate::net;
use crate::payload::Subject;
use crate::topics::Topics;

/// The answer where there is no such gateway or device.
fn missing() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "this bridge has no such gateway or device\n")
}

/// The parameters of the page's address.
#[derive(Debug, Deserialize)]
pub(crate) struct DetailQuery {
    /// The period of its availability.
    range: Option<PageRange>,
}

pub(crate) async fn gateway(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Parameters(DetailQuery { range }): Parameters<DetailQuery>,
) -> axum::response::Result<Markup> {
    let gateway = app.settings.event_loop.gateway(&name).await?.ok_or_else(missing)?;
    let topics = topics(&app).await?;
    let of = &gateway.entry.name;
    let all = topics.event(&Subject::Gateway(of.clone()), "+");
    let topics = vec![topics.gateway_state(of), topics.gateway_info(of), all];
    let content = content(&app, "../", of, None, topics, range).await;
    Ok(detail_view::gateway(&content, &gateway))
}

pub(crate) async fn device(
    State(app): State<Arc<App>>,
    Path((name, device_id)): Path<(String, String)>,
    Parameters(DetailQuery { range }): Parameters<DetailQuery>,
) -> axum::response::Result<Markup> {
    let device_id: DeviceId = device_id.parse().map_err(|_| missing())?;
    let event_loop = &app.settings.event_loop;
    let gateway = event_loop.gateway(&name).await?.ok_or_else(missing)?;
    let state = event_loop.device(gateway.index, device_id).await?.ok_or_else(missing)?;
    let topics = topics(&app).await?;
    let of = &gateway.entry.name;
    let all = topics.event(&Subject::Device(of.clone(), device_id), "+");
    let topics = vec![topics.device_state(of, device_id), all];
    let content = content(&app, "../../", of, Some(device_id), topics, range).await;
    Ok(detail_view::device(&content, &gateway, &state))
}

async fn topics(app: &App) -> Result<Topics, NoAnswer> {
    let info = app.settings.event_loop.bridge().await?.info;
    Ok(Topics::new(info.base_topic, info.bridge))
}

/// The address of this month as CSV.
fn this_month(
    app: &App,
    address: &str,
    gateway: &GatewayName,
    device_id: Option<DeviceId>,
    more: &[(&str, &str)],
) -> String {
    let now = net::wall_time().timestamp().to_zoned_datetime(app.settings.zone.clone());
    let month = now.strftime("%Y-%m").to_string();
    let mut address = form_urlencoded::Serializer::new(address.to_owned());
    address.append_pair("gateway", gateway.as_str());
    if let Some(device_id) = device_id {
        address.append_pair("device_id", &device_id.to_string());
    }
    address.extend_pairs([("from", &*month), ("to", &month), ("limit", "10000")]);
    address.extend_pairs(more).append_pair("format", "csv").finish()
}

/// The page of a gateway or device, with what the history has of it.
async fn content<'a>(
    app: &'a App,
    root: &'static str,
    gateway: &GatewayName,
    device_id: Option<DeviceId>,
    topics: Vec<String>,
    range: Option<PageRange>,
) -> DetailPageContent<'a> {
    let range = range.unwrap_or(PageRange::Days30);
    let query = AvailabilityRequest {
        of_gateways: device_id.is_none(),
        gateways: [gateway.clone()].into(),
        device_ids: device_id.into_iter().collect(),
        ..bars::query(&app.settings.zone, range)
    };
    // Not the sum of the cells: an outage across midnight is one outage here.
    let total = AvailabilityRequest { bucket: BucketSize::Total, ..query.clone() };
    let availability = async {
        let cells = history::availability(&app.page.history, query).await;
        (cells, history::availability(&app.page.history, total).await)
    };
    let (events, (cells, total)) = tokio::join!(
        history::last_events(&app.page.history, vec![gateway.clone()], device_id),
        availability,
    );
    let of = if device_id.is_some() { "devices" } else { "gateways" };
    let month = |list: &str, more: &[(&str, &str)]| {
        let address = format!("{root}api/v1/{list}?");
        this_month(app, &address, gateway, device_id, more)
    };
    DetailPageContent {
        bridge: &app.settings.bridge,
        zone: &app.settings.zone,
        root,
        now: net::wall_time(),
        topics,
        availability: AvailabilitySection {
            range,
            cells,
            total: total.ok().and_then(|rows| rows.first().map(|row| row.figures)),
            month_csv: month("availability", &[("of", of), ("bucket", "day")]),
        },
        events,
        events_csv: month("events", &[]),
    }
}
