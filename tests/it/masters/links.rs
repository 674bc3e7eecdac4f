//! The link to a master and the links of its gateways: up, lost, back.

use std::time::Duration;

use gsdk2mqtt::simulator::Fault;
use serde_json::Value;

use super::{Campus, NAMED};
use crate::harness::eventually;
use crate::harness::master::{Master, behind};
use crate::harness::watcher::{Seen, check_chain, retained};

fn end_streams(code: &str) -> Fault {
    serde_json::from_value(serde_json::json!({ "do": "end_streams", "code": code })).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gateway_behind_a_master_is_a_gateway_of_its_own() {
    let campus = Campus::named(20).await;
    campus.bridge.is_ready().await;
    for (at, (name, id)) in NAMED.into_iter().enumerate() {
        let is_online = |info: &Value| info["state"] == "online" && info["connected"] == 20;
        let info = campus.see(&format!("gsdk/{name}/info"), "20 devices", is_online).await;
        assert_eq!((&info["master"], &info["gateway_id"]), (&"campus".into(), &id.into()));
        assert_eq!(info["package"], "gsdk.connect_master");
        for device in &campus.master.devices[at] {
            let state = campus.see(&format!("gsdk/{name}/{device}/state"), "it", |_| true).await;
            assert_eq!((&state["gateway"], &state["connected"]), (&name.into(), &true.into()));
        }
    }
    let is_whole = |info: &Value| info["gateways_online"] == 3;
    let info = campus.see_master("3 gateways", is_whole).await;
    assert_eq!((&info["state"], &info["gateways"]), (&"online".into(), &3.into()), "{info}");
    assert!(info["token_expires_at"].is_string() && info["certificate_expires_at"].is_string());
    campus.see_event("bridge", "master_reachable").await;
    // One login, one stream of each kind, one list for each gateway, whatever their number.
    for (method, count) in [("Login", 1), ("SubscribeStatus", 2), ("GetList", 1), ("Get", 1)] {
        assert_eq!(campus.master.calls(method), count, "{method}");
    }
    // A status that names no gateway reaches the gateway that has the device.
    let device = campus.master.devices[1][0];
    campus.master.fault(&Fault::power(device, false));
    let topic = format!("gsdk/south/{device}/event/disconnected");
    campus.see(&topic, "the event", |event| event["gateway"] == "south").await;
    let (status, body) = campus.bridge.get("/api/v1/masters").await;
    let listed: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &listed["masters"][0]["master"]), (200, &"campus".into()), "{body}");
    assert_eq!(listed["masters"][0]["gateways_online"], 3, "{body}");
    let metric = campus.bridge.metric("gsdk_master_up{master=\"campus\"}").await;
    assert_eq!(metric, Some(1.0));
    let rpcs = "gsdk_rpcs_total{code=\"ok\",master=\"campus\",method=\"Login\"}";
    assert_eq!(campus.bridge.metric(rpcs).await, Some(1.0));
    for name in [
        "gsdk_gateway_up{gateway=\"south\"}",
        "gsdk_gateway_info{gateway=\"south\",master=\"campus\"}",
    ] {
        assert_eq!(campus.bridge.metric(name).await, Some(1.0), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_gateway_is_lost_and_comes_back_while_the_others_stay() {
    let campus = Campus::named(5).await;
    campus.bridge.is_ready().await;
    campus.watcher.clear();
    campus.master.link("gateway2", false, false);
    campus.see_event("south", "unreachable").await;
    campus.see_state("south", "offline").await;
    let info = campus.see("gsdk/south/info", "lost", |info| info["state"] == "lost").await;
    assert_eq!(info["last_error"]["code"], "gateway_not_connected", "{info}");
    let device = campus.master.devices[1][0];
    let topic = format!("gsdk/south/{device}/state");
    campus.see(&topic, "unknown", |state| state["connected"].is_null()).await;
    campus.see_master("2 online", |info| info["gateways_online"] == 2).await;
    let answer = campus.ask("south", "devices", "{}").await;
    assert_eq!(answer["error"]["code"], "gateway_unavailable", "{answer}");
    assert_eq!(campus.ask("north", "devices", "{}").await["result"], "ok");
    campus.watcher.clear();
    campus.master.link("gateway2", true, false);
    campus.see_event("south", "reachable").await;
    campus.see(&topic, "connected", |state| state["connected"] == true).await;
    let others = ["gsdk/north/state", "gsdk/east/state", "gsdk/bridge/event/master_unreachable"];
    for topic in others {
        assert!(campus.watcher.find(|seen| seen.topic == topic).is_none(), "{topic}");
    }
    assert_eq!(campus.master.calls("Login"), 1, "the master's own link stayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_the_master_reports_as_disconnected_at_the_start_is_not_waited_for() {
    let master = Master::start(&["a", "b"], 2).await;
    master.link("b", false, false);
    let lines = ["a", "b"].map(|id| behind(id, "campus", id, "unknown_after = \"1h\""));
    let campus = Campus::with(master, "", &lines.concat()).await;
    campus.see_state("bridge", "online").await;
    campus.see_state("a", "online").await;
    campus.see_state("b", "offline").await;
    campus.bridge.is_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_restarts_is_lost_with_all_its_gateways_and_comes_back() {
    let campus = Campus::named(5).await;
    campus.bridge.is_ready().await;
    let device = campus.master.devices[0][0];
    campus.watcher.clear();
    let control = campus.master.simulator.control();
    control.stop_listening();
    campus.master.fault(&Fault::CutConnections);
    for (name, _) in NAMED {
        campus.see_state(name, "offline").await;
    }
    let event = campus.see_event("bridge", "master_unreachable").await;
    assert_eq!(event["master"], "campus");
    let info = campus.see_master("lost", |info| info["state"] == "lost").await;
    assert!(info["last_error"]["message"].as_str().unwrap().contains("master campus"), "{info}");
    assert_eq!(campus.bridge.metric("gsdk_master_up{master=\"campus\"}").await, Some(0.0));
    campus.master.fault(&Fault::power(device, false));
    campus.watcher.clear();
    control.start_listening();
    campus.see_event("bridge", "master_reachable").await;
    for (name, _) in NAMED {
        campus.see_event(name, "reachable").await;
    }
    let topic = format!("gsdk/north/{device}/state");
    campus.see(&topic, "disconnected", |state| state["connected"] == false).await;
    check_chain(&campus.watcher.events_of(device));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_without_gateways_is_published_as_lost_once_it_is() {
    let master = Master::start(&["a"], 1).await;
    master.list("a", false);
    let campus = Campus::with(master, "", "").await;
    campus.see_master("online", |info| info["state"] == "online").await;
    campus.bridge.is_ready().await;
    campus.watcher.clear();
    // The first attempt fails only after the master counts as lost: its dialing takes 10 s.
    campus.master.fault(&Fault::Freeze { on: true });
    campus.master.fault(&Fault::CutConnections);
    let broken = campus.see_master("its error", |info| !info["last_error"].is_null()).await;
    assert_eq!(broken["state"], "online", "{broken}");
    let lost = campus.see_master("lost", |info| info["state"] == "lost").await;
    assert_eq!(lost["last_error"], broken["last_error"], "no attempt has failed since");
    assert_ne!(lost["since"], broken["since"]);
    campus.see_event("bridge", "master_unreachable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_master_is_noticed() {
    let campus = Campus::named(2).await;
    campus.bridge.is_ready().await;
    for calls in [false, true] {
        campus.watcher.clear();
        if calls {
            // The bridge reads the lists every 5 s.
            let lists = || campus.master.calls("GetDeviceList");
            campus.master.fault(&Fault::LateAnswers { ms: 60_000 });
            let before = lists();
            eventually("a call that waits", || (lists() > before).then_some(())).await;
        }
        campus.master.fault(&Fault::Freeze { on: true });
        campus.see_event("bridge", "master_unreachable").await;
        let info = campus.see("gsdk/north/info", "lost", |info| info["state"] == "lost").await;
        assert_eq!(info["last_error"]["code"], "no_sign_of_life", "{info}");
        campus.watcher.clear();
        campus.master.fault(&Fault::LateAnswers { ms: 0 });
        campus.master.fault(&Fault::Freeze { on: false });
        campus.see_state("north", "online").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_in_the_middle_of_a_command_or_stream_is_renewed() {
    let campus = Campus::named(3).await;
    campus.bridge.is_ready().await;
    campus.watcher.clear();
    campus.master.fault(&Fault::ExpireTokens);
    let answer = campus.ask("north", "search", r#"{"wait_s":0.1}"#).await;
    assert_eq!(answer["result"], "ok", "{answer}");
    assert_eq!(campus.master.calls("Login"), 2, "one login, then the call again");
    // The master ends both streams with the token.
    campus.master.fault(&Fault::ExpireTokens);
    campus.master.fault(&end_streams("unauthenticated"));
    eventually("another login", || (campus.master.calls("Login") >= 3).then_some(())).await;
    let device = campus.master.devices[0][0];
    campus.master.fault(&Fault::power(device, false));
    let topic = format!("gsdk/north/{device}/event/disconnected");
    campus.see(&topic, "the event", |_| true).await;
    for event in ["north/event/unreachable", "bridge/event/master_unreachable"] {
        let topic = format!("gsdk/{event}");
        assert!(campus.watcher.find(|seen| seen.topic == topic).is_none(), "{topic}");
    }
    let streams = campus.master.simulator.control().subscriptions();
    assert_eq!(streams.len(), 1, "never two device streams at once: {streams:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_at_half_of_its_life() {
    let master = Master::start_with(&["a"], 1, |mut settings| {
        let master = settings.master.as_mut().unwrap();
        master.token_lifetime = Duration::from_secs(4);
        settings
    })
    .await;
    let campus = Campus::with(master, "", "").await;
    campus.see_state("campus_a", "online").await;
    eventually("three logins", || (campus.master.calls("Login") >= 3).then_some(())).await;
    let refused =
        "gsdk_rpcs_total{code=\"unauthenticated\",master=\"campus\",method=\"GetDeviceList\"}";
    assert_eq!(campus.bridge.metric(refused).await, None, "no call was refused");
    assert_eq!(campus.master.simulator.control().connections_count(), 1, "on one connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_lists_no_gateway_removes_none_at_once() {
    let campus = Campus::named(3).await;
    campus.bridge.is_ready().await;
    campus.watcher.clear();
    for (_, id) in NAMED {
        campus.master.list(id, false);
    }
    // The next status of a gateway makes the bridge compare at once.
    campus.master.fault(&end_streams("unavailable"));
    for (name, _) in NAMED {
        campus.see_state(name, "offline").await;
        let is_removed = |info: &Value| info["state"] == "removed";
        let info = campus.see(&format!("gsdk/{name}/info"), "removed", is_removed).await;
        assert_eq!(info["last_error"]["code"], "gateway_not_listed", "{info}");
    }
    let kept = retained(campus.broker.port);
    let device = campus.master.devices[0][0];
    assert!(kept.contains_key(&format!("gsdk/north/{device}/state")), "{kept:?}");
    campus.watcher.clear();
    for (_, id) in NAMED {
        campus.master.list(id, true);
    }
    campus.master.fault(&end_streams("unavailable"));
    for (name, _) in NAMED {
        campus.see_event(name, "reachable").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_clean_stop_the_infos_agree_with_offline() {
    let campus = Campus::named(1).await;
    campus.bridge.is_ready().await;
    let (status, log) = campus.bridge.stop().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let kept = retained(campus.broker.port);
    let info = |topic: &str| -> Value { serde_json::from_str(&kept[topic]).unwrap() };
    let master = info("gsdk/bridge/master/campus/info");
    assert_eq!((&master["state"], &master["gateways"]), (&"connecting".into(), &3.into()));
    assert_eq!((&master["gateways_online"], &master["last_error"]), (&0.into(), &Value::Null));
    for (name, _) in NAMED {
        assert_eq!(kept[&format!("gsdk/{name}/state")], "offline");
        let info = info(&format!("gsdk/{name}/info"));
        assert_eq!((&info["state"], &info["connected"]), (&"connecting".into(), &Value::Null));
    }
}

/// Aim: what two lists lack is not taken as removed while a later one has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_listed_again_before_it_counts_as_lost_is_never_removed() {
    let keys = "unknown_after = \"8s\"\naudit_interval = \"1h\"";
    let campus = Campus::named_with(2, keys).await;
    campus.bridge.is_ready().await;
    campus.watcher.clear();
    campus.master.list("gateway2", false);
    let compared = campus.master.calls("GetList");
    // The answer, not found, makes the bridge compare.
    campus.ask("south", "accept_filter/get", "{}").await;
    eventually("two lists", || (campus.master.calls("GetList") > compared + 1).then_some(())).await;
    let is_missed = |info: &Value| info["last_error"]["code"] == "gateway_not_listed";
    campus.see("gsdk/south/info", "an error", is_missed).await;
    campus.watcher.clear();
    campus.master.list("gateway2", true);
    let is_back = |info: &Value| info["state"] == "online" && info["last_error"].is_null();
    campus.see("gsdk/south/info", "back", is_back).await;
    let lost = |seen: &Seen| seen.topic == "gsdk/south/state" && seen.payload == "offline";
    assert!(campus.watcher.find(lost).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wrong_list_of_gateways_loses_none() {
    let keys = "unknown_after = \"8s\"\naudit_interval = \"5s\"";
    let campus = Campus::named_with(2, keys).await;
    campus.bridge.is_ready().await;
    campus.watcher.clear();
    campus.master.list("gateway2", false);
    // The next audit makes the bridge compare.
    let (compared, audits) = (campus.master.calls("GetList"), campus.master.calls("GetDeviceList"));
    eventually("a list", || (campus.master.calls("GetList") > compared).then_some(())).await;
    campus.master.list("gateway2", true);
    // It would be lost after 8 s.
    eventually("audits", || (campus.master.calls("GetDeviceList") > audits + 12).then_some(()))
        .await;
    campus.see("gsdk/south/info", "online", |info| info["state"] == "online").await;
    let lost = |seen: &Seen| seen.topic == "gsdk/south/state" && seen.payload == "offline";
    assert!(campus.watcher.find(lost).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_first_list_of_gateways_is_read_again() {
    let master = Master::start(&["a"], 1).await;
    master.list("a", false);
    let campus = Campus::with(master, "", &behind("a", "campus", "a", "")).await;
    eventually("the first list", || (campus.master.calls("GetList") > 0).then_some(())).await;
    campus.master.list("a", true);
    let online = campus.see_state("a", "online");
    tokio::time::timeout(Duration::from_secs(20), online).await.expect("a second list");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_device_that_is_refused_costs_one_lookup_a_minute() {
    let campus = Campus::named(3).await;
    campus.bridge.is_ready().await;
    let (asked, lists) = (campus.master.calls("Get"), campus.master.calls("GetDeviceList"));
    let knock: Fault = serde_json::from_value(serde_json::json!({
        "do": "tell", "devices": [4_000_000_000_u32], "status": "tcp_not_allowed",
    }))
    .unwrap();
    for _ in 0..200 {
        campus.master.simulator.control().apply_fault(&knock);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What came after it shows that its statuses were read.
    let device = campus.master.devices[0][0];
    campus.master.fault(&Fault::power(device, false));
    let topic = format!("gsdk/north/{device}/event/disconnected");
    campus.see(&topic, "the event", |_| true).await;
    assert!(campus.master.calls("Get") <= asked + 1, "{} to {asked}", campus.master.calls("Get"));
    // Three gateways are audited every 5 s.
    let listed = campus.master.calls("GetDeviceList") - lists;
    assert!(listed <= 9, "{listed} lists");
    assert!(campus.watcher.find(|seen| seen.topic.contains("4000000000")).is_none());
}
