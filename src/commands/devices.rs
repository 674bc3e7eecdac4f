//! The response to `devices`: the gateway's list, read at that moment, in the format of the
//! retained states; for `ctl`, which knows no state, with details read from the devices.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use tonic::Code;

use crate::fleet::{DeviceDetails, DeviceState, Listed};
use crate::gsdk::GatewayClient;
use crate::ids::{DeviceId, Moment};
use crate::payload::{BridgeInfo, DeviceStatePayload, GatewayEntry};

/// How long details are read; devices that have not answered by then are shown without.
const DETAILS_DEADLINE: Duration = Duration::from_secs(3);

/// The rows of a list as states; `known` is the core's state of a device. Where they differ, the
/// list is newer.
pub fn device_states(
    bridge: &BridgeInfo,
    gateway: &GatewayEntry,
    rows: &[Listed],
    now: Moment,
    known: impl Fn(DeviceId) -> Option<DeviceState>,
) -> Value {
    let state = |row: &Listed| {
        let state = read_now(row, now, known(row.device_id));
        serde_json::to_value(DeviceStatePayload::new(bridge, gateway, &state)).unwrap_or_default()
    };
    rows.iter().map(state).collect()
}

/// The rows of a list without a core: only the data of the gateway and its devices.
pub fn device_rows(
    gateway: &GatewayEntry,
    rows: &[Listed],
    details: &BTreeMap<DeviceId, DeviceDetails>,
) -> Value {
    let row = |Listed { device_id, status, info }: &Listed| {
        let details = details.get(device_id);
        json!({
            "device_id": device_id,
            "name": gateway.device_name(*device_id, Some(info.device_type)),
            "connected": status.connected(),
            "status": status,
            "status_code": status.code(),
            "type": info.device_type,
            "ip": info.ip,
            "port": info.port,
            "mode": info.mode,
            "ssl": info.ssl,
            "auto_reconnect": info.auto_reconnect,
            "model": details.and_then(|details| details.model.as_deref()),
            "firmware": details.and_then(|details| details.firmware.as_deref()),
            "mac": details.and_then(|details| details.mac.as_deref()),
            "area": gateway.area(*device_id),
        })
    };
    rows.iter().map(row).collect()
}

/// Reads model, firmware and MAC address of the connected devices, one after the other, for a short
/// time.
pub async fn read_details(
    client: &GatewayClient,
    rows: &[Listed],
    deadline: Option<Instant>,
) -> BTreeMap<DeviceId, DeviceDetails> {
    let mut details = BTreeMap::new();
    let until = Instant::now() + DETAILS_DEADLINE;
    let until = deadline.map_or(until, |deadline| deadline.min(until));
    let ask = async {
        let connected = rows.iter().filter(|row| row.status.connected() == Some(true));
        for row in connected {
            match client.device_details(row.device_id).await {
                Ok(answer) => _ = details.insert(row.device_id, answer),
                Err(error) if error.grpc_code() == Some(Code::Unimplemented) => return,
                Err(_) => {}
            }
        }
    };
    // What is known by then is shown.
    _ = timeout_at(until, ask).await;
    details
}

fn read_now(row: &Listed, now: Moment, known: Option<DeviceState>) -> DeviceState {
    let connected = row.status.connected();
    let known_info = known.as_ref().and_then(|known| known.info);
    let (info, status) = (Some(row.info.or_type_of(known_info)), Some(row.status));
    match known {
        Some(known) if known.connected == connected => {
            DeviceState { status, info, managed: true, expected: true, ..known }
        }
        known => DeviceState {
            kept: known.as_ref().is_some_and(|known| known.kept),
            seq: known.as_ref().map_or(0, |known| known.seq),
            details: known.and_then(|known| known.details),
            device_id: row.device_id,
            connected,
            status,
            since: connected.map(|_| now),
            since_exact: false,
            last_known: None,
            info,
            managed: true,
            expected: true,
            updated_at: now,
        },
    }
}
