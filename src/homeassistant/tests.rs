//! Tests of discovery: whole payloads, and what a topic or payload describes.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::fleet::{DeviceInfo, GatewayIndex, Mode, Status};
use crate::ids::Moment;
use crate::payload::{BridgeInfo, DeviceEntry};

const ALL: Controls =
    Controls { republish: true, disconnect: true, disconnect_all: true, allow_all: true };

fn id() -> DeviceId {
    DeviceId::new(544_114_231).unwrap()
}

fn directory(name: Option<&str>) -> Directory {
    let entry = DeviceEntry {
        name: name.map(str::to_owned),
        area: Some("Lobby".to_owned()),
        ..DeviceEntry::default()
    };
    let gateway = GatewayEntry {
        name: "lobby".parse().unwrap(),
        address: "192.168.0.2:4000".to_owned(),
        master: None,
        area: None,
        devices: Arc::new([(id(), entry)].into()),
    };
    Directory {
        info: BridgeInfo { bridge: "bridge".to_owned(), ..BridgeInfo::default() },
        gateways: [(GatewayIndex(0), gateway)].into(),
        ..Directory::default()
    }
}

fn state(listed: bool) -> DeviceState {
    let info = DeviceInfo {
        device_type: DeviceType::from_code(0x0D),
        ip: None,
        port: 51211,
        mode: Mode::ServerToDevice,
        ssl: true,
        auto_reconnect: true,
    };
    DeviceState {
        device_id: id(),
        connected: Some(true),
        status: Some(Status::TlsConnected),
        since: None,
        since_exact: true,
        last_known: None,
        seq: 17,
        info: listed.then_some(info),
        details: listed.then(|| {
            Arc::new(DeviceDetails {
                model: Some("BEW2-OAP".to_owned()),
                firmware: Some("1.8.0".to_owned()),
                mac: None,
            })
        }),
        managed: listed,
        expected: listed,
        kept: false,
        updated_at: Moment::from_millis(0),
    }
}

fn discovery(controls: Controls) -> Discovery {
    let topics = Topics::new("gsdk", "bridge");
    let options = Options { controls, firmware: true, ..Options::default() };
    Discovery::new(topics, "homeassistant".to_owned(), "1.2.3", options)
}

/// What is published of the bridge, the gateway and the device.
fn payloads(directory: &Directory, controls: Controls) -> [Value; 3] {
    let discovery = discovery(controls);
    let entry = &directory.gateways[&GatewayIndex(0)];
    let payloads = [
        discovery.bridge(directory),
        discovery.gateway(directory, entry),
        discovery.device(entry, &state(true)),
    ];
    payloads.map(|(_, payload)| payload)
}

#[test]
fn the_discovery_of_a_device_is_complete() {
    let [_, _, device] = payloads(&directory(Some("Front door")), Controls::default());
    let statuses = [
        "disconnected",
        "tcp_connected",
        "tls_connected",
        "try_to_connect",
        "tcp_cannot_connect",
        "tcp_not_allowed",
        "tls_cannot_connect",
        "tls_not_allowed",
    ];
    let listed = format!("['{}']", statuses.join("', '"));
    let expected = json!({
        "device": {
            "identifiers": ["gsdk_lobby_544114231"], "name": "Front door",
            "manufacturer": "Suprema", "model": "BEW2-OAP", "serial_number": "544114231",
            "sw_version": "1.8.0", "suggested_area": "Lobby", "via_device": "gsdk_lobby_gateway"
        },
        "origin": {
            "name": "gsdk2mqtt", "sw_version": "1.2.3",
            "support_url": "https://github.com/gsdk2mqtt/gsdk2mqtt"
        },
        "availability": [{"topic": "gsdk/bridge/state"}, {"topic": "gsdk/lobby/state"}],
        "availability_mode": "all",
        "components": {
            "connection": {
                "platform": "binary_sensor", "unique_id": "gsdk_lobby_544114231_connection",
                "name": "Connection", "state_topic": "gsdk/lobby/544114231/state",
                "value_template":
                    "{{ value_json.connected if value_json is defined else none }}",
                "payload_on": "True", "payload_off": "False", "device_class": "connectivity"
            },
            "event": {
                "platform": "event", "unique_id": "gsdk_lobby_544114231_event",
                "name": "Connection event", "state_topic": "gsdk/lobby/544114231/event/+",
                "event_types": ["connected", "disconnected", "refused"], "qos": 1,
                "value_template": concat!(
                    "{{ value if value_json.event_type in ['connected', 'disconnected', ",
                    "'refused'] and as_timestamp(now()) - ",
                    "as_timestamp(value_json.received_at, 0) < 300 }}"
                ),
                "icon": "mdi:connection"
            },
            "status": {
                "platform": "sensor", "unique_id": "gsdk_lobby_544114231_status",
                "name": "Status", "state_topic": "gsdk/lobby/544114231/state",
                "value_template": format!(
                    "{{{{ value_json.status if value_json is defined and value_json.status in \
                     {listed} else none }}}}"
                ),
                "device_class": "enum", "entity_category": "diagnostic", "icon": "mdi:lan",
                "options": statuses
            },
            "firmware": {
                "platform": "sensor", "unique_id": "gsdk_lobby_544114231_firmware",
                "name": "Firmware", "state_topic": "gsdk/lobby/544114231/state",
                "value_template": "{{ value_json.firmware if value_json is defined else none }}",
                "entity_category": "diagnostic", "enabled_by_default": false, "icon": "mdi:chip"
            },
            "since": {
                "platform": "sensor", "unique_id": "gsdk_lobby_544114231_since", "name": "Since",
                "state_topic": "gsdk/lobby/544114231/state",
                "value_template": "{{ value_json.since if value_json is defined else none }}",
                "device_class": "timestamp", "entity_category": "diagnostic",
                "enabled_by_default": false, "icon": "mdi:timer-outline"
            },
            "disconnect": {"platform": "button"}
        }
    });
    assert_eq!(device, expected);
}

