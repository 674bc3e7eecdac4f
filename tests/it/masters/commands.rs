//! Commands through a master.

use std::time::{Duration, Instant};

use gsdk2mqtt::simulator::Fault;

use super::{Campus, NAMED, NO_AUDIT};

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_their_gateway() {
    let campus = Campus::named(10).await;
    campus.bridge.is_ready().await;
    for (at, (name, _)) in NAMED.into_iter().enumerate() {
        let answer = campus.ask(name, "devices", "{}").await;
        let listed = answer["data"]["devices"].as_array().unwrap();
        let ids: Vec<u64> = listed.iter().map(|row| row["device_id"].as_u64().unwrap()).collect();
        let mut expected: Vec<u64> =
            campus.master.devices[at].iter().copied().map(u64::from).collect();
        expected.sort_unstable();
        assert_eq!(ids, expected, "{name}");
    }
    for command in ["search", "pending", "accept_filter/get", "slaves/get"] {
        let payload = if command == "search" { r#"{"wait_s":0.1}"# } else { "{}" };
        let answer = campus.ask("south", command, payload).await;
        assert_eq!(answer["result"], "ok", "{answer}");
    }
}

/// `Disconnect`, `SetConnectionMode` and the SSL calls name no gateway: the master would act on a
/// device of any.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_another_gateway_is_not_found_and_the_master_gets_no_call() {
    let campus = Campus::named(10).await;
    campus.bridge.is_ready().await;
    let of_south = campus.master.devices[1][0];
    let ids = format!(r#""device_ids":[{of_south}]"#);
    for (command, payload) in [
        ("disconnect", format!("{{{ids}}}")),
        ("mode/set", format!(r#"{{{ids},"mode":"device_to_server"}}"#)),
        ("mode/set", format!(r#"{{{ids},"mode":"device_to_server","apply":false}}"#)),
        ("ssl/enable", format!("{{{ids}}}")),
        ("ssl/enable", format!(r#"{{{ids},"apply":false}}"#)),
        ("ssl/disable", format!(r#"{{{ids},"apply":false}}"#)),
    ] {
        let answer = campus.ask("north", command, &payload).await;
        assert_eq!(answer["result"], "error", "{answer}");
        assert_eq!(answer["error"]["code"], "not_found", "{answer}");
    }
    for method in [
        "Disconnect",
        "SetConnectionMode",
        "SetConnectionModeMulti",
        "EnableSSL",
        "EnableSSLMulti",
        "DisableSSL",
        "DisableSSLMulti",
    ] {
        assert_eq!(campus.master.calls(method), 0, "{method}");
    }
    // Of two, only the gateway's own is disconnected.
    let of_north = campus.master.devices[0][0];
    let payload = format!(r#"{{"device_ids":[{of_north},{of_south}]}}"#);
    let answer = campus.ask("north", "disconnect", &payload).await;
    assert_eq!(answer["result"], "partial", "{answer}");
    assert_eq!(answer["data"]["device_ids"], serde_json::json!([of_north]));
    assert_eq!(answer["device_errors"][0]["device_id"], of_south);
    let topic = format!("gsdk/north/{of_north}/event/disconnected");
    campus.see(&topic, "the event", |_| true).await;
    let other = format!("gsdk/south/{of_south}/event/disconnected");
    assert!(campus.watcher.find(|seen| seen.topic == other).is_none());
}

/// The list of gateways would be read up to a minute later.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_the_master_answers_with_not_found_shows_that_the_gateway_is_removed() {
    let campus = Campus::named_with(2, NO_AUDIT).await;
    campus.bridge.is_ready().await;
    campus.watcher.clear();
    campus.master.list("gateway2", false);
    let asked = Instant::now();
    let answer = campus.ask("south", "accept_filter/get", "{}").await;
    assert_eq!(answer["error"]["code"], "not_found", "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("check --connect"), "{answer}");
    campus.see("gsdk/south/info", "removed", |info| info["state"] == "removed").await;
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}

/// The master answers the change at the gateway after 1.5 s, and would store it after another 1.5.
#[tokio::test(flavor = "multi_thread")]
async fn all_calls_of_a_command_have_its_deadline_together() {
    let campus = Campus::named(3).await;
    campus.bridge.is_ready().await;
    campus.master.fault(&Fault::latency(Duration::from_millis(1_500)));
    let device = campus.master.devices[0][0];
    let devices = format!(r#"[{{"device_id":{device},"ip":"10.0.0.9"}}]"#);
    let payload = format!(r#"{{"timeout_s":2,"devices":{devices}}}"#);
    let answer = campus.ask("north", "async/add", &payload).await;
    assert_eq!(answer["error"]["code"], "timeout", "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("AddAsyncConnectionDB"), "{answer}");
    assert_eq!(answer["data"]["steps"][0]["step"], "looked", "{answer}");
}
