//! Changes with steps that fail on the way: how the device is left, and what to do by hand.

use serde_json::{Value, json};

use gsdk2mqtt::simulator::CallFault;

use super::{ALL, House};

fn fault() -> CallFault {
    CallFault { code: tonic::Code::Internal, message: "out of luck".to_owned(), times: None }
}

/// Asks for a change that one call makes fail; gives its last step.
async fn failing(house: &House, command: &str, request: &Value, method: &str) -> Value {
    house.simulator.control().fail(method, fault());
    let answer = house.ask(command, &request.to_string()).await;
    house.simulator.control().heal();
    assert_eq!(answer["result"], "error", "{method}: {answer}");
    assert_eq!(answer["data"]["device_ids"], json!([]), "{answer}");
    let step = answer["data"]["steps"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(step["result"], "error", "{answer}");
    assert_eq!(step["message"], answer["device_errors"][0]["message"], "{answer}");
    step
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_that_fails_stops_the_rest_and_says_what_to_do() {
    let house = House::new(6, ALL).await;
    let control = house.simulator.control();
    let building = control.building();
    let mode = |at: usize, mode: &str| json!({"device_id": building[at].id, "mode": mode});
    let ssl = |at: usize| json!({"device_id": building[at].id});
    let to_server = "device_to_server";
    for (command, request, method, step, words) in [
        ("mode/set", mode(0, to_server), "SetAcceptFilter", "filter_added", "not changed"),
        ("mode/set", mode(0, to_server), "SetConnectionModeMulti", "mode_set", "is let in"),
        ("mode/set", mode(0, to_server), "DeleteAsyncConnection", "async_removed", "async/remove"),
        ("mode/set", mode(3, "server_to_device"), "AddAsyncConnection", "async_added", "async/add"),
        ("ssl/enable", ssl(2), "EnableSSLMulti", "ssl_enabled", "search"),
        ("ssl/enable", ssl(4), "AddAsyncConnection", "async_added", "\"ssl\":true"),
    ] {
        let last = failing(&house, command, &request, method).await;
        assert_eq!(last["step"], step, "{last}");
        let message = last["message"].as_str().unwrap();
        assert!(message.contains("out of luck") && message.contains(words), "{message}");
    }
    // Nobody was stranded by what failed before the device was changed.
    let row = control.managed().into_iter().find(|row| row.device_id == building[2].id).unwrap();
    assert_eq!((row.status, row.use_ssl), (1, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_come_back_is_told_with_what_was_seen() {
    let house = House::new(3, ALL).await;
    let control = house.simulator.control();
    let id = control.building()[0].id;
    // It has taken the change, and is gone.
    let gone = async {
        crate::harness::eventually("it has changed", || {
            control.building()[0].ssl.then(|| control.power(id, false))
        })
        .await
    };
    let request = json!({"device_id": id, "timeout_s": 3}).to_string();
    let (answer, _) = tokio::join!(house.ask("ssl/enable", &request), gone);
    if answer["result"] == "ok" {
        return assert_eq!(answer["data"]["steps"].as_array().unwrap().len(), 3, "{answer}");
    }
    assert_eq!(answer["error"]["code"], "timeout", "{answer}");
    let looked = answer["data"]["steps"].as_array().unwrap().last().unwrap();
    assert_eq!(looked["step"], "looked");
    assert!(looked["message"].as_str().unwrap().contains("the list says"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_lost_on_the_way_is_told_with_what_to_do() {
    let house = House::new(6, ALL).await;
    let control = house.simulator.control();
    let building = control.building();
    for (at, method, words) in [
        (0, "SetAcceptFilter", "not changed"),
        (2, "SetConnectionModeMulti", "let in by the accept filter"),
        (4, "DeleteAsyncConnection", "async/remove"),
    ] {
        control.latency(std::time::Duration::from_millis(200));
        let before = control.calls().get(method).copied().unwrap_or_default();
        let lost = async {
            crate::harness::eventually("the call is made", || {
                (control.calls().get(method).copied() > Some(before)).then_some(())
            })
            .await;
            control.cut_connections();
        };
        let request = json!({"device_id": building[at].id, "mode": "device_to_server"});
        let request = request.to_string();
        let (answer, ()) = tokio::join!(house.ask("mode/set", &request), lost);
        control.latency(std::time::Duration::ZERO);
        assert_eq!(answer["result"], "error", "{method}: {answer}");
        let message = answer["device_errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("whether it was done is not known"), "{method}: {message}");
        assert!(message.contains(words), "{method}: {message}");
        house.bridge.is_ready().await;
        crate::harness::patiently("the link is back", async {
            while house.ask("pending", "{}").await["result"] != "ok" {}
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_declares_is_not_contradicted() {
    let broker = crate::harness::mosquitto::Mosquitto::start("").await;
    let simulator = crate::harness::simulator(3).await;
    let device = simulator.control().building()[0].clone();
    let declared = format!(
        "devices = {{ {} = {{ connect = \"async\", ip = \"{}\" }} }}",
        device.id, device.ip
    );
    let house = House::with(broker, simulator, ALL, &declared).await;
    let line = format!("gateways.lobby.devices.{}.connect", device.id);
    for command in ["async/remove", "ssl/enable"] {
        let answer = house.ask(command, &json!({"device_id": device.id}).to_string()).await;
        let (code, message) = super::refusal(&answer);
        assert_eq!(code, "invalid_request");
        assert!(message.contains(&line), "{message}");
    }
}
