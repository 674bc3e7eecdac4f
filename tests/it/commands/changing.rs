//! Changes of a single call, verified at the gateway.

use std::time::Duration;

use serde_json::{Value, json};

use gsdk2mqtt::proto::connect::AcceptFilter;
use gsdk2mqtt::simulator::{DialMode, Fault, GrpcCode, Simulator, SimulatorSettings};
use tonic::Code;

use super::{ALL, Stack, refusal};
use crate::harness::eventually;
use crate::harness::mosquitto::Mosquitto;

/// A stack whose gateway has no managed devices.
async fn new_stack(devices: usize) -> Stack {
    let broker = Mosquitto::start("").await;
    let settings = SimulatorSettings { managed: false, ..SimulatorSettings::fast(devices) };
    let simulator = Simulator::start(settings).await.unwrap();
    Stack::with(broker, simulator, ALL, "").await
}

fn codes(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry["code"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_connected_and_disconnected() {
    let stack = new_stack(3).await;
    let control = stack.simulator.control();
    let device = control.devices()[0].clone();
    let answer = stack.ask("connect", &format!("{{\"ip\":\"{}\"}}", device.ip)).await;
    assert_eq!(answer["data"], json!({"device_id": device.id}), "{answer}");
    assert_eq!(control.managed()[0].device_id, device.id);
    let answer = stack.ask("connect", r#"{"ip":"192.168.7.7"}"#).await;
    let (code, message) = refusal(&answer);
    assert_eq!(code, "unavailable");
    assert!(message.contains("`search`"), "{message}");
    // It has SSL, which the gateway does not have.
    let ssl = control.devices()[1].clone();
    let answer = stack.ask("connect", &json!({"ip": ssl.ip}).to_string()).await;
    let (code, message) = refusal(&answer);
    assert_eq!(code, "unavailable");
    assert!(message.contains("give the ip, port and ssl"), "{message}");

    let ids = format!("{{\"device_ids\":[{},7]}}", device.id);
    let answer = stack.ask("disconnect", &ids).await;
    assert_eq!(answer["result"], "partial", "{answer}");
    assert_eq!(answer["data"]["device_ids"], json!([device.id]));
    assert_eq!(answer["device_errors"][0]["device_id"], 7);
    assert_eq!(codes(&answer["device_errors"]), ["not_found"]);
    assert_eq!(answer["warnings"], json!([]));
    assert!(control.managed().is_empty());
    let answer = stack.ask("disconnect", r#"{"device_id":7}"#).await;
    assert_eq!(answer["error"]["code"], "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn registered_devices_come_and_go() {
    let stack = new_stack(3).await;
    let control = stack.simulator.control();
    let [plain, ssl] = [0, 1].map(|at| control.devices()[at].clone());
    let devices = json!({"devices": [
        {"device_id": plain.id, "ip": plain.ip},
        {"device_id": ssl.id, "ip": ssl.ip, "port": 51211, "ssl": true},
    ]});
    let answer = stack.ask("async/add", &devices.to_string()).await;
    assert_eq!(answer["data"], json!({"device_ids": [plain.id, ssl.id]}), "{answer}");
    assert_eq!(answer["warnings"], json!([]));
    eventually("both are connected", || {
        let statuses: Vec<_> = control.managed().iter().map(|device| device.status).collect();
        (statuses == [1, 2]).then_some(())
    })
    .await;

    let answer = stack.ask("disconnect_all", "{}").await;
    assert_eq!(answer["result"], "ok");
    assert_eq!(codes(&answer["warnings"]), ["will_reconnect", "will_reconnect"]);
    let ids = format!("{{\"device_ids\":[{},7]}}", plain.id);
    let answer = stack.ask("disconnect", &ids).await;
    assert_eq!(codes(&answer["warnings"]), ["will_reconnect"], "{answer}");
    let answer = stack.ask("async/remove", &ids).await;
    assert_eq!(
        (&answer["result"], &answer["data"]["device_ids"]),
        (&json!("partial"), &json!([plain.id]))
    );
    let managed: Vec<u32> = control.managed().iter().map(|device| device.device_id).collect();
    assert_eq!(managed, [ssl.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_is_changed_and_read_back() {
    let stack = new_stack(10).await;
    let control = stack.simulator.control();
    let filter = |allow_all: bool, ids: &[u32]| {
        let mut filter = json!({"ips": [], "subnets": []});
        filter["allow_all"] = json!(allow_all);
        filter["device_ids"] = json!(ids);
        filter
    };
    for (command, request, allow_all, ids) in [
        ("accept_filter/set", json!({"device_ids": [9, 8]}), false, &[8, 9][..]),
        ("accept_filter/add", json!({"device_ids": [7, 8]}), false, &[7, 8, 9]),
        ("accept_filter/remove", json!({"device_ids": [9, 1]}), false, &[7, 8]),
        ("accept_filter/allow_all", json!({"enabled": true}), true, &[7, 8]),
        ("accept_filter/allow_all", json!({"enabled": false}), false, &[7, 8]),
        ("accept_filter/set", json!({"device_ids": []}), false, &[]),
    ] {
        let answer = stack.ask(command, &request.to_string()).await;
        assert_eq!(answer["data"], filter(allow_all, ids), "{answer}");
        let now = control.filter();
        assert_eq!((now.allow_all, now.device_i_ds.as_slice()), (allow_all, ids), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slaves_are_set() {
    let stack = Stack::new(3, ALL).await;
    let id = stack.simulator.control().managed()[0].device_id;
    let request = json!({"slaves": [{"device_id": id, "rs485": [7, 8]}]}).to_string();
    let answer = stack.ask("slaves/set", &request).await;
    assert_eq!((&answer["result"], &answer["data"]), (&json!("ok"), &json!({})), "{answer}");
    let answer = stack.ask("slaves/get", "{}").await;
    let slaves = json!({"slaves": [{"device_id": id, "rs485": [7, 8], "wiegand": []}]});
    assert_eq!(answer["data"], slaves);
    let there = stack.simulator.control().slaves();
    assert_eq!((there.len(), there[0].device_id), (1, id));
    assert_eq!(there[0].rs485_slave_device_i_ds, [7, 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_changes_in_both_directions_with_all_steps() {
    let stack = Stack::new(3, ALL).await;
    let control = stack.simulator.control();
    let device = control.devices()[0].clone();
    let request = |mode: &str| json!({"device_id": device.id, "mode": mode}).to_string();
    let steps = |answer: &Value| -> Vec<String> {
        let steps = answer["data"]["steps"].as_array().unwrap().iter();
        steps.map(|step| format!("{} {}", step["step"], step["result"]).replace('"', "")).collect()
    };
    let answer = stack.ask("mode/set", &request("DEVICE_TO_SERVER")).await;
    assert_eq!(answer["result"], "ok", "{answer}");
    let expected =
        ["filter_added ok", "mode_set ok", "connected ok", "async_removed ok", "connected ok"];
    assert_eq!(steps(&answer), expected);
    let row = |id: u32| control.managed().into_iter().find(|row| row.device_id == id).unwrap();
    let now = row(device.id);
    assert_eq!((now.connection_mode, now.auto_reconnect, now.status), (1, false, 1));
    assert!(control.filter().device_i_ds.contains(&device.id));

    let answer = stack.ask("mode/set", &request("server_to_device")).await;
    assert_eq!(answer["result"], "ok", "{answer}");
    let expected = ["mode_set ok", "async_added ok", "connected ok", "filter_removed ok"];
    assert_eq!(steps(&answer), expected);
    let now = row(device.id);
    assert_eq!((now.connection_mode, now.auto_reconnect, now.status), (0, true, 1));
    assert!(!control.filter().device_i_ds.contains(&device.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bare_call_changes_the_device_and_nothing_else() {
    let stack = Stack::new(10, ALL).await;
    let control = stack.simulator.control();
    let now = |at: usize| control.devices()[at].clone();
    let device = now(0);
    let done = json!({"device_ids": [device.id], "steps": []});
    for (ssl, command) in [(true, "ssl/enable"), (false, "ssl/disable")] {
        eventually("it is connected", || {
            let managed = control.managed();
            managed.iter().any(|row| row.device_id == device.id && row.status > 0).then_some(())
        })
        .await;
        let request = json!({"device_id": device.id, "apply": false}).to_string();
        let answer = stack.ask(command, &request).await;
        assert_eq!((&answer["data"], now(0).ssl), (&done, ssl), "{answer}");
        let row = control.managed().into_iter().find(|row| row.device_id == device.id).unwrap();
        assert_eq!(row.use_ssl, !ssl, "the gateway is not changed");
        if ssl {
            // Otherwise the gateway cannot reach it.
            let devices = json!([{"device_id": device.id, "ip": device.ip, "ssl": true}]);
            let add = json!({"devices": devices}).to_string();
            assert_eq!(stack.ask("async/add", &add).await["result"], "ok");
        }
    }

    // Of several devices some fail, reported by the gateway as one error with details.
    let [first, second] = [2, 5].map(now);
    let ids = [first.id, second.id, 7];
    let request = json!({"device_ids": ids, "mode": "device_to_server", "apply": false});
    let answer = stack.ask("mode/set", &request.to_string()).await;
    assert_eq!(answer["result"], "partial", "{answer}");
    assert_eq!(answer["data"]["device_ids"], json!([first.id, second.id]), "{answer}");
    assert_eq!(codes(&answer["device_errors"]), ["not_found"]);
    assert_eq!(answer["device_errors"][0]["device_id"], 7);
    assert_eq!([now(2).mode, now(5).mode], [DialMode::DeviceToServer; 2]);
    let filter = control.filter().device_i_ds;
    assert!(ids.iter().all(|id| !filter.contains(id)), "{filter:?}");

    let request = json!({"device_id": 7, "mode": "device_to_server", "apply": false});
    let answer = stack.ask("mode/set", &request.to_string()).await;
    let (code, message) = refusal(&answer);
    assert_eq!((code, message.matches("device 7").count()), ("not_found", 1), "{message}");
    assert!(message.contains("connect it first"), "{message}");
}

/// Aim: another client that overwrites a change is detected. Method: one that overwrites it all
/// the time, while each call of the bridge is delayed.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_past_the_bridge_that_undoes_a_change_is_reported() {
    let stack = Stack::new(3, ALL).await;
    let control = stack.simulator.control();
    control.apply_fault(&Fault::latency(Duration::from_millis(100)));
    let undoing = tokio::spawn({
        let control = control.clone();
        async move {
            loop {
                control.set_filter(AcceptFilter::default());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let answer = stack.ask("accept_filter/add", r#"{"device_id":7}"#).await;
    undoing.abort();
    let (code, message) = refusal(&answer);
    assert_eq!(code, "aborted");
    assert!(message.contains("go through the bridge"), "{message}");
    assert_eq!(control.calls()["SetAcceptFilter"], 3, "it was tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn ssl_is_switched_on_and_off_for_every_kind_of_connection() {
    let stack = Stack::new(10, ALL).await;
    let control = stack.simulator.control();
    let [registered, dialling, dialled] = [0, 3, 2].map(|at| control.devices()[at].clone());
    // One of them is connected by a plain `connect`.
    let id = json!({"device_id": dialled.id}).to_string();
    assert_eq!(stack.ask("async/remove", &id).await["result"], "ok");
    let connect = json!({"ip": dialled.ip}).to_string();
    assert_eq!(stack.ask("connect", &connect).await["result"], "ok");
    let ids = [registered.id, dialled.id, dialling.id];
    for (command, status) in [("ssl/enable", 2), ("ssl/disable", 1)] {
        let request = json!({"device_ids": [ids[0], ids[1], ids[2], 7]}).to_string();
        let answer = stack.ask(command, &request).await;
        assert_eq!(answer["result"], "partial", "{answer}");
        assert_eq!(answer["data"]["device_ids"].as_array().unwrap().len(), 3, "{answer}");
        assert_eq!(answer["device_errors"][0]["code"], "not_found", "{answer}");
        for row in control.managed().iter().filter(|row| ids.contains(&row.device_id)) {
            assert_eq!(row.status, status, "{command} {row:?}");
        }
    }
}

/// Aim: a change whose first read fails is made by its repeat. Method: the read is refused, then it
/// is not answered in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_failed_before_it_began_is_made_by_its_repeat() {
    let stack = Stack::new(3, ALL).await;
    let control = stack.simulator.control();
    let id = control.managed()[0].device_id;
    let calls = |method: &str| control.calls().get(method).copied();
    // The bridge itself reads the filter too, whenever it has read the list.
    for (command, change, method, times) in [
        ("disconnect", "Disconnect", "GetDeviceList", Some(1)),
        ("accept_filter/add", "SetAcceptFilter", "GetAcceptFilter", None),
    ] {
        let (method, code) = (method.to_owned(), GrpcCode(Code::Unavailable));
        for fault in [
            Fault::Fail { method, code, message: None, times },
            Fault::latency(Duration::from_secs(1)),
        ] {
            // Each is another request.
            let request = json!({
                "device_id": id, "transaction": format!("{fault:?}"), "timeout_s": 0.7,
            });
            let request = request.to_string();
            control.apply_fault(&fault);
            let answer = stack.ask(command, &request).await;
            let (code, message) = refusal(&answer);
            assert!(["unavailable", "timeout"].contains(&code), "{answer}");
            assert!(message.ends_with("; nothing was changed"), "{answer}");
            control.apply_fault(&Fault::latency(Duration::ZERO));
            control.apply_fault(&Fault::Heal);
            let before = calls(change);
            assert!(control.set_filter(AcceptFilter::default()));
            let answer = stack.ask(command, &request).await;
            assert_eq!(
                (&answer["result"], answer.get("replayed")),
                (&json!("ok"), None),
                "{answer}"
            );
            assert!(calls(change) > before, "{answer}");
            let answer = stack.ask(command, &request).await;
            assert_eq!((&answer["result"], &answer["replayed"]), (&json!("ok"), &json!(true)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_requested_twice_is_made_once() {
    let stack = Stack::new(3, ALL).await;
    let request = r#"{"transaction":"42","requested_by":"Ann"}"#;
    let first = stack.ask("disconnect_all", request).await;
    assert_eq!((&first["result"], first.get("replayed")), (&json!("ok"), None));
    let second = stack.ask("disconnect_all", request).await;
    assert_eq!(second["replayed"], true);
    assert_eq!((&second["data"], &second["duration_s"]), (&first["data"], &first["duration_s"]));
    stack.ask("disconnect_all", r#"{"transaction":"42" }"#).await;
    assert_eq!(stack.simulator.control().calls()["DisconnectAll"], 2);
    let ids = (100..125).collect::<Vec<u32>>();
    let request = json!({"device_ids": ids, "requested_by": "Bob"}).to_string();
    assert_eq!(refusal(&stack.ask("disconnect", &request).await).0, "not_found");
    let (_, log) = stack.bridge.stop().await;
    let mut lines = log.lines().filter(|line| line.contains("change requested"));
    let mut says = |words: &[&str]| {
        let line = lines.next().unwrap();
        for word in words {
            assert!(line.contains(word), "{word}: {line}");
        }
    };
    let claim = "\\\"Ann\\\" (a claim)";
    says(&["gateway=lobby", "command=disconnect_all", claim, "outcome=\"ok\""]);
    says(&["command=disconnect_all", "requested_by=\"not given\"", "outcome=\"ok\""]);
    let devices: Vec<_> = (100..120).map(|id| id.to_string()).collect();
    let devices = &format!("devices=\"{}\"", devices.join(" "));
    says(&["command=disconnect", devices, "count=25", "Bob", "outcome=\"not_found\""]);
    assert!(log.contains("commands.allow permits changes"), "{log}");
}
