//! The topics with their payloads as AsyncAPI 3, and the API as OpenAPI 3.1. `tests/schema`
//! compares them with what a bridge publishes and answers.

use serde_json::{Map, Value};

const ASYNC_API: &str = include_str!("asyncapi.json");
const OPEN_API: &str = include_str!("openapi.json");
/// The schemas of payloads that the API has too.
const SHARED: [&str; 9] = [
    "DeviceState",
    "LastKnown",
    "DeviceEvent",
    "GatewayInfo",
    "MasterInfo",
    "GatewayEvent",
    "BridgeInfo",
    "BridgeEvent",
    "Step",
];

/// The AsyncAPI document, its channels below the default base topic and bridge name.
pub fn async_api() -> String {
    ASYNC_API.replace("@VERSION@", env!("CARGO_PKG_VERSION"))
}

/// The OpenAPI document: its paths, with the payloads' schemas of the AsyncAPI document.
pub fn open_api() -> String {
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (mut document, mut shared) = (read(OPEN_API), read(ASYNC_API));
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    let schemas = &mut document["components"]["schemas"];
    for name in SHARED {
        schemas[name] = shared["components"]["schemas"][name].take();
    }
    extend(schemas, "DeviceEvent", "RecordedDeviceEvent");
    extend(schemas, "GatewayEvent", "RecordedGatewayEvent");
    extend(schemas, "BridgeEvent", "RecordedBridgeEvent");
    extend(schemas, "BridgeInfo", "Bridge");
    format!("{document:#}\n")
}

/// Adds to a schema of an object what another one has beside it.
fn extend(schemas: &mut Value, from: &str, to: &str) {
    let from = schemas[from].clone();
    let empty = Map::new();
    if let Some(properties) = schemas[to]["properties"].as_object_mut() {
        for (name, property) in from["properties"].as_object().unwrap_or(&empty) {
            properties.entry(name).or_insert_with(|| property.clone());
        }
    }
    let required = from["required"].as_array().cloned().unwrap_or_default();
    if let Some(all) = schemas[to]["required"].as_array_mut() {
        all.extend(required);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Status;

    #[test]
    fn channels_are_the_topics() {
        let document: Value = serde_json::from_str(&async_api()).unwrap();
        let address = |channel: &str| document["channels"][channel]["address"].as_str().unwrap();
        assert_eq!(address("bridgeState"), "gsdk/bridge/state");
        assert_eq!(address("deviceEvent"), "gsdk/{gateway}/{device_id}/event/{event_type}");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        assert!(!document.to_string().contains('@'), "{document}");
    }

    #[test]
    fn every_status_is_described_wherever_a_payload_has_one() {
        let described: Vec<&str> =
            ASYNC_API.lines().filter(|line| line.contains("tcp_connected, ")).collect();
        assert_eq!(described.len(), 4, "{described:?}");
        for (line, status) in described.iter().flat_map(|line| Status::KNOWN.map(|it| (line, it))) {
            assert!(line.contains(&format!("{status}, ")), "{status}: {line}");
        }
    }

    #[test]
    fn the_api_has_every_schema_that_it_refers_to() {
        let document: Value = serde_json::from_str(&open_api()).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let text = document.to_string();
        let refs = text.split("\"$ref\":\"#").skip(1);
        let refs: Vec<&str> = refs.map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(refs.len() > 10, "{refs:?}");
        for path in refs {
            assert!(document.pointer(path).is_some_and(Value::is_object), "{path}");
        }
    }
}
