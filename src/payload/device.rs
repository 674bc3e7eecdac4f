//! A device's state and its events as JSON (docs/topics.md).

use std::borrow::Cow;
use std::net::Ipv4Addr;

use serde::{Serialize, Serializer};

use super::{BridgeInfo, GatewayEntry, seconds};
use crate::fleet::{DeviceEvent, DeviceState, DeviceType, Mode, Source, Status};
use crate::ids::{DeviceId, Moment};

/// `<base>/<gw>/<id>/state`, retained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceStatePayload<'a> {
    bridge: &'a str,
    gateway: &'a str,
    device_id: DeviceId,
    name: Cow<'a, str>,
    connected: Option<bool>,
    #[serde(serialize_with = "status")]
    status: Option<Status>,
    status_code: Option<i32>,
    since: Option<Moment>,
    since_exact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_known: Option<LastKnownPayload>,
    chain: &'a str,
    seq: u64,
    #[serde(rename = "type")]
    device_type: Option<DeviceType>,
    ip: Option<Ipv4Addr>,
    port: Option<i32>,
    mode: Option<Mode>,
    ssl: Option<bool>,
    auto_reconnect: Option<bool>,
    managed: bool,
    expected: bool,
    kept: Option<&'static str>,
    model: Option<&'a str>,
    firmware: Option<&'a str>,
    mac: Option<&'a str>,
    area: Option<&'a str>,
    updated_at: Moment,
}

/// What was known of a device before its gateway was lost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastKnownPayload {
    connected: bool,
    status: Status,
    since: Moment,
}

impl<'a> DeviceStatePayload<'a> {
    /// The state as it is now.
    pub fn new(bridge: &'a BridgeInfo, gateway: &'a GatewayEntry, state: &'a DeviceState) -> Self {
        let (info, details) = (state.info, state.details.as_deref());
        let device_id = state.device_id;
        Self {
            bridge: &bridge.bridge,
            gateway: gateway.name.as_str(),
            device_id,
            name: gateway.device_name(device_id, info.map(|info| info.device_type)),
            connected: state.connected,
            status: state.status,
            status_code: state.status.map(Status::code),
            since: state.since,
            since_exact: state.since_exact,
            last_known: state.last_known.map(|last| LastKnownPayload {
                connected: last.connected,
                status: last.status,
                since: last.since,
            }),
            chain: &bridge.chain,
            seq: state.seq,
            device_type: info.map(|info| info.device_type),
            ip: info.and_then(|info| info.ip),
            port: info.map(|info| info.port),
            mode: info.map(|info| info.mode),
            ssl: info.map(|info| info.ssl),
            auto_reconnect: info.map(|info| info.auto_reconnect),
            managed: state.managed,
            expected: state.expected,
            kept: gateway.kept(state),
            model: details.and_then(|details| details.model.as_deref()),
            firmware: details.and_then(|details| details.firmware.as_deref()),
            mac: details.and_then(|details| details.mac.as_deref()),
            area: gateway.area(device_id),
            updated_at: state.updated_at,
        }
    }
}

/// `<base>/<gw>/<id>/event/<type>`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceEventPayload<'a> {
    event_type: &'static str,
    event_id: String,
    chain: &'a str,
    seq: u64,
    bridge: &'a str,
    gateway: &'a str,
    device_id: DeviceId,
    name: Cow<'a, str>,
    #[serde(rename = "type")]
    device_type: Option<DeviceType>,
    connected: Option<bool>,
    status: Status,
    status_code: i32,
    previous: Option<Status>,
    timestamp: Moment,
    received_at: Moment,
    #[serde(serialize_with = "seconds::optional::serialize")]
    duration_s: Option<i64>,
    source: Source,
}

impl<'a> DeviceEventPayload<'a> {
    /// The event; its ID is never used again and is the same on redelivery.
    pub fn new(bridge: &'a BridgeInfo, gateway: &'a GatewayEntry, event: &DeviceEvent) -> Self {
        let DeviceEvent { device_id, seq, status, .. } = *event;
        let (chain, name) = (&bridge.chain, &gateway.name);
        Self {
            event_type: event.event_type.name(),
            event_id: [chain, name.as_str(), &device_id.to_string(), &seq.to_string()].join("-"),
            chain,
            seq,
            bridge: &bridge.bridge,
            gateway: name.as_str(),
            device_id,
            name: gateway.device_name(device_id, event.device_type),
            device_type: event.device_type,
            connected: status.connected(),
            status,
            status_code: status.code(),
            previous: event.previous,
            timestamp: event.timestamp,
            received_at: event.received_at,
            duration_s: event.duration_ms,
            source: event.source,
        }
    }
}