#[test]
fn devices_are_connected_via_the_gateway_and_the_gateway_via_the_bridge() {
    let [bridge, gateway, device] = payloads(&directory(None), Controls::default());
    assert_eq!(bridge["device"]["identifiers"], json!(["gsdk_bridge"]));
    assert_eq!(bridge["device"].get("via_device"), None);
    assert_eq!(gateway["device"]["identifiers"], json!(["gsdk_lobby_gateway"]));
    assert_eq!(gateway["device"]["via_device"], "gsdk_bridge");
    assert_eq!(device["device"]["via_device"], "gsdk_lobby_gateway");
    // The bridge's connection has no availability: otherwise it could not show that it is lost.
    assert_eq!(bridge.get("availability"), None);
    assert_eq!(bridge["components"]["connection"].get("availability"), None);
    assert_eq!(gateway["availability"], json!([{"topic": "gsdk/bridge/state"}]));
    let online = json!([{"topic": "gsdk/bridge/state"}, {"topic": "gsdk/lobby/state"}]);
    assert_eq!(gateway["components"]["connected_devices"]["availability"], online);
}

/// What Home Assistant's schema demands of every message, and what it would refuse.
#[test]
fn every_component_has_its_platform_and_a_unique_id_or_nothing_else() {
    for controls in [Controls::default(), ALL] {
        let mut unique = std::collections::BTreeSet::new();
        for payload in payloads(&directory(None), controls) {
            for root in payload.as_object().unwrap().keys() {
                let known = ["device", "origin", "components", "availability", "availability_mode"];
                assert!(known.contains(&root.as_str()), "{root} is refused at the root");
            }
            for (key, component) in payload["components"].as_object().unwrap() {
                assert!(component["platform"].is_string(), "{key}");
                assert_eq!(component.get("object_id"), None, "gone since 2026.4");
                let alone = component.as_object().unwrap().len() == 1;
                assert_eq!(alone, controls == Controls::default() && is_control(key), "{key}");
                if !alone {
                    let id = component["unique_id"].as_str().unwrap().to_owned();
                    assert!(unique.insert(id), "{key}");
                }
            }
        }
    }
}

fn is_control(key: &str) -> bool {
    ["republish", "disconnect", "disconnect_all", "allow_all"].contains(&key)
}

#[test]
fn controls_send_requests_that_the_commands_accept() {
    let [bridge, gateway, device] = payloads(&directory(None), ALL);
    let components = |payload: &Value, key: &str| payload["components"][key].clone();
    let press = components(&device, "disconnect");
    assert_eq!(press["command_topic"], "gsdk/lobby/request/disconnect");
    let request: Value = serde_json::from_str(press["payload_press"].as_str().unwrap()).unwrap();
    let expected = json!({"device_id": 544_114_231, "requested_by": "Home Assistant"});
    assert_eq!(request, expected);
    let switch = components(&gateway, "allow_all");
    assert_eq!(switch["command_topic"], "gsdk/lobby/request/accept_filter/allow_all");
    let request: Value = serde_json::from_str(switch["payload_off"].as_str().unwrap()).unwrap();
    assert_eq!(request["enabled"], false);
    let again = components(&bridge, "republish");
    assert_eq!(again["command_topic"], "gsdk/bridge/request/republish");
}

