//! A stop of the bridge while commands run or wait: each is answered, each change is in the log.

use std::time::Duration;

use serde_json::{Value, json};

use gsdk2mqtt::simulator::{DialMode, Fault, GatewayTiming, Simulator, SimulatorSettings};

use super::{ALL, Stack, refusal};
use crate::harness::eventually;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Watcher, publish};

/// Longer than the whole test.
const HANGS: Duration = Duration::from_secs(60);

fn ask(stack: &Stack, command: &str, request: &Value) {
    let (topic, request) = (format!("gsdk/lobby/request/{command}"), request.to_string());
    publish(stack.broker.port, &["-t", &topic, "-m", &request]);
}

/// The audit line of this command.
fn line<'a>(log: &'a str, command: &str) -> &'a str {
    let words = format!("command={command} ");
    let mut lines = log.lines().filter(|line| line.contains("change requested"));
    lines.find(|line| line.contains(&words)).unwrap_or_else(|| panic!("{command}: {log}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn running_and_waiting_commands_are_answered_and_logged() {
    let mut stack = Stack::new(3, ALL).await;
    let watcher = Watcher::start(stack.broker.port).await;
    let control = stack.simulator.control();
    let id = control.managed()[0].device_id;
    control.apply_fault(&Fault::latency(HANGS));
    ask(&stack, "slaves/set", &json!({"slaves": [{"device_id": id}], "requested_by": "Ann"}));
    ask(&stack, "disconnect_all", &json!({"transaction": 5}));
    ask(&stack, "pending", &json!({}));
    eventually("both are requested", || {
        let calls = control.calls();
        (calls.contains_key("SetSlaveDevice") && calls.contains_key("GetPendingList")).then_some(())
    })
    .await;
    let (status, log) = stack.bridge.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    for (command, code, words) in [
        ("slaves/set", "interrupted", "not known"),
        ("disconnect_all", "gateway_unavailable", "nothing was done"),
        ("pending", "interrupted", "repeat the request"),
    ] {
        let topic = format!("gsdk/lobby/response/{command}");
        let answer = watcher.see(&topic, |seen| seen.topic == topic).await.json();
        let reported = refusal(&answer);
        assert!(reported.0 == code && reported.1.contains(words), "{answer}");
    }
    let line_of = |command| line(&log, command);
    assert!(line_of("slaves/set").contains("outcome=\"interrupted\""), "{log}");
    assert!(line_of("slaves/set").contains("Ann"), "{log}");
    assert!(line_of("disconnect_all").contains("outcome=\"gateway_unavailable\""), "{log}");
    assert_eq!(control.calls().get("DisconnectAll"), None);
}

/// Without a broker there is no response, but the log and the next process report the interruption.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_with_steps_is_reported_by_the_next_process_too() {
    let broker = Mosquitto::start("").await;
    // The device takes a minute to dial the gateway once it is set to.
    let timing = GatewayTiming { dial_interval_ms: 60_000, ..GatewayTiming::fast() };
    let settings = SimulatorSettings { timing, ..SimulatorSettings::fast(3) };
    let simulator = Simulator::start(settings).await.unwrap();
    let mut stack = Stack::with(broker, simulator, ALL, "").await;
    let control = stack.simulator.control();
    let device = || control.devices()[0].clone();
    eventually("it is connected", || {
        let managed = control.managed();
        managed.iter().any(|row| row.device_id == device().id && row.status > 0).then_some(())
    })
    .await;
    ask(&stack, "mode/set", &json!({"device_id": device().id, "mode": "device_to_server"}));
    eventually("it is changed", || (device().mode == DialMode::DeviceToServer).then_some(())).await;
    stack.broker.kill();
    let (_, log) = stack.bridge.terminate().await;
    assert!(line(&log, "mode/set").contains("outcome=\"interrupted\""), "{log}");
    stack.broker.restart().await;
    let watcher = Watcher::start(stack.broker.port).await;
    stack.bridge.restart();
    let topic = "gsdk/bridge/event/command_interrupted";
    let reported = watcher.see(topic, |seen| seen.topic == topic).await.json();
    let steps: Vec<_> =
        reported["steps"].as_array().unwrap().iter().map(|it| &it["step"]).collect();
    assert_eq!(steps, ["filter_added", "mode_set"], "{reported}");
    control.restart(Duration::from_millis(100)).await;
    let is_accepted = || control.filter().device_i_ds.contains(&device().id).then_some(());
    eventually("it is accepted again", is_accepted).await;
}
