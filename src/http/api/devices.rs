//! The states of devices, filtered here and not in the event loop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;
use tokio::time::Instant;

use super::super::App;
use super::super::query::{DeviceChunk, DeviceChunks, NoAnswer};
use super::answer::{ApiRequest, Rows};
use super::bridge::bridge_info;
use super::params::Params;
use super::problem::{Problem, quoted};
use crate::fleet::{DeviceState, GatewayIndex};
use crate::ids::{DeviceId, GatewayName};
use crate::payload::{BridgeInfo, DeviceStatePayload, GatewayEntry};
use crate::store::history::RowKey;

/// The default of the most devices of an answer.
const LIMIT_DEFAULT: usize = 1_000;
/// How long devices are read. The rest of the answer's time is for what waits before.
const SCAN_DEADLINE: Duration = Duration::from_millis(3_500);

const COLUMNS: &str = "\
    bridge gateway device_id name connected status status_code since since_exact \
    last_known.connected last_known.status last_known.since chain seq type ip port mode ssl \
    auto_reconnect managed expected kept model firmware mac area updated_at";

/// What the parameter `connected` may be.
const CONNECTED: [(&str, Option<bool>); 3] =
    [("true", Some(true)), ("false", Some(false)), ("unknown", None)];

/// What a request selects. An empty list selects all.
struct DeviceFilter {
    gateways: Vec<GatewayName>,
    device_ids: BTreeSet<DeviceId>,
    /// In lower case.
    text: String,
    connected: Vec<Option<bool>>,
    expected: Vec<bool>,
}

impl DeviceFilter {
    fn read(params: &mut Params) -> Result<Self, Problem> {
        Ok(Self {
            gateways: params.gateways()?,
            device_ids: params.device_ids()?,
            text: params.one("q")?.unwrap_or_default().trim().to_lowercase(),
            connected: params.words("connected", &CONNECTED)?,
            expected: params.words("expected", &[("true", true), ("false", false)])?,
        })
    }

    fn selects_gateway(&self, name: &GatewayName) -> bool {
        self.gateways.is_empty() || self.gateways.contains(name)
    }

    fn selects(&self, gateway: &GatewayEntry, state: &DeviceState) -> bool {
        (self.device_ids.is_empty() || self.device_ids.contains(&state.device_id))
            && (self.connected.is_empty() || self.connected.contains(&state.connected))
            && (self.expected.is_empty() || self.expected.contains(&state.expected))
            && (self.text.is_empty() || searchable(gateway, state).contains(&self.text))
    }
}

/// The text of a device in which searches look: name, ID, gateway, type, address and details, in
/// lower case.
pub(crate) fn searchable(gateway: &GatewayEntry, state: &DeviceState) -> String {
    let DeviceState { device_id, info, details, .. } = state;
    let device_type = info.map(|info| info.device_type);
    let name = gateway.device_name(*device_id, device_type);
    let mut text = format!("{name}\n{device_id}\n{}", gateway.name);
    if let Some(known) = device_type {
        text += &format!("\n{known} {}", known.product_name());
    }
    if let Some(ip) = info.and_then(|info| info.ip) {
        text += &format!("\n{ip}");
    }
    let details =
        details.as_deref().map(|details| [&details.model, &details.firmware, &details.mac]);
    for detail in details.into_iter().flatten().flatten() {
        text += &format!("\n{detail}");
    }
    text.to_lowercase()
}

/// The last device of the page before.
fn last_row(text: &str) -> Result<(GatewayName, DeviceId), Problem> {
    let row = RowKey::parse(text).and_then(|row| Some((row.gateway, row.device_id?)));
    row.ok_or_else(|| {
        let quoted = quoted(text);
        let detail =
            format!("after: {quoted:?} is no place in the list; use the next of the page before");
        Problem::invalid("after", detail)
    })
}

