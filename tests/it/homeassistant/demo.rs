//! `gsdk2mqtt demo` and a real Home Assistant that uses its broker. Not part of `make test`.

use std::process::{Command, Stdio};

use serde_json::json;

use super::hass::Hass;
use crate::harness::bridge::PROGRAM;
use crate::harness::mosquitto::free_port;

/// Discovery, states, events and a restart of Home Assistant, with both versions of MQTT.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Home Assistant: make test-homeassistant"]
async fn home_assistant_uses_the_broker_of_the_demo() {
    for protocol in ["3.1.1", "5"] {
        let port = free_port();
        let mut demo = Command::new(PROGRAM)
            .args(["demo", "--for", "10m", "--mqtt", &format!("127.0.0.1:{port}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut hass = Hass::start_with(port, "homeassistant", protocol);
        all_doors_are_there(&hass).await;
        hass.sees("a door that disconnects", |seen| {
            let entities = seen["entities"].as_object().unwrap();
            entities.values().any(|entity| entity["attributes"]["event_type"] == "disconnected")
        })
        .await;
        hass.restart();
        all_doors_are_there(&hass).await;
        assert_eq!(hass.complaints(), Vec::<String>::new(), "MQTT {protocol}");
        Command::new("kill").arg(demo.id().to_string()).status().unwrap();
        demo.wait().unwrap();
    }
}

/// Eight doors with names, most of them connected; one loses its connection at times.
async fn all_doors_are_there(hass: &Hass) {
    hass.sees("eight doors", |seen| {
        let connected = |id: u32| {
            let state = &seen["entities"][format!("gsdk_demo_{id}_connection")]["state"];
            *state == json!("on")
        };
        let front_door = &seen["devices"]["gsdk_demo_600000001"];
        (600_000_001..=600_000_008).filter(|id| connected(*id)).count() >= 6
            && front_door["name"] == "Front door"
    })
    .await;
}
