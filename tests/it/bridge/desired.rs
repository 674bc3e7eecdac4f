//! Items of the configuration are present after every new link, and nothing is removed.

use std::time::Duration;

use serde_json::json;

use gsdk2mqtt::simulator::{Control, Fault, Simulator, SimulatorSettings};

use crate::commands::{ALL, rr};
use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::Watcher;
use crate::harness::{eventually, patiently};

/// A gateway with this number of unmanaged devices, and a configuration that declares all of them.
async fn forgetful(devices: usize) -> (Simulator, String) {
    let settings = SimulatorSettings { managed: false, ..SimulatorSettings::fast(devices) };
    let simulator = Simulator::start(settings).await.unwrap();
    let mut lines = String::from("[gateways.lobby.devices]\n");
    for device in simulator.control().devices() {
        let (id, ip) = (device.id, device.ip);
        let dials = device.mode == gsdk2mqtt::simulator::DialMode::DeviceToServer;
        lines += &if dials {
            format!("{id} = {{ connect = \"accept\" }}\n")
        } else {
            format!("{id} = {{ connect = \"async\", ip = \"{ip}\", ssl = {} }}\n", device.ssl)
        };
    }
    (simulator, lines)
}

fn calls(control: &Control, method: &str) -> u64 {
    control.calls().get(method).copied().unwrap_or_default()
}

/// The number of registrations at the gateway.
fn registered(control: &Control) -> usize {
    control.managed().iter().filter(|row| row.auto_reconnect).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_forgot_is_given_everything_again() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let (simulator, lines) = forgetful(10).await;
    let control = simulator.control();
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, &lines).start();
    let all_connected = || {
        let managed = control.managed();
        let connected = managed.iter().filter(|device| matches!(device.status, 1 | 2)).count();
        (connected == 10).then_some(())
    };
    eventually("every device is connected", all_connected).await;
    let restored = |seen: &crate::harness::watcher::Seen| seen.topic.ends_with("/event/restored");
    for what in ["async_connections", "accept_filter"] {
        watcher.see(what, |seen| restored(seen) && seen.json()["what"] == what).await;
    }
    let device = control.devices()[0].id;
    let topic = format!("gsdk/lobby/{device}/state");
    let connected = |seen: &crate::harness::watcher::Seen| {
        seen.topic == topic && seen.json()["connected"] == true
    };
    let state = watcher.see("connected", connected).await.json();
    assert_eq!(state["kept"], "config");

    let calls = control.calls().get("AddAsyncConnection").copied();
    control.restart(std::time::Duration::from_millis(100)).await;
    assert!(control.managed().is_empty(), "a gateway forgets");
    eventually("every device is connected again", all_connected).await;
    assert_eq!(control.calls().get("AddAsyncConnection").copied(), calls.map(|count| count + 1));
    drop(bridge);
}

/// Aim: a device that cannot be registered delays no other, is reported, and is tried again.
/// Method: 250 devices, 200 of them to be registered, of which the gateway refuses one.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_cannot_be_registered_is_reported_and_tried_again_beside_the_others() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let (simulator, lines) = forgetful(250).await;
    let control = simulator.control();
    let odd = control.devices()[112].id;
    control.apply_fault(&Fault::RefuseRegistration { devices: odd.into(), on: true });
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, &lines).start();
    let item = format!("the registration of device {odd}\"");
    let is_logged = |line: &str| line.contains("cannot provision items") && line.contains(&item);
    eventually("it is logged", || bridge.log().lines().any(is_logged).then_some(())).await;
    eventually("all others are registered", || (registered(&control) == 199).then_some(())).await;
    let refused = calls(&control, "AddAsyncConnection");
    assert!(refused <= 17, "{refused} calls");
    eventually("it is tried again", || {
        (calls(&control, "AddAsyncConnection") > refused).then_some(())
    })
    .await;
    control.apply_fault(&Fault::RefuseRegistration { devices: odd.into(), on: false });
    eventually("it is registered too", || (registered(&control) == 200).then_some(())).await;
    let restored = |seen: &crate::harness::watcher::Seen| {
        seen.topic.ends_with("/event/restored") && seen.json()["device_ids"] == json!([odd])
    };
    watcher.see("the event reports it", restored).await;
    assert_eq!(bridge.log().matches("cannot provision").count(), 1, "{}", bridge.log());
    let after = calls(&control, "AddAsyncConnection");

    // When no device is refused, there are two batches of 100.
    control.restart(Duration::from_millis(100)).await;
    eventually("all are registered", || (registered(&control) == 200).then_some(())).await;
    assert_eq!(calls(&control, "AddAsyncConnection"), after + 2);
}