/// A status, or `unknown`.
fn status<S: Serializer>(value: &Option<Status>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(status) => status.serialize(serializer),
        None => serializer.serialize_str("unknown"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::fleet::*;
    use crate::payload::{DeviceEntry, to_bytes};

    fn bridge() -> BridgeInfo {
        BridgeInfo {
            bridge: "bridge".to_owned(),
            instance_id: "i1".to_owned(),
            chain: "k7f3".to_owned(),
            ..BridgeInfo::default()
        }
    }

    fn gateway() -> GatewayEntry {
        let device_id = DeviceId::new(544_114_231).unwrap();
        let entry = DeviceEntry { name: Some("Front door".to_owned()), kept: true, area: None };
        GatewayEntry {
            name: "lobby".parse().unwrap(),
            address: "192.168.0.2:4000".to_owned(),
            master: None,
            area: Some("Lobby".to_owned()),
            devices: Arc::new([(device_id, entry)].into()),
        }
    }

    fn state() -> DeviceState {
        DeviceState {
            device_id: DeviceId::new(544_114_231).unwrap(),
            connected: Some(true),
            status: Some(Status::TlsConnected),
            since: Some(Moment::from_millis(1_795_428_000_000)),
            since_exact: true,
            last_known: None,
            seq: 17,
            info: Some(DeviceInfo {
                device_type: DeviceType::from_code(0x0D),
                ip: Some(Ipv4Addr::new(192, 168, 0, 104)),
                port: 51211,
                mode: Mode::ServerToDevice,
                ssl: true,
                auto_reconnect: true,
            }),
            details: Some(Arc::new(DeviceDetails {
                model: Some("BioEntry W2".to_owned()),
                firmware: Some("1.8.0".to_owned()),
                mac: Some("00:17:fc:00:00:01".to_owned()),
            })),
            managed: true,
            expected: true,
            kept: false,
            updated_at: Moment::from_millis(1_795_428_000_113),
        }
    }

    fn as_json(payload: &impl Serialize) -> serde_json::Value {
        serde_json::from_slice(&to_bytes(payload)).unwrap()
    }

    #[test]
    fn a_state_is_the_contracts_example() {
        let (bridge, gateway, state) = (bridge(), gateway(), state());
        let payload = DeviceStatePayload::new(&bridge, &gateway, &state);
        let expected = json!({
            "bridge": "bridge", "gateway": "lobby", "device_id": 544_114_231, "name": "Front door",
            "connected": true, "status": "tls_connected", "status_code": 2,
            "since": "2026-11-23T10:00:00.000Z", "since_exact": true, "chain": "k7f3", "seq": 17,
            "type": "bioentry_w2", "ip": "192.168.0.104", "port": 51211,
            "mode": "server_to_device", "ssl": true, "auto_reconnect": true, "managed": true,
            "expected": true, "kept": "config", "model": "BioEntry W2", "firmware": "1.8.0",
            "mac": "00:17:fc:00:00:01", "area": "Lobby", "updated_at": "2026-11-23T10:00:00.113Z"
        });
        assert_eq!(as_json(&payload), expected);
    }

    #[test]
    fn unknown_values_are_null_and_the_last_known_are_kept() {
        let last_known = Some(Known {
            connected: true,
            status: Status::TlsConnected,
            since: Moment::from_millis(1_795_428_000_000),
            exact: true,
        });
        let unknown = DeviceState {
            connected: None,
            status: None,
            since: None,
            since_exact: false,
            last_known,
            ..state()
        };
        let json = as_json(&DeviceStatePayload::new(&bridge(), &gateway(), &unknown));
        assert_eq!(json["connected"], json!(null));
        assert_eq!((&json["status"], &json["status_code"]), (&json!("unknown"), &json!(null)));
        let since = "2026-11-23T10:00:00.000Z";
        let last = json!({"connected": true, "status": "tls_connected", "since": since});
        assert_eq!(json["last_known"], last);
        assert_eq!(json["seq"], json!(17));
    }

    #[test]
    fn an_event_is_the_contracts_example() {
        let event = DeviceEvent {
            gateway: GatewayIndex(0),
            device_id: DeviceId::new(544_114_231).unwrap(),
            device_type: Some(DeviceType::from_code(0x0D)),
            event_type: EventType::Disconnected,
            seq: 18,
            status: Status::Disconnected,
            previous: Some(Status::TlsConnected),
            timestamp: Moment::from_millis(1_795_431_600_000),
            received_at: Moment::from_millis(1_795_431_600_120),
            observed_until: Moment::from_millis(1_795_431_600_120),
            duration_ms: Some(3_600_000),
            source: Source::Stream,
            read_at: None,
        };
        let (bridge, gateway) = (bridge(), gateway());
        let payload = DeviceEventPayload::new(&bridge, &gateway, &event);
        let expected = json!({
            "event_type": "disconnected", "event_id": "k7f3-lobby-544114231-18", "chain": "k7f3",
            "seq": 18, "bridge": "bridge", "gateway": "lobby", "device_id": 544_114_231,
            "name": "Front door", "type": "bioentry_w2", "connected": false,
            "status": "disconnected", "status_code": 0, "previous": "tls_connected",
            "timestamp": "2026-11-23T11:00:00.000Z", "received_at": "2026-11-23T11:00:00.120Z",
            "duration_s": 3600, "source": "stream"
        });
        assert_eq!(as_json(&payload), expected);
    }

    #[test]
    fn a_name_is_never_missing() {
        let entry = gateway();
        let id = DeviceId::new(9).unwrap();
        assert_eq!(entry.device_name(id, Some(DeviceType::from_code(0x0D))), "BioEntry W2 9");
        assert_eq!(entry.device_name(id, None), "Device 9");
    }
}
