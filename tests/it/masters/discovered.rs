//! Gateways that a master lists and the configuration does not name.

use super::{Campus, SOON_LOST};
use crate::harness::master::{Master, behind};
use crate::harness::watcher::retained;

fn end_streams() -> gsdk2mqtt::simulator::Fault {
    serde_json::from_value(serde_json::json!({ "do": "end_streams" })).unwrap()
}

/// The names of the gateways that have an info at the broker, with their IDs.
fn infos(campus: &Campus) -> Vec<(String, String)> {
    let info = |(topic, payload): (&String, &String)| {
        let name = topic.strip_prefix("gsdk/")?.strip_suffix("/info")?;
        let info: serde_json::Value = serde_json::from_str(payload).ok()?;
        Some((name.to_owned(), info["gateway_id"].as_str()?.to_owned()))
    };
    retained(campus.broker.port).iter().filter_map(info).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_every_kind_get_names_that_stay() {
    let long = "a-very-long-name-of-a-gateway";
    let ids = ["Gateway-North", "gateway north", "\u{c815}\u{bb38}", long, "named"];
    let master = Master::start(&ids, 2).await;
    let lines = behind("own_name", "campus", "named", SOON_LOST);
    let mut campus = Campus::with(master, "discover = true", &lines).await;
    let online = |info: &serde_json::Value| info["gateways_online"] == 5;
    campus.see_master("5 gateways online", online).await;
    campus.bridge.is_ready().await;
    let named = infos(&campus);
    let name_of = |named: &[(String, String)], id: &str| {
        named.iter().find(|(_, of)| of == id).map(|(name, _)| name.clone()).unwrap()
    };
    assert_eq!(named.len(), ids.len(), "{named:?}");
    assert_eq!(name_of(&named, "named"), "own_name", "and no second name");
    // Both become campus_gateway_north; the master lists this one first.
    assert_eq!(name_of(&named, "Gateway-North"), "campus_gateway_north");
    let colliding = name_of(&named, "gateway north");
    assert!(colliding.starts_with("campus_gateway_north_") && colliding.len() == 27, "{colliding}");
    let korean = name_of(&named, ids[2]);
    assert!(korean.starts_with("campus_") && korean.len() == 13, "{korean}");
    let long = name_of(&named, long);
    assert!(long.starts_with("campus_a_very_long_name_o_") && long.len() == 32, "{long}");
    // Another process finds the names in the store, also while the master is away.
    campus.bridge.terminate().await;
    campus.master.simulator.control().stop_listening();
    campus.watcher.clear();
    campus.bridge.restart();
    for (name, _) in &named {
        campus.see_state(name, "offline").await;
    }
    campus.master.simulator.control().start_listening();
    for (name, _) in &named {
        campus.see_state(name, "online").await;
    }
    assert_eq!(infos(&campus), named);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_added_at_the_master_appears_and_takes_requests() {
    let master = Master::start(&["a", "b"], 3).await;
    master.list("b", false);
    let campus = Campus::with(master, "", "").await;
    campus.see_state("campus_a", "online").await;
    campus.bridge.is_ready().await;
    assert!(!retained(campus.broker.port).contains_key("gsdk/campus_b/info"));
    campus.master.list("b", true);
    // The gateway's own status is how the master shows it.
    campus.master.link("b", false, false);
    campus.master.link("b", true, false);
    campus.see_state("campus_b", "online").await;
    let device = campus.master.devices[1][0];
    campus.see(&format!("gsdk/campus_b/{device}/state"), "its device", |_| true).await;
    let has_it =
        |info: &serde_json::Value| info["gateways"] == serde_json::json!(["campus_a", "campus_b"]);
    campus.see("gsdk/bridge/info", "its name", has_it).await;
    let answer = campus.ask("campus_b", "devices", "{}").await;
    assert_eq!(answer["data"]["devices"].as_array().unwrap().len(), 3, "{answer}");
    let up = "gsdk_gateway_up{gateway=\"campus_b\"}";
    assert_eq!(campus.bridge.metric(up).await, Some(1.0));
    // Taken away, it is removed, and its topics stay.
    campus.watcher.clear();
    campus.master.list("b", false);
    campus.master.fault(&end_streams());
    campus.see("gsdk/campus_b/info", "removed", |info| info["state"] == "removed").await;
    assert_eq!(retained(campus.broker.port)["gsdk/campus_b/state"], "offline");
    for path in ["/", "/gateways/campus_b"] {
        let (_, page) = crate::http::ask(&campus.bridge, "GET", path).await;
        assert!(page.contains("<span class=\"word\">removed</span>"), "{page}");
        assert!(!page.contains("lost"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_discovery_only_named_gateways_are_taken() {
    let master = Master::start(&["a", "b"], 3).await;
    let campus = Campus::with(master, "", &behind("only", "campus", "a", SOON_LOST)).await;
    campus.see_state("only", "online").await;
    campus.bridge.is_ready().await;
    let device = campus.master.devices[1][0];
    let asked = campus.master.calls("Get");
    campus.master.fault(&gsdk2mqtt::simulator::Fault::power(device, false));
    let own = campus.master.devices[0][0];
    campus.master.fault(&gsdk2mqtt::simulator::Fault::power(own, false));
    campus.see(&format!("gsdk/only/{own}/event/disconnected"), "the event", |_| true).await;
    assert_eq!(campus.master.calls("Get"), asked, "its gateway is known, and not ours");
    assert_eq!(infos(&campus).len(), 1);
}