#[test]
fn names_are_not_changed() {
    let long = "x".repeat(200);
    for name in ["T\u{fc}r \"A\" 'B'", "\u{1f6aa}", "{{ 1 }}", "back\\slash", &long] {
        let [_, _, device] = payloads(&directory(Some(name)), Controls::default());
        assert_eq!(device["device"]["name"], name);
        assert_eq!(device["device"]["identifiers"], json!(["gsdk_lobby_544114231"]));
    }
}

#[test]
fn a_device_never_listed_has_a_name_and_no_model() {
    let directory = directory(None);
    let discovery = discovery(Controls::default());
    let (_, payload) = discovery.device(&directory.gateways[&GatewayIndex(0)], &state(false));
    assert_eq!(payload["device"]["name"], "Device 544114231");
    assert_eq!(payload["device"].get("model"), None);
    assert_ne!(Shape::of(&state(false)), Shape::of(&state(true)), "it is published again");
}

#[test]
fn a_payload_names_the_bridge_that_published_it() {
    const TOPIC: &str = "homeassistant/device/gsdk_bridge/config";
    let all = payloads(&directory(None), ALL);
    let discovery = discovery(ALL);
    let is_ours = |payload: &Value, bridge: &str| {
        let mut directory = directory(None);
        directory.info.bridge = bridge.to_owned();
        let topics = Topics::new("gsdk", bridge);
        let discovery = Discovery { topics, ..discovery.clone() };
        discovery.is_ours(&directory, TOPIC, payload.to_string().as_bytes())
    };
    for payload in &all {
        assert!(is_ours(payload, "bridge"), "{payload}");
        assert!(!is_ours(payload, "bridge_2"), "another bridge's: {payload}");
        let mut other = payload.clone();
        other["origin"]["name"] = json!("zigbee2mqtt");
        assert!(!is_ours(&other, "bridge"));
    }
    for payload in ["", "{\"origin\":7}"] {
        assert!(!discovery.is_ours(&directory(None), TOPIC, payload.as_bytes()));
    }
    let bridge = all[0].to_string();
    assert!(!discovery.is_ours(&directory(None), "elsewhere/gsdk_bridge", bridge.as_bytes()));
}

#[test]
fn a_topic_leads_back_to_its_subject() {
    let mut directory = directory(None);
    // A gateway whose ID would be a device's, were it not for its last word.
    let twin = GatewayEntry {
        name: "lobby_7".parse().unwrap(),
        ..directory.gateways[&GatewayIndex(0)].clone()
    };
    directory.gateways.insert(GatewayIndex(1), twin);
    let topics = Topics::new("site/gsdk", "bridge");
    let discovery = Discovery::new(topics, "ha".to_owned(), "1", Options::default());
    let seven = DeviceId::new(7).unwrap();
    let mut subjects = vec![(discovery.bridge_id("bridge"), Described::Bridge)];
    for (&index, entry) in &directory.gateways {
        subjects.push((discovery.gateway_id(&entry.name), Described::Gateway(index)));
        let device = discovery.device_id(&entry.name, seven);
        subjects.push((device, Described::Device(index, seven)));
    }
    assert_eq!(subjects[2].0, "site_gsdk_lobby_7");
    for (id, subject) in subjects {
        let topic = format!("ha/device/{id}/config");
        assert_eq!(discovery.subject(&directory, &topic), Some(subject), "{id}");
    }
    for none in ["site_gsdk", "site_gsdk_attic_7", "site_gsdk_lobby_07", "gsdk_lobby_7", "x"] {
        let topic = format!("ha/device/{none}/config");
        assert_eq!(discovery.subject(&directory, &topic), None, "{none}");
    }
    assert_eq!(discovery.subject(&directory, "ha/site_gsdk_bridge"), None);
    let lobby = "lobby".parse().unwrap();
    for (id, is_of) in [("lobby_7", true), ("lobby_gateway", true), ("bridge", false)] {
        let topic = format!("ha/device/site_gsdk_{id}/config");
        assert_eq!(discovery.is_of(&lobby, &topic), is_of, "{id}");
    }
}