/// Aim: a gateway that refuses all registrations delays neither the filter nor requests.
/// Method: slow calls, each registration refused, by two kinds of errors.
#[tokio::test(flavor = "multi_thread")]
async fn registrations_that_all_fail_hold_up_neither_filter_nor_requests() {
    for (code, most) in [(tonic::Code::Unavailable, 1), (tonic::Code::Internal, 10)] {
        let broker = Mosquitto::start("").await;
        let (simulator, lines) = forgetful(250).await;
        let control = simulator.control();
        control.apply_fault(&Fault::fail("AddAsyncConnection", code, "out of luck"));
        control.apply_fault(&Fault::latency(Duration::from_millis(500)));
        let setup = Setup::new(broker.port, "").lines(ALL);
        let bridge = setup.gateway("lobby", &simulator, &lines).start();
        eventually("the filter accepts all", || {
            (control.filter().device_i_ds.len() == 50).then_some(())
        })
        .await;
        assert!(calls(&control, "AddAsyncConnection") <= 1, "the filter comes first");
        eventually("it is under way", || (calls(&control, "AddAsyncConnection") > 0).then_some(()))
            .await;
        let first_round = async {
            let is_logged = || bridge.log().contains(" more\"").then_some(());
            eventually("it is reported", is_logged).await;
            calls(&control, "AddAsyncConnection")
        };
        let topic = "gsdk/lobby/request/accept_filter/add";
        let answer = patiently("a request is answered", async {
            loop {
                let args = ["-t", topic, "-m", "{\"device_id\":7}"];
                if let Some(answer) = rr(broker.port, &args, "5").await {
                    break answer;
                }
            }
        });
        let (so_far, answer) = tokio::join!(first_round, answer);
        assert_eq!(answer["result"], "ok", "{answer}");
        assert!(so_far <= most, "{code:?}: {so_far} calls in the first round");
        assert!(bridge.log().contains("out of luck"));
        control.apply_fault(&Fault::latency(Duration::ZERO));
        // The next round starts automatically.
        control.apply_fault(&Fault::Heal);
        eventually("all are registered", || (registered(&control) == 200).then_some(())).await;
    }
}

/// A gateway has a device's type only after the device connected, and the stream does not contain
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_connects_for_the_first_time_has_its_type_before_the_next_audit() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let (simulator, lines) = forgetful(1).await;
    let device = simulator.control().devices()[0].clone();
    simulator.control().apply_fault(&Fault::power(device.id, false));
    let extra = format!("audit_interval = \"1h\"\n{lines}");
    let _bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, &extra).start();
    let topic = format!("gsdk/lobby/{}/state", device.id);
    let state = |seen: &crate::harness::watcher::Seen| {
        if seen.topic == topic { seen.json() } else { json!(null) }
    };
    watcher.see("not reachable", |seen| state(seen)["status"] == "tcp_cannot_connect").await;
    simulator.control().apply_fault(&Fault::power(device.id, true));
    let kind = gsdk2mqtt::simulator::kind_name(device.kind);
    let connected = |seen: &crate::harness::watcher::Seen| {
        state(seen)["connected"] == true && state(seen)["type"] == kind
    };
    watcher.see("connected, with its type", connected).await;
}
