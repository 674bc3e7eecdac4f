//! The bridge, its masters and its gateways.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use super::super::App;
use super::super::query::{BridgeStatus, NoAnswer};
use super::answer::{ApiRequest, Rows};
use super::problem::Problem;
use crate::metrics::{GatewayMeasures, MasterMeasures};
use crate::payload::{BridgeInfo, Degraded, GatewayInfo, MasterInfo};
use crate::store::history::Totals;

const GATEWAY_COLUMNS: &str = "\
    bridge gateway address state since devices connected package last_error.code \
    last_error.message clock_skew_s certificate_expires_at accept_filter.allow_all \
    accept_filter.device_count master gateway_id";
const MASTER_COLUMNS: &str = "\
    bridge master address state since last_error.code last_error.message gateways gateways_online \
    certificate_expires_at token_expires_at clock_skew_s";

/// The bridge's info and health.
#[derive(Serialize)]
struct BridgeAnswer {
    #[serde(flatten)]
    info: BridgeInfo,
    ready: bool,
    degraded: Vec<Degraded>,
    mqtt_connected: bool,
    time_zone: String,
    history: Totals,
}

pub(crate) async fn bridge(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<Response, Problem> {
    let mut params = request.params();
    params.word("format", &[("json", ())])?;
    params.finish()?;
    let BridgeStatus { info, health, mqtt_connected, history, .. } =
        app.settings.event_loop.bridge().await?;
    Ok(request.object(&BridgeAnswer {
        info,
        ready: health.ready,
        degraded: health.degraded,
        mqtt_connected,
        time_zone: app.settings.zone.iana_name().unwrap_or("UTC").to_owned(),
        history,
    }))
}

pub(crate) async fn masters(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<Response, Problem> {
    let format = request.format()?;
    let bridge = bridge_info(&app).await?;
    let mut rows = Rows::new("masters", format, MASTER_COLUMNS);
    for master in app.settings.event_loop.masters().await? {
        let MasterMeasures { name, facts, gateways, gateways_online } = &master;
        rows.push(&MasterInfo::new(&bridge, name, facts, *gateways, *gateways_online));
    }
    Ok(request.list(rows, &json!({}), None))
}

pub(crate) async fn gateways(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<Response, Problem> {
    let format = request.format()?;
    let bridge = bridge_info(&app).await?;
    let mut rows = Rows::new("gateways", format, GATEWAY_COLUMNS);
    for gateway in app.settings.event_loop.gateways().await? {
        if !rows.push(&info(&bridge, &gateway)) {
            break;
        }
    }
    Ok(request.list(rows, &json!({}), None))
}

pub(crate) async fn gateway(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: ApiRequest,
) -> Result<Response, Problem> {
    let format = request.format()?;
    let Path(name) = path.map_err(|error| Problem::invalid("gateway", error.body_text()))?;
    let bridge = bridge_info(&app).await?;
    let gateway = app.settings.event_loop.gateway(&name).await?;
    let gateway = gateway.ok_or_else(|| Problem::no_gateway(&name))?;
    let rows = Rows::new("gateways", format, GATEWAY_COLUMNS);
    Ok(request.row(rows, &info(&bridge, &gateway)))
}

pub(crate) async fn bridge_info(app: &App) -> Result<BridgeInfo, NoAnswer> {
    Ok(app.settings.event_loop.bridge().await?.info)
}

fn info<'a>(bridge: &'a BridgeInfo, gateway: &'a GatewayMeasures) -> GatewayInfo<'a> {
    GatewayInfo::new(bridge, &gateway.entry, &gateway.state, &gateway.facts)
}
