//! The control API: faults and state as HTTP and JSON. It has no password, so it listens on
//! loopback only, and refuses requests that a web page could send: those with an `Origin`, or for
//! another host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use strum::VariantNames;
use tokio::net::TcpListener;

use super::control::Control;
use super::fault::Fault;
use super::site::{SiteDevice, kind_name};
use crate::proto::connect::DeviceInfo;

/// Serves the API. Never returns.
pub(crate) async fn serve(control: Control, listener: TcpListener) {
    let routes = Router::new()
        .route("/", get(help))
        .route("/state", get(state))
        .route("/devices", get(devices))
        .route("/fault", post(fault))
        .route("/schema", get(schema))
        .layer(middleware::from_fn(guard))
        .with_state(control);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::warn!(%error, "control API ended");
    }
}

fn is_local_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return true;
    };
    let Ok(host) = host.parse::<Authority>() else { return false };
    let bare = host.host().trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn guard(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) || !is_local_host(headers) {
        return refuse(StatusCode::FORBIDDEN, "requests of web pages are refused");
    }
    next.run(request).await
}

fn refuse(code: StatusCode, message: impl Into<String>) -> Response {
    (code, Json(json!({ "error": message.into() }))).into_response()
}

async fn help() -> Json<Value> {
    Json(json!({
        "GET /state": "counts, subscriptions with what was discarded, calls by method",
        "GET /devices": "every device of the site, with its entry in the managed list",
        "GET /schema": "the JSON Schema of a fault",
        "POST /fault": "apply a fault: {\"do\": \"power_off\", \"devices\": [540092578]}",
        "faults": Fault::VARIANTS,
    }))
}

async fn schema() -> Json<Value> {
    Json(schemars::schema_for!(Fault).into())
}

async fn state(State(control): State<Control>) -> Json<Value> {
    let managed = control.managed();
    let connected = managed.iter().filter(|one| matches!(one.status, 1 | 2)).count();
    let filter = control.filter();
    Json(json!({
        "devices": control.devices().len(),
        "managed": managed.len(),
        "connected": connected,
        "pending": control.pending().len(),
        "accept_filter": { "allow_all": filter.allow_all, "device_ids": filter.device_i_ds },
        "connections": control.connections_count(),
        "subscriptions": control.subscriptions(),
        "calls": control.calls(),
    }))
}

async fn devices(State(control): State<Control>) -> Json<Value> {
    let mut site = control.devices();
    let managed = control.managed();
    // A managed device that does not exist is shown, too.
    let known: BTreeSet<u32> = site.iter().map(|device| device.id).collect();
    let absent = managed.iter().filter(|info| !known.contains(&info.device_id));
    let mut shown: Vec<Value> = absent.map(|info| described(None, Some(info))).collect();
    let by_id: BTreeMap<u32, &DeviceInfo> =
        managed.iter().map(|info| (info.device_id, info)).collect();
    site.sort_unstable_by_key(|device| device.id);
    let present = site.iter().map(|one| described(Some(one), by_id.get(&one.id).copied()));
    shown.extend(present);
    Json(shown.into())
}

fn described(device: Option<&SiteDevice>, info: Option<&DeviceInfo>) -> Value {
    let physical = device.map(|device| {
        json!({
            "type": kind_name(device.kind), "ip": device.ip, "port": device.port,
            "mode": device.mode, "ssl": device.ssl, "dhcp": device.dhcp,
            "powered": device.powered,
        })
    });
    let managed = info.map(|info| {
        json!({
            "status_code": info.status, "auto_reconnect": info.auto_reconnect,
            "ip": String::from_utf8_lossy(&info.ip_addr), "port": info.port, "ssl": info.use_ssl,
        })
    });
    let id = device.map(|device| device.id).or(info.map(|info| info.device_id));
    json!({ "device_id": id, "device": physical, "managed": managed })
}

async fn fault(State(control): State<Control>, body: Bytes) -> Response {
    let fault: Fault = match serde_json::from_slice(&body) {
        Ok(fault) => fault,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error.to_string()),
    };
    match control.run_fault(&fault).await {
        Ok(outcome) => Json(outcome).into_response(),
        Err(error) => refuse(StatusCode::CONFLICT, error.to_string()),
    }
}
