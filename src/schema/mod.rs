//! The topics with their payloads as AsyncAPI 3. `tests/schema` compares it with what a bridge
//! publishes.

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
}
