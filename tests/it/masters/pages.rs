//! The status page, the API and the history of gateways behind a master.

use serde_json::{Value, json};

use super::{Campus, SOON_LOST};
use crate::harness::master::{Master, behind};
use crate::harness::{LOOK_EVERY, patiently};
use crate::http::ask;
use gsdk2mqtt::simulator::Fault;

impl Campus {
    /// The page, once it has this text.
    async fn page_with(&self, path: &str, text: &str) -> String {
        patiently(&format!("{text:?} is on {path}"), async {
            loop {
                let (head, page) = ask(&self.bridge, "GET", path).await;
                assert!(head.starts_with("http/1.0 200"), "{path}: {head}");
                if page.contains(text) {
                    return page;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await
    }

    async fn api(&self, path: &str) -> Value {
        let (head, body) = ask(&self.bridge, "GET", &format!("/api/v1/{path}")).await;
        assert!(head.starts_with("http/1.0 200"), "{path}: {head} {body}");
        serde_json::from_str(&body).unwrap()
    }
}

/// The first gateway is discovered, the second has a table.
async fn campus() -> Campus {
    let master = Master::start(&["Gateway-North", "gateway2"], 3).await;
    let lines = behind("south", "campus", "gateway2", SOON_LOST);
    let campus = Campus::with(master, "discover = true", &lines).await;
    campus.see_state("campus_gateway_north", "online").await;
    campus.see_state("south", "online").await;
    campus.bridge.is_ready().await;
    campus
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_page_has_each_gateway_and_its_devices() {
    let campus = campus().await;
    let (north, south) = (campus.master.devices[0][0], campus.master.devices[1][0]);
    let list = campus.page_with("/", "href=\"gateways/south\"").await;
    for link in [
        "gateways/campus_gateway_north".to_owned(),
        format!("devices/campus_gateway_north/{north}"),
        format!("devices/south/{south}"),
    ] {
        assert!(list.contains(&format!("href=\"{link}\"")), "{link}: {list}");
    }
    let page = campus.page_with("/gateways/campus_gateway_north", "3 of 3 connected").await;
    for text in ["<dd>campus</dd>", "<dd>Gateway-North</dd>", "gsdk/campus_gateway_north/info"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    campus.master.fault(&Fault::power(north, false));
    let device = format!("/devices/campus_gateway_north/{north}");
    campus.page_with(&device, "class=\"state down\"").await;
    campus.page_with("/gateways/campus_gateway_north", "2 of 3 connected").await;

    // One gateway is lost; what the page says of the other remains.
    campus.master.link("gateway2", false, false);
    let page = campus.page_with("/", "the state of its 3 devices is unknown").await;
    assert!(!page.contains("the state of its 6 devices"), "{page}");
    campus.page_with(&format!("/devices/south/{south}"), "class=\"state unknown\"").await;
    campus.page_with("/gateways/south", "3 devices, unknown").await;
    campus.page_with("/gateways/campus_gateway_north", "2 of 3 connected").await;
    campus.page_with(&device, "class=\"state down\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_and_the_history_have_each_gateway_by_itself() {
    let campus = campus().await;
    let (north, south) = (campus.master.devices[0][0], campus.master.devices[1][0]);
    for device in [north, south] {
        campus.master.fault(&Fault::power(device, false));
    }
    for (gateway, device) in [("campus_gateway_north", north), ("south", south)] {
        campus.see_event(&format!("{gateway}/{device}"), "disconnected").await;
        let recorded = patiently("the event is recorded and delivered", async {
            loop {
                let request = r#"{"event_types":["disconnected"]}"#;
                let answer = campus.ask(gateway, "history", request).await;
                let events = answer["data"]["events"].as_array().unwrap().clone();
                if events.first().is_some_and(|event| event["delivered"] == true) {
                    return events;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
        assert_eq!(recorded.len(), 1, "of {gateway} alone: {recorded:?}");
        assert_eq!(recorded[0]["device_id"], device);
        let read = campus.api(&format!("events?gateway={gateway}&event_type=disconnected")).await;
        assert_eq!(read["events"].as_array().unwrap().len(), 1, "{read}");
        assert_eq!(read["events"][0]["device_id"], device, "{read}");
    }
    let masters = campus.api("masters").await["masters"].clone();
    assert_eq!(masters[0]["master"], "campus");
    assert_eq!((&masters[0]["gateways"], &masters[0]["gateways_online"]), (&json!(2), &json!(2)));
    let gateway = campus.api("gateways/campus_gateway_north").await;
    assert_eq!(
        (&gateway["master"], &gateway["gateway_id"]),
        (&json!("campus"), &json!("Gateway-North")),
    );

    // The time in which one gateway is lost is not observed for its devices alone.
    let unobserved = async |gateway: &str| {
        let answer = campus.api(&format!("availability?gateway={gateway}")).await;
        let rows = answer["availability"].as_array().unwrap();
        assert_eq!(rows.len(), 3, "one a device: {answer}");
        rows[0]["unobserved_s"].as_f64().unwrap()
    };
    let (before, other_before) =
        (unobserved("south").await, unobserved("campus_gateway_north").await);
    campus.master.link("gateway2", false, false);
    campus.see_state("south", "offline").await;
    patiently("the lost time is recorded", async {
        while unobserved("south").await <= before + 1.0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    let other = unobserved("campus_gateway_north").await;
    assert!((other - other_before).abs() < 0.001, "{other_before} became {other}");
}