pub(crate) async fn devices(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<Response, Problem> {
    let mut params = request.params();
    let filter = DeviceFilter::read(&mut params)?;
    let limit = params.limit(LIMIT_DEFAULT)?;
    let after = params.one("after")?.map(|text| last_row(&text)).transpose()?;
    let format = params.format(&request.headers)?;
    params.finish()?;
    let _permit = app.api.scans.acquire().await;
    let event_loop = &app.settings.event_loop;
    let (bridge, mut gateways) = (bridge_info(&app).await?, event_loop.gateways().await?);
    let index_of = |name: &GatewayName| {
        let found = gateways.iter().find(|gateway| gateway.entry.name == *name);
        found.map(|gateway| gateway.index).ok_or_else(|| Problem::no_gateway(name.as_str()))
    };
    filter.gateways.iter().try_for_each(|name| index_of(name).map(drop))?;
    let after = after.map(|(name, id)| index_of(&name).map(|at| (at, id))).transpose()?;
    gateways.retain(|gateway| filter.selects_gateway(&gateway.entry.name));
    let mut scan = DevicePage {
        bridge: &bridge,
        filter: &filter,
        after,
        limit,
        rows: Rows::new("devices", format, COLUMNS),
        total: 0,
        last: None,
        more: false,
    };
    let is_complete = scan.run(event_loop.devices(&gateways)).await?;
    let DevicePage { rows, total, last, more, .. } = scan;
    let more = more || !is_complete;
    let next = last.filter(|_| more);
    // Without a total the time was not enough to count.
    let rest = json!({ "total": is_complete.then_some(total), "more": more, "next": next });
    Ok(request.list(rows, &rest, next.map(|next| ("after", next))))
}

/// One page of the devices that a filter selects, and how many there are.
struct DevicePage<'a> {
    bridge: &'a BridgeInfo,
    filter: &'a DeviceFilter,
    /// The place after which the page begins.
    after: Option<(GatewayIndex, DeviceId)>,
    limit: usize,
    rows: Rows,
    total: usize,
    /// The place of the last row.
    last: Option<String>,
    /// Devices follow that did not fit.
    more: bool,
}

impl DevicePage<'_> {
    /// Reads all devices; returns whether the time was enough.
    async fn run(&mut self, mut chunks: DeviceChunks<'_>) -> Result<bool, NoAnswer> {
        let until = Instant::now() + SCAN_DEADLINE;
        while let Some(DeviceChunk { index, gateway, devices }) = chunks.next().await? {
            if Instant::now() > until && self.rows.count() > 0 {
                return Ok(false);
            }
            devices.iter().for_each(|device| self.add(index, gateway, &device.state));
        }
        Ok(true)
    }

    fn add(&mut self, index: GatewayIndex, gateway: &GatewayEntry, state: &DeviceState) {
        if !self.filter.selects(gateway, state) {
            return;
        }
        self.total += 1;
        let is_before = self.after.is_some_and(|after| (index, state.device_id) <= after);
        if is_before || self.more {
            return;
        }
        let payload = DeviceStatePayload::new(self.bridge, gateway, state);
        if self.rows.count() < self.limit && self.rows.push(&payload) {
            self.last = Some(format!("{}/{}", gateway.name, state.device_id));
        } else {
            self.more = true;
        }
    }
}

pub(crate) async fn device(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: ApiRequest,
) -> Result<Response, Problem> {
    let format = request.format()?;
    let Path((name, id)) =
        path.map_err(|error| Problem::invalid("device_id", error.body_text()))?;
    let bridge = bridge_info(&app).await?;
    let event_loop = &app.settings.event_loop;
    let gateway = event_loop.gateway(&name).await?;
    let gateway = gateway.ok_or_else(|| Problem::no_gateway(&name))?;
    let unknown = || {
        let id = quoted(&id);
        let detail = format!(
            "gateway {name} has no device {id:?}; /api/v1/devices?gateway={name} lists those \
             it has"
        );
        Problem::not_found("device_id", detail)
    };
    let id: DeviceId = id.parse().map_err(|_| unknown())?;
    let state = event_loop.device(gateway.index, id).await?.ok_or_else(unknown)?;
    let payload = DeviceStatePayload::new(&bridge, &gateway.entry, &state);
    Ok(request.row(Rows::new("devices", format, COLUMNS), &payload))
}
