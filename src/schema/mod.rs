//! `schema`: the topics with their payloads as AsyncAPI 3, and the configuration as JSON Schema.
//!
//! May not touch anything running. `tests/schema` holds both against what a bridge really says and
//! takes.

mod config;

pub use config::config_schema;

const ASYNC_API: &str = include_str!("asyncapi.json");

/// The AsyncAPI document, its channels below this base topic and bridge name.
#[must_use]
pub fn async_api(base_topic: &str, bridge_name: &str) -> String {
    // Neither can hold what JSON would have to escape but quotes and backslashes of a base topic.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let inside = |text: &str| quoted(text).trim_matches('"').to_owned();
    ASYNC_API
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@BASE@", &inside(base_topic))
        .replace("@BRIDGE@", &inside(bridge_name))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn channels_are_the_topics() {
        let document: Value = serde_json::from_str(&async_api("site/gsdk", "bridge_2")).unwrap();
        let address = |channel: &str| document["channels"][channel]["address"].as_str().unwrap();
        assert_eq!(address("bridgeState"), "site/gsdk/bridge_2/state");
        assert_eq!(address("deviceEvent"), "site/gsdk/{gateway}/{device_id}/event/{event_type}");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        assert!(!document.to_string().contains('@'), "{document}");
    }

    #[test]
    fn every_key_has_its_meaning_and_default() {
        let schema = config_schema();
        let url = &schema["properties"]["mqtt"]["properties"]["url"];
        assert_eq!(url["default"], "mqtt://localhost:1883");
        assert!(url["description"].as_str().unwrap().contains("mqtts://"), "{url}");
        let gateway = &schema["properties"]["gateways"]["additionalProperties"]["properties"];
        assert_eq!(gateway["queue_size"]["type"], "integer");
        let device = &gateway["devices"]["additionalProperties"]["properties"];
        assert_eq!(device["connect"]["enum"], serde_json::json!(["observe", "async", "accept"]));
        let mut keys = 0;
        count(&schema, &mut keys);
        assert_eq!(keys, crate::config::keys::KEYS.len());
    }

    /// Counts the leaves that have a description.
    fn count(schema: &Value, keys: &mut usize) {
        let Some(properties) = schema["properties"].as_object() else {
            assert!(schema["description"].as_str().is_some_and(|it| !it.is_empty()), "{schema}");
            *keys += 1;
            return;
        };
        let inside =
            |of: &Value| of.get("additionalProperties").filter(|it| it.is_object()).cloned();
        for property in properties.values() {
            count(&inside(property).unwrap_or_else(|| property.clone()), keys);
        }
    }
}
