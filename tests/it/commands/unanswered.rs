//! Changes that the gateway makes and whose answer is lost: the connection breaks, or the bridge
//! stops or is killed. What they removed is not added again.

use serde_json::{Value, json};

use gsdk2mqtt::simulator::{DialMode, Fault};

use super::kept::restart;
use super::remembered::new_stack;
use super::{Stack, refusal};
use crate::harness::watcher::publish;
use crate::harness::{eventually, patiently};

/// Longer than a command may still take when the bridge stops.
const LATE: Fault = Fault::LateAnswers { ms: 1_600 };
const IN_TIME: Fault = Fault::LateAnswers { ms: 0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Cut,
    Stop,
    Kill,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_when_the_connection_broke_stays_removed() {
    items_stay_removed(Loss::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_when_the_bridge_stopped_stays_removed() {
    items_stay_removed(Loss::Stop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_when_the_bridge_was_killed_stays_removed() {
    items_stay_removed(Loss::Kill).await;
}

async fn has_link(stack: &Stack) {
    patiently("the link is back", async {
        while stack.ask("pending", "{}").await["result"] != "ok" {}
    })
    .await;
}

/// Removes one of two items of each kind. The other ones show that items are added again.
async fn items_stay_removed(loss: Loss) {
    let (mut stack, watcher) = new_stack().await;
    let control = stack.simulator.control();
    let mut dialled = control.devices();
    dialled.retain(|device| device.mode == DialMode::ServerToDevice);
    let (gone, stays) = (dialled[0].id, dialled[1].id);
    let target = |at: usize| json!({"device_id": dialled[at].id, "ip": dialled[at].ip});
    let slaves = |id: u32| json!({"device_id": id, "rs485": [9]});
    for (command, request) in [
        ("async/add", json!({"devices": [target(0), target(1)]})),
        ("accept_filter/set", json!({"device_ids": [7, 8]})),
        ("slaves/set", json!({"slaves": [slaves(gone), slaves(stays)]})),
    ] {
        let answer = stack.ask(command, &request.to_string()).await;
        assert_eq!(answer["result"], "ok", "{answer}");
    }
    let with_slaves =
        || control.slaves().iter().map(|slaves| slaves.device_id).collect::<Vec<u32>>();
    let registered = || {
        let rows = control.managed().into_iter().filter(|row| row.auto_reconnect);
        rows.map(|row| row.device_id).collect::<Vec<u32>>()
    };
    let accepted = || control.filter().device_i_ds;
    let removals: [(&str, Value, &dyn Fn() -> bool); 3] = [
        ("slaves/set", json!({"slaves": [{"device_id": gone}]}), &|| with_slaves() == [stays]),
        ("async/remove", json!({"device_id": gone}), &|| registered() == [stays]),
        ("accept_filter/remove", json!({"device_id": 7}), &|| accepted() == [8]),
    ];
    for (command, request, is_done) in removals {
        control.apply_fault(&LATE);
        let (topic, request) = (format!("gsdk/lobby/request/{command}"), request.to_string());
        watcher.clear();
        publish(stack.broker.port, &["-t", &topic, "-m", &request]);
        eventually("the gateway has done it", || is_done().then_some(())).await;
        // A change that ends while it waits changes nothing of what is stored.
        let waiting = json!({"device_id": 99, "timeout_s": 0.2}).to_string();
        let refused = stack.ask("accept_filter/add", &waiting).await;
        assert_eq!(refusal(&refused).0, "expired", "{refused}");
        match loss {
            Loss::Cut => {
                control.apply_fault(&Fault::CutConnections);
                let topic = format!("gsdk/lobby/response/{command}");
                let answer = watcher.see(command, |seen| seen.topic == topic).await.json();
                let (code, message) = refusal(&answer);
                assert_eq!(code, "unavailable", "{answer}");
                assert!(!message.contains("nothing was changed"), "{answer}");
            }
            Loss::Stop => assert_eq!(stack.bridge.terminate().await.0.code(), Some(0)),
            Loss::Kill => stack.bridge.kill(),
        }
        control.apply_fault(&IN_TIME);
        if loss != Loss::Cut {
            stack.bridge.restart();
            let topic = "gsdk/bridge/event/command_interrupted";
            let reported = watcher.see(topic, |seen| seen.topic == topic).await.json();
            assert_eq!(
                (&reported["gateway"], &reported["command"]),
                (&json!("lobby"), &json!(command))
            );
            assert_eq!(reported["steps"], json!([]), "{reported}");
            stack.is_listening().await;
        }
        has_link(&stack).await;
    }
    restart(&stack).await;
    assert_eq!((with_slaves(), registered(), accepted()), (vec![stays], vec![stays], vec![8]));
}

/// The same of a step: the device dials the gateway, and its registration is removed last.
#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_a_step_removed_without_an_answer_stays_removed() {
    let (stack, watcher) = new_stack().await;
    let control = stack.simulator.control();
    let device = control.devices()[0].clone();
    let row = || control.managed().into_iter().find(|row| row.device_id == device.id);
    let add = json!({"devices": [{"device_id": device.id, "ip": device.ip}]});
    assert_eq!(stack.ask("async/add", &add.to_string()).await["result"], "ok");
    eventually("it is connected", || row().filter(|row| row.status > 0)).await;
    let request = json!({"device_id": device.id, "mode": "device_to_server"}).to_string();
    publish(stack.broker.port, &["-t", "gsdk/lobby/request/mode/set", "-m", &request]);
    let mode = || control.devices()[0].mode;
    eventually("it is changed", || (mode() == DialMode::DeviceToServer).then_some(())).await;
    control.apply_fault(&LATE);
    eventually("its registration is removed", || {
        row().is_none_or(|row| !row.auto_reconnect).then_some(())
    })
    .await;
    control.apply_fault(&Fault::CutConnections);
    control.apply_fault(&IN_TIME);
    let topic = "gsdk/lobby/response/mode/set";
    let answer = watcher.see(topic, |seen| seen.topic == topic).await.json();
    assert_eq!(refusal(&answer).0, "unavailable", "{answer}");
    has_link(&stack).await;
    restart(&stack).await;
    eventually("it dials the gateway", || row().filter(|row| row.status > 0)).await;
    assert!(!row().unwrap().auto_reconnect, "it is accepted, and not registered");
}
