//! Many requests at once: clients that change the same filter, gateways that hang, requests that
//! wait.

use std::cell::Cell;
use std::io::Write;
use std::time::Duration;

use gsdk2mqtt::simulator::Fault;
use serde_json::{Value, json};

use super::{ALL, Stack, refusal, rr};
use crate::harness::bounded;
use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Watcher, publish};

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_add_to_the_filter_at_once_all_win() {
    let stack = Stack::new(3, ALL).await;
    // Long enough between reading and setting that unserialized changes would overwrite each other.
    stack.simulator.control().apply_fault(&Fault::latency(Duration::from_millis(50)));
    let mut clients = tokio::task::JoinSet::new();
    for id in 1..=8 {
        let (port, request) = (stack.broker.port, json!({"device_id": id}).to_string());
        clients.spawn(async move {
            rr(port, &["-t", "gsdk/lobby/request/accept_filter/add", "-m", &request], "20").await
        });
    }
    for answer in clients.join_all().await {
        let answer = answer.expect("each is answered");
        assert_eq!(answer["result"], "ok", "{answer}");
    }
    let filter = stack.simulator.control().filter().device_i_ds;
    assert_eq!(filter, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_hangs_delays_neither_events_nor_another_gateway() {
    let broker = Mosquitto::start("").await;
    let (lobby, annex) = (crate::harness::simulator(3).await, crate::harness::simulator(3).await);
    let setup = Setup::new(broker.port, "").lines(ALL);
    let bridge = setup.gateway("lobby", &lobby, "").gateway("annex", &annex, "").start();
    bridge.is_ready().await;
    let watcher = Watcher::start(broker.port).await;
    watcher.see_text("gsdk/bridge/state", "online").await;
    let stack = Stack { broker, simulator: lobby, bridge };
    stack.is_listening().await;
    stack.simulator.control().apply_fault(&Fault::Freeze { on: true });
    let hung = tokio::spawn({
        let port = stack.broker.port;
        async move { rr(port, &["-t", "gsdk/lobby/request/disconnect_all", "-n"], "20").await }
    });
    let device = annex.control().managed()[0].device_id;
    annex.control().apply_fault(&Fault::Drop { devices: device.into() });
    let topic = format!("gsdk/annex/{device}/event/disconnected");
    watcher.see("the other gateway's event", |seen| seen.topic == topic).await;
    assert_eq!(stack.ask_of("annex", "devices", "{}").await["result"], "ok");
    assert_eq!(stack.ask_of("annex", "disconnect_all", "{}").await["result"], "ok");
    assert!(!hung.is_finished(), "the hung one waits all this time");
    stack.simulator.control().apply_fault(&Fault::Freeze { on: false });
    let answer = hung.await.unwrap().expect("it is answered in the end");
    assert_eq!(answer["command"], "disconnect_all", "{answer}");
}

/// Waits until the gateway was called to set its accept filter.
async fn first_runs(stack: &Stack) {
    let control = stack.simulator.control();
    crate::harness::eventually("the first one runs", || {
        control.calls().contains_key("SetAcceptFilter").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_too_long_is_not_run() {
    let stack = Stack::new(3, ALL).await;
    let control = stack.simulator.control();
    control.apply_fault(&Fault::latency(Duration::from_millis(1_500)));
    let has_ended = Cell::new(false);
    let first = async {
        let answer = stack.ask("accept_filter/add", r#"{"device_id":7}"#).await;
        has_ended.set(true);
        answer
    };
    let late = async {
        first_runs(&stack).await;
        let topic = "gsdk/lobby/request/disconnect_all";
        let expiry = ["-D", "publish", "message-expiry-interval", "1"];
        let args = [&["-t", topic, "-n"][..], &expiry].concat();
        let expired = stack.rr(&args, "20");
        let impatient = async {
            let answer = stack.ask("disconnect_all", r#"{"timeout_s":0.5}"#).await;
            assert!(!has_ended.get(), "it is answered at its deadline");
            answer
        };
        let beside = stack.ask("pending", "{}");
        tokio::join!(expired, impatient, beside)
    };
    let (first, (expired, impatient, beside)) = tokio::join!(first, late);
    assert_eq!(first["result"], "ok", "{first}");
    assert_eq!(refusal(&expired.unwrap()).0, "expired");
    let (code, message) = refusal(&impatient);
    assert_eq!(code, "expired", "timeout would mean an unknown outcome");
    assert!(message.contains("timeout_s") && message.contains("nothing was done"), "{message}");
    assert_eq!(beside["result"], "ok");
    assert!(beside["duration_s"].as_f64().unwrap() < 3.0, "{beside}");
    assert_eq!(control.calls().get("DisconnectAll"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_without_an_answer_is_reported_as_unknown() {
    let stack = Stack::new(3, ALL).await;
    let control = stack.simulator.control();
    let id = control.managed()[0].device_id;
    control.apply_fault(&Fault::latency(Duration::from_millis(700)));
    let request = json!({"device_ids": [id], "timeout_s": 1}).to_string();
    let answer = stack.ask("disconnect", &request).await;
    assert_eq!(refusal(&answer).0, "timeout");
    let looked = &answer["data"]["steps"][0];
    assert_eq!((&looked["device_id"], &looked["step"]), (&json!(id), &json!("looked")), "{answer}");

    // The state that the command changes is read.
    let ip = control.devices()[0].ip;
    let add = json!({"device_id": 7});
    let slaves = json!({"slaves": [{"device_id": id, "rs485": [7]}]});
    let at = format!("list has it at {ip}: tcp_connected");
    // With 1 s, the first of two calls is answered, which only reads.
    for (command, mut request, timeout_s, device, words) in [
        ("accept_filter/add", add.clone(), 1.0, json!(7), "accept filter does not name it"),
        ("accept_filter/set", json!({"allow_all": true}), 1.0, Value::Null, "has allow_all false"),
        ("accept_filter/allow_all", json!({"enabled": true}), 1.0, Value::Null, "allow_all false"),
        ("slaves/set", slaves, 0.5, json!(id), "slaves"),
        ("connect", json!({"ip": ip}), 0.5, json!(id), &at),
        ("connect", json!({"ip": "192.168.7.7"}), 0.5, Value::Null, "no device at 192.168.7.7"),
        ("disconnect_all", json!({}), 1.0, Value::Null, "of the 3 devices in the gateway's list"),
    ] {
        request["timeout_s"] = json!(timeout_s);
        let answer = stack.ask(command, &request.to_string()).await;
        assert_eq!(refusal(&answer).0, "timeout", "{answer}");
        let [looked] = answer["data"]["steps"].as_array().unwrap().as_slice() else {
            panic!("{answer}")
        };
        assert_eq!(
            (&looked["device_id"], &looked["step"]),
            (&device, &json!("looked")),
            "{answer}"
        );
        assert!(looked["message"].as_str().unwrap().contains(words), "{words}: {answer}");
    }

    // Where nothing was changed, nothing is read after `timeout_s`.
    let mut request = add;
    request["timeout_s"] = json!(0.5);
    let answer = stack.ask("accept_filter/add", &request.to_string()).await;
    let (code, message) = refusal(&answer);
    assert!(code == "timeout" && message.ends_with("nothing was changed"), "{answer}");
    assert_eq!(answer["data"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_not_bound_by_the_expiry_of_the_first() {
    let stack = Stack::new(3, ALL).await;
    let watcher = Watcher::start(stack.broker.port).await;
    let control = stack.simulator.control();
    control.apply_fault(&Fault::latency(Duration::from_millis(1_500)));
    let first = stack.ask("accept_filter/add", r#"{"device_id":7}"#);
    let late = async {
        first_runs(&stack).await;
        let topic = "gsdk/lobby/request/disconnect_all";
        let request = ["-t", topic, "-m", r#"{"transaction":"w"}"#];
        let expiry = ["-V", "5", "-D", "publish", "message-expiry-interval", "1"];
        publish(stack.broker.port, &[&request[..], &expiry].concat());
        tokio::join!(stack.rr(&request, "20"), stack.rr(&request, "20"))
    };
    let (_, (second, third)) = tokio::join!(first, late);
    let topic = "gsdk/lobby/response/disconnect_all";
    let expired = watcher.see("the first is answered", |seen| seen.topic == topic).await;
    assert_eq!(refusal(&expired.json()).0, "expired");
    let answers = [second.unwrap(), third.unwrap()];
    assert!(answers.iter().all(|answer| answer["result"] == "ok"), "{answers:?}");
    let replayed = answers.iter().filter(|answer| answer["replayed"] == true).count();
    assert_eq!((replayed, control.calls()["DisconnectAll"]), (1, 1));
}

/// Aim: a slow call delays no other request, and the pool is bounded. Method: searches that last
/// longer than the test, more of them than there are slots.
#[tokio::test(flavor = "multi_thread")]
async fn searches_delay_no_other_and_have_few_places() {
    let stack = Stack::new(3, ALL).await;
    let watcher = Watcher::start(stack.broker.port).await;
    let control = stack.simulator.control();
    publish_lines(stack.broker.port, "search", &"{\"wait_s\":60}\n".repeat(64));
    let refused = || {
        let all = watcher.all().into_iter();
        let answers = all.filter(|seen| seen.topic == "gsdk/lobby/response/search");
        answers.map(|seen| seen.json()).collect::<Vec<_>>()
    };
    crate::harness::eventually("two run, four wait", || (refused().len() == 58).then_some(()))
        .await;
    for answer in refused() {
        let (code, message) = refusal(&answer);
        assert_eq!(code, "rate_limited");
        assert!(message.contains("6 searches of this gateway run or wait"), "{message}");
    }
    for command in ["devices", "pending", "disconnect_all"] {
        assert_eq!(stack.ask(command, "{}").await["result"], "ok", "{command}");
    }
    let device = control.managed()[0].device_id;
    control.apply_fault(&Fault::Drop { devices: device.into() });
    let topic = format!("gsdk/lobby/{device}/event/disconnected");
    watcher.see("an event meanwhile", |seen| seen.topic == topic).await;
    assert_eq!(control.calls()["SearchDevice"], 2);
    assert_eq!(refused().len(), 58, "all this time they search");
}

/// Many calls that hang at a gateway whose stream continues.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_hang_delay_no_event_of_their_gateway_and_no_answer_from_the_door() {
    let stack = Stack::new(3, ALL).await;
    let watcher = Watcher::start(stack.broker.port).await;
    let control = stack.simulator.control();
    control.apply_fault(&Fault::latency(Duration::from_secs(60)));
    publish_lines(stack.broker.port, "disconnect_all", &"{}\n".repeat(33));
    let answers = || {
        let all = watcher.all().into_iter();
        all.filter(|seen| seen.topic == "gsdk/lobby/response/disconnect_all").collect::<Vec<_>>()
    };
    let one_too_many = crate::harness::eventually("one is refused", || answers().pop()).await;
    assert!(refusal(&one_too_many.json()).1.contains("32 changes"), "{one_too_many:?}");
    let device = control.managed()[0].device_id;
    control.apply_fault(&Fault::Drop { devices: device.into() });
    let topic = format!("gsdk/lobby/{device}/event/disconnected");
    watcher.see("an event meanwhile", |seen| seen.topic == topic).await;
    assert_eq!(answers().len(), 1, "all this time they hang");
}

/// The changes of a gateway are made in the order of arrival, so that the last one counts.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_wait_run_in_the_order_of_arrival() {
    let stack = Stack::new(3, ALL).await;
    let watcher = Watcher::start(stack.broker.port).await;
    for round in 0..5 {
        watcher.clear();
        let line = |number: u32| {
            json!({"enabled": number.is_multiple_of(2), "transaction": round * 100 + number})
                .to_string()
                + "\n"
        };
        let lines: String = (0..30).map(line).collect();
        publish_lines(stack.broker.port, "accept_filter/allow_all", &lines);
        let answers = || {
            let all = watcher.all().into_iter();
            let topic = "gsdk/lobby/response/accept_filter/allow_all";
            let answers = all.filter(|seen| seen.topic == topic).map(|seen| seen.json());
            answers.collect::<Vec<Value>>()
        };
        crate::harness::eventually("all are answered", || (answers().len() == 30).then_some(()))
            .await;
        for (number, answer) in (round * 100..).zip(answers()) {
            assert_eq!((&answer["transaction"], &answer["result"]), (&json!(number), &json!("ok")));
        }
        assert!(!stack.simulator.control().filter().allow_all, "the last one counts");
    }
}

/// A request to the lobby for each line.
fn publish_lines(port: u16, command: &str, lines: &str) {
    let topic = format!("gsdk/lobby/request/{command}");
    let mut publisher = bounded("mosquitto_pub")
        .args(["-V", "5", "-q", "1", "-l", "-t", &topic, "-p", &port.to_string()])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = publisher.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    assert!(publisher.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_answered_to_the_last_and_delays_no_event() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let simulator = crate::harness::simulator(3).await;
    let stack = Stack::with(broker, simulator, "[commands]\nrate = \"20/s\"\n", "").await;
    let watcher = Watcher::start(stack.broker.port).await;
    let count = 10_000;
    let lines = "{}\n".repeat(count);
    let port = stack.broker.port.to_string();
    let mut flood = bounded("mosquitto_pub")
        .args(["-q", "1", "-l", "-t", "gsdk/lobby/request/devices", "-p", &port])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(flood.stdin.as_mut().unwrap(), lines.as_bytes()).unwrap();
    drop(flood.stdin.take());
    let device = stack.simulator.control().managed()[0].device_id;
    stack.simulator.control().apply_fault(&Fault::Drop { devices: device.into() });
    let topic = format!("gsdk/lobby/{device}/event/disconnected");
    watcher.see("an event amid the flood", |seen| seen.topic == topic).await;
    // It disconnects while its last requests are in flight.
    tokio::task::spawn_blocking(move || flood.wait().unwrap()).await.unwrap();
    let is_answer =
        |seen: &&crate::harness::watcher::Seen| seen.topic == "gsdk/lobby/response/devices";
    let calm = || async {
        let status = format!("/proc/{}/status", stack.bridge.pid());
        let text = std::fs::read_to_string(status).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 200 << 10, "{kib} KiB");
        assert_eq!(stack.bridge.get("/healthz").await.0, 200);
    };
    crate::harness::patiently("every request is answered", async {
        loop {
            calm().await;
            let (_, metrics) = stack.bridge.get("/metrics").await;
            let series = "gsdk_commands_total{command=\"devices\"";
            let counts = metrics.lines().filter(|line| line.starts_with(series));
            let counts = counts.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>());
            let taken: usize = counts.map(Result::unwrap).sum();
            if taken > count - 100 && watcher.all().iter().filter(is_answer).count() == taken {
                return;
            }
        }
    })
    .await;
}

/// Aim: no message of the broker remains unprocessed, however many are ready at once.
/// Method: the bridge is stopped while requests arrive, so that it reads them all at once.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_arrived_while_the_bridge_was_frozen_are_all_answered() {
    const REQUESTS: usize = 500;
    let broker = Mosquitto::start("max_queued_messages 0\nmax_inflight_messages 1000").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let stack = Stack::with(broker, simulator, ALL, "").await;
    for round in 0..4 {
        stack.bridge.signal("-STOP");
        let lines = (0..REQUESTS).map(|number| format!("{{\"transaction\":{number}}}\n"));
        publish_lines(stack.broker.port, &format!("round_{round}"), &lines.collect::<String>());
        stack.bridge.signal("-CONT");
        let answers = format!("gsdk/lobby/response/round_{round}");
        crate::harness::eventually("each is answered", || {
            let answered = watcher.all().into_iter().filter(|seen| seen.topic == answers).count();
            (answered == REQUESTS).then_some(())
        })
        .await;
    }
}
