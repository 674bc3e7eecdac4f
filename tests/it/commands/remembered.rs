//! Items made by commands: added again at the gateway, dropped when another client removes them,
//! kept across restarts of the bridge. Changes with steps that a stop of the bridge interrupts.

use std::time::Duration;

use serde_json::{Value, json};

use gsdk2mqtt::simulator::{Fault, Simulator, SimulatorSettings};

use super::{ALL, Stack};
use crate::harness::bridge::another_client;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Seen, Watcher, retained};
use crate::harness::{eventually, patiently};

/// A stack whose gateway has no managed devices and is listed every second.
pub(super) async fn new_stack() -> (Stack, Watcher) {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator =
        Simulator::start(SimulatorSettings { managed: false, ..SimulatorSettings::fast(10) })
            .await
            .unwrap();
    let stack = Stack::with(broker, simulator, ALL, "audit_interval = \"1s\"").await;
    (stack, watcher)
}

pub(super) fn is(seen: &Seen, event: &str, what: &str) -> bool {
    seen.topic == format!("gsdk/lobby/event/{event}") && seen.json()["what"] == what
}

pub(super) async fn kept(stack: &Stack, device: u32, by: &Value) {
    let topic = format!("gsdk/lobby/{device}/state");
    eventually("the state says why it is kept", || {
        let kept = retained(stack.broker.port);
        let state: Value = serde_json::from_str(kept.get(&topic)?).unwrap();
        (state["kept"] == *by).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn items_made_by_commands_are_added_again_also_by_the_next_process() {
    let (mut stack, watcher) = new_stack().await;
    let control = stack.simulator.control();
    let building = control.devices();
    let (dialled, dialling) = (&building[0], &building[3]);
    let add = json!({"devices": [{"device_id": dialled.id, "ip": dialled.ip}]});
    let answer = stack.ask("async/add", &add.to_string()).await;
    assert_eq!((&answer["result"], &answer["warnings"]), (&json!("ok"), &json!([])), "{answer}");
    let ids = json!({"device_id": dialling.id}).to_string();
    assert_eq!(stack.ask("accept_filter/add", &ids).await["result"], "ok");
    let slaves = json!({"slaves": [{"device_id": dialled.id, "rs485": [7]}]});
    assert_eq!(stack.ask("slaves/set", &slaves.to_string()).await["result"], "ok");
    let all_there = || {
        let managed = control.managed();
        let up = |id: u32| managed.iter().any(|row| row.device_id == id && row.status > 0);
        (up(dialled.id) && up(dialling.id)).then_some(())
    };
    eventually("both are connected", all_there).await;
    kept(&stack, dialled.id, &json!("command")).await;
    kept(&stack, dialling.id, &json!("command")).await;

    control.restart(Duration::from_millis(100)).await;
    eventually("both are connected again", all_there).await;
    for what in ["async_connections", "accept_filter", "slaves"] {
        let restored = watcher.see(what, |seen| is(seen, "restored", what)).await.json();
        assert_eq!(restored["count"], 1, "{restored}");
    }
    let answer = stack.ask("slaves/get", "{}").await;
    assert_eq!(answer["data"]["slaves"][0]["rs485"], json!([7]), "{answer}");

    stack.bridge.kill();
    control.restart(Duration::from_millis(100)).await;
    assert!(control.managed().is_empty(), "a gateway forgets");
    stack.bridge.restart();
    eventually("the next process gives it too", all_there).await;

    // An item that a command removes is not added any more.
    stack.is_listening().await;
    assert_eq!(stack.ask("accept_filter/remove", &ids).await["result"], "ok");
    let ids = json!({"device_id": dialled.id}).to_string();
    assert_eq!(stack.ask("async/remove", &ids).await["result"], "ok");
    kept(&stack, dialled.id, &Value::Null).await;
    let starts = stack.bridge.metric("gsdk_gateway_stream_starts_total{gateway=\"lobby\"}").await;
    watcher.clear();
    control.restart(Duration::from_millis(100)).await;
    patiently("the link is back", async {
        let series = "gsdk_gateway_stream_starts_total{gateway=\"lobby\"}";
        while stack.bridge.metric(series).await == starts {}
    })
    .await;
    stack.bridge.is_ready().await;
    // Two audits later nothing was added.
    let lists =
        |control: &gsdk2mqtt::simulator::Control| control.calls().get("GetDeviceList").copied();
    let before = lists(&control).unwrap();
    eventually("two audits", || (lists(&control).unwrap() > before + 1).then_some(())).await;
    assert!(control.managed().is_empty(), "{:?}", control.managed());
    assert!(watcher.find(|seen| is(seen, "restored", "async_connections")).is_none());
}

/// Aim: what a command removes while the items of a new link wait to be added is not added after
/// it. Method: at a slow gateway the command still runs when the first list arrives.
#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_a_command_removes_while_it_waits_to_be_added_is_not_added() {
    let (stack, _watcher) = new_stack().await;
    let control = stack.simulator.control();
    let opened = stack.ask("accept_filter/allow_all", r#"{"enabled":true}"#).await;
    assert_eq!(opened["result"], "ok", "{opened}");
    control.apply_fault(&Fault::latency(Duration::from_millis(300)));
    control.restart(Duration::from_millis(100)).await;
    // It takes three calls, the list one.
    patiently("the filter is closed", async {
        let closed = r#"{"device_ids":[7]}"#;
        while stack.ask("accept_filter/set", closed).await["result"] != "ok" {}
    })
    .await;
    control.apply_fault(&Fault::latency(Duration::ZERO));
    // It runs after everything that waits already.
    let last = stack.ask("accept_filter/add", r#"{"device_id":8}"#).await;
    assert_eq!(last["result"], "ok", "{last}");
    let filter = control.filter();
    assert_eq!((filter.allow_all, filter.device_i_ds), (false, vec![7, 8]));
}

#[tokio::test(flavor = "multi_thread")]
async fn items_that_another_client_removes_are_reported_and_forgotten() {
    let (stack, watcher) = new_stack().await;
    let control = stack.simulator.control();
    let (dialled, dialling) = (control.devices()[0].clone(), control.devices()[3].clone());
    let add = json!({"devices": [{"device_id": dialled.id, "ip": dialled.ip}]});
    assert_eq!(stack.ask("async/add", &add.to_string()).await["result"], "ok");
    let ids = json!({"device_id": dialling.id}).to_string();
    assert_eq!(stack.ask("accept_filter/add", &ids).await["result"], "ok");
    kept(&stack, dialled.id, &json!("command")).await;
    // Present at the gateway on this link: only then its absence counts as removed.
    let info = |seen: &Seen| {
        seen.topic == "gsdk/lobby/info" && seen.json()["accept_filter"]["device_count"] == 1
    };
    watcher.see("the filter was read", info).await;

    another_client(&stack.simulator, &["async", "remove", &dialled.id.to_string()]);
    another_client(&stack.simulator, &["accept-filter", "remove", &dialling.id.to_string()]);
    for (what, device) in [("async_connections", dialled.id), ("accept_filter", dialling.id)] {
        let gone = watcher.see(what, |seen| is(seen, "withdrawn", what)).await.json();
        assert_eq!((&gone["count"], &gone["device_ids"]), (&json!(1), &json!([device])), "{gone}");
    }
    kept(&stack, dialled.id, &Value::Null).await;
    assert!(control.managed().iter().all(|row| row.device_id != dialled.id));
}

/// Aim: what a list lacks once is kept, such as the list of a gateway that stops. Method: the link
/// ends when one list has lacked an item.
#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_one_list_lacks_is_kept_and_added_at_the_next_link() {
    let (stack, watcher) = new_stack().await;
    let device = stack.simulator.control().devices()[0].clone();
    let add = json!({"devices": [{"device_id": device.id, "ip": device.ip}]});
    assert_eq!(stack.ask("async/add", &add.to_string()).await["result"], "ok");
    let is_state = |seen: &Seen, managed: bool| {
        seen.topic == format!("gsdk/lobby/{}/state", device.id)
            && seen.json()["managed"] == managed
            && seen.json()["kept"] == "command"
    };
    watcher.see("it was listed", |seen| is_state(seen, true)).await;
    watcher.clear();
    another_client(&stack.simulator, &["async", "remove", &device.id.to_string()]);
    watcher.see("a list lacks it", |seen| is_state(seen, false)).await;
    stack.simulator.control().apply_fault(&Fault::CutConnections);
    let restored = |seen: &Seen| is(seen, "restored", "async_connections");
    assert_eq!(watcher.see("restored", restored).await.json()["device_ids"], json!([device.id]));
    assert!(watcher.find(|seen| is(seen, "withdrawn", "async_connections")).is_none());
    kept(&stack, device.id, &json!("command")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_items_that_are_removed_are_reported_and_added_at_the_next_link() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let settings = SimulatorSettings { managed: false, ..SimulatorSettings::fast(3) };
    let simulator = Simulator::start(settings).await.unwrap();
    let device = simulator.control().devices()[0].clone();
    let lines = format!(
        "audit_interval = \"1s\"\ndevices = {{ {} = {{ connect = \"async\", ip = \"{}\" }} }}",
        device.id, device.ip
    );
    let stack = Stack::with(broker, simulator, ALL, &lines).await;
    let control = stack.simulator.control();
    let there = || {
        let managed = control.managed();
        managed.iter().any(|row| row.device_id == device.id && row.status > 0).then_some(())
    };
    eventually("it is connected", there).await;
    let connected = |seen: &Seen| {
        seen.topic == format!("gsdk/lobby/{}/state", device.id)
            && seen.json()["auto_reconnect"] == true
    };
    watcher.see("it was listed", connected).await;
    another_client(&stack.simulator, &["async", "remove", &device.id.to_string()]);
    let calls = |method: &str| control.calls().get(method).copied().unwrap_or_default();
    let added = calls("AddAsyncConnection");
    watcher.see("withdrawn", |seen| is(seen, "withdrawn", "async_connections")).await;
    // The effects of a list are complete when the list after the next is requested.
    let lists = calls("GetDeviceList");
    let later = || (calls("GetDeviceList") > lists + 2).then_some(());
    eventually("three more lists", later).await;
    assert!(control.managed().is_empty(), "nothing is added while the link is up");
    assert_eq!(calls("AddAsyncConnection"), added);
    kept(&stack, device.id, &json!("config")).await;
    control.apply_fault(&Fault::CutConnections);
    eventually("it is given at the next link", there).await;
}

/// Aim: items that our own commands remove are not reported as another client's change; a declared
/// item is warned of. Method: a device and `allow_all` are declared, and removed in every way.
#[tokio::test(flavor = "multi_thread")]
async fn items_that_our_own_command_removes_are_a_warning_and_not_withdrawn() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator =
        Simulator::start(SimulatorSettings { managed: false, ..SimulatorSettings::fast(10) })
            .await
            .unwrap();
    let control = simulator.control();
    let id = control.devices()[3].id;
    let lines = format!(
        "audit_interval = \"1s\"\naccept_filter = {{ allow_all = true }}\n\
         devices = {{ {id} = {{ connect = \"accept\" }} }}"
    );
    let stack = Stack::with(broker, simulator, ALL, &lines).await;
    let calls = |method: &str| control.calls().get(method).copied().unwrap_or_default();
    // After each list the filter is read; its changes are reported before the list after the next.
    let listed = async || {
        let lists = calls("GetDeviceList");
        eventually("three lists", || (calls("GetDeviceList") > lists + 2).then_some(())).await;
    };
    let filter = || {
        let filter = control.filter();
        (filter.allow_all, filter.device_i_ds)
    };
    for (command, request, left, warned) in [
        ("accept_filter/remove", json!({"device_id": id}), (true, vec![]), vec![json!(id)]),
        (
            "accept_filter/allow_all",
            json!({"enabled": false}),
            (false, vec![id]),
            vec![Value::Null],
        ),
        (
            "accept_filter/set",
            json!({"device_ids": []}),
            (false, vec![]),
            vec![json!(id), Value::Null],
        ),
    ] {
        // Added at a new link, and read there.
        control.restart(Duration::from_millis(100)).await;
        let there = (true, vec![id]);
        eventually("all are accepted", || (filter() == there).then_some(())).await;
        listed().await;
        let answer = stack.ask(command, &request.to_string()).await;
        assert_eq!(answer["result"], "ok", "{answer}");
        let warnings = answer["warnings"].as_array().unwrap();
        let about: Vec<Value> =
            warnings.iter().map(|warning| warning["device_id"].clone()).collect();
        assert_eq!(about, warned, "{answer}");
        for warning in warnings {
            assert_eq!(warning["code"], "kept_by_configuration", "{answer}");
            let key = match warning["device_id"].as_u64() {
                Some(id) => format!("gateways.lobby.devices.{id}.connect"),
                None => "gateways.lobby.accept_filter.allow_all".to_owned(),
            };
            assert!(warning["message"].as_str().unwrap().contains(&key), "{answer}");
        }
        listed().await;
        assert!(watcher.find(|seen| is(seen, "withdrawn", "accept_filter")).is_none(), "{command}");
        assert_eq!(filter(), left, "nothing is added while the link is up");
    }
    let (_, log) = stack.bridge.stop().await;
    assert!(!log.contains("another client removed desired items"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_bridges_end_cuts_short_is_reported_by_the_next_process() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let mut stack = Stack::with(broker, simulator, ALL, "").await;
    let control = stack.simulator.control();
    let id = control.devices()[0].id;
    // Long enough that the bridge is killed before the gateway answers.
    control.apply_fault(&Fault::latency(Duration::from_secs(3)));
    let before = control.calls().get("SetConnectionModeMulti").copied();
    let request = json!({"device_id": id, "mode": "device_to_server", "requested_by": "me"});
    crate::harness::watcher::publish(
        stack.broker.port,
        &["-t", "gsdk/lobby/request/mode/set", "-m", &request.to_string()],
    );
    eventually("the change is requested", || {
        (control.calls().get("SetConnectionModeMulti").copied() > before).then_some(())
    })
    .await;
    // The loop has taken the report of the step before it, and stored it.
    stack.bridge.get("/metrics").await;
    stack.bridge.kill();
    control.apply_fault(&Fault::latency(Duration::ZERO));
    stack.bridge.restart();
    let topic = "gsdk/bridge/event/command_interrupted";
    let reported = watcher.see(topic, |seen| seen.topic == topic).await.json();
    assert_eq!(reported["command"], "mode/set", "{reported}");
    assert_eq!(
        (&reported["gateway"], &reported["device_ids"], &reported["requested_by"]),
        (&json!("lobby"), &json!([id]), &json!("me"))
    );
    let steps = reported["steps"].as_array().unwrap();
    assert_eq!((&steps[0]["step"], &steps[0]["result"]), (&json!("filter_added"), &json!("ok")));

    // Once: the process after it has nothing new to report. The same event may be repeated, if the
    // kill preceded the storing of the broker's acknowledgement.
    stack.bridge.is_ready().await;
    watcher.clear();
    stack.bridge.kill();
    stack.bridge.restart();
    stack.bridge.is_ready().await;
    stack.is_listening().await;
    let new = |seen: &Seen| seen.topic == topic && seen.json()["event_id"] != reported["event_id"];
    assert!(watcher.find(new).is_none());

    // What its steps made is added again.
    control.restart(Duration::from_millis(100)).await;
    let is_accepted = || control.filter().device_i_ds.contains(&id).then_some(());
    eventually("it is accepted again", is_accepted).await;
}
