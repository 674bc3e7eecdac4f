//! Wrong requests: each is answered, and the bridge is not affected.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{ALL, Stack, refusal};
use crate::harness::watcher::{Watcher, publish};
use crate::harness::{bounded, eventually, unique};

/// The response to any bytes on any topic, with its correlation data. (mosquitto_rr
/// does not send the content of a file.)
async fn ask_with(
    stack: &Stack,
    topic: &str,
    payload: &[u8],
    correlation: &str,
) -> (String, Value) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("payload");
    std::fs::write(&file, payload).unwrap();
    let reply = unique("gsdk-reply/tests");
    let mut reader = bounded("mosquitto_sub")
        .args(["-V", "5", "-q", "1", "-C", "1", "-F", "%D|%p", "-t", &reply])
        .args(["-p", &stack.broker.port.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let file = file.display().to_string();
    let properties = [
        ["-D", "publish", "response-topic", &reply],
        ["-D", "publish", "correlation-data", correlation],
    ];
    let args = [&["-V", "5", "-t", topic, "-f", &file][..], properties.as_flattened()].concat();
    // Before the subscription no client would receive the response.
    eventually(&format!("{topic} is answered"), || {
        publish(stack.broker.port, &args);
        reader.try_wait().unwrap()
    })
    .await;
    let mut text = String::new();
    reader.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let (correlation, answer) = text.split_once('|').unwrap();
    (correlation.to_owned(), serde_json::from_str(answer).unwrap())
}

async fn ask(stack: &Stack, topic: &str, payload: &[u8]) -> Value {
    ask_with(stack, topic, payload, "x").await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_payload_is_answered_with_the_remedy() {
    let stack = Stack::new(3, ALL).await;
    let deep = format!("{{\"device_ids\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
    let ids = |count: u32| json!({"device_ids": (1..=count).collect::<Vec<_>>()}).to_string();
    let long: Vec<u32> = (u32::MAX - 100_000..u32::MAX).collect();
    let long = json!({ "device_ids": long }).to_string();
    assert!(long.len() > 1 << 20);
    let one_more = format!("{{{}}}", " ".repeat(65_535));
    for (command, payload, code, words) in [
        ("devices", &b"hello"[..], "invalid_request", "as JSON"),
        ("devices", b"7", "invalid_request", "braces"),
        ("devices", b"{\"transaction\":\"\xff\"}", "invalid_request", "not UTF-8"),
        ("devices", b"\0\0\0\0", "invalid_request", "as JSON"),
        ("devices", b"\xef\xbb\xbf{}", "invalid_request", "as JSON"),
        ("devices", br#"{"a":1}"#, "invalid_request", "a: unknown field `a`"),
        (
            "disconnect",
            br#"{"device_id":"7"}"#,
            "invalid_request",
            "device_id: invalid type: string \"7\"",
        ),
        ("disconnect", br#"{"device_ids":7}"#, "invalid_request", "device_ids: invalid type"),
        ("disconnect", br#"{"device_id":1,"device_id":2}"#, "invalid_request", "given twice"),
        (
            "async/add",
            br#"{"devices":[{"device_id":1,"ip":"10.0.0.1","ip":"10.0.0.2"}]}"#,
            "invalid_request",
            "`ip` is given twice",
        ),
        (
            "slaves/set",
            br#"{"slaves":[{"device_id":7,"rs485":[7]}]}"#,
            "invalid_request",
            "device 7 is named twice",
        ),
        ("disconnect", br#"{"device_id":0}"#, "invalid_request", "from 1 to 4294967295"),
        ("disconnect", br#"{"device_id":-1}"#, "invalid_request", "from 1 to 4294967295"),
        ("disconnect", br#"{"device_id":4294967296}"#, "invalid_request", "4294967296"),
        ("disconnect", ids(1_001).as_bytes(), "invalid_request", "at most 1000"),
        ("disconnect", ids(100_000).as_bytes(), "too_large", "commands.max_payload"),
        ("disconnect", long.as_bytes(), "too_large", "commands.max_payload"),
        ("disconnect", deep.as_bytes(), "invalid_request", "recursion limit"),
        ("search", br#"{"wait_s":1e400}"#, "invalid_request", "out of range"),
        ("search", br#"{"wait_s":61}"#, "invalid_request", "from 0.1 to 60"),
        ("connect", br#"{"ip":"fd00::1"}"#, "invalid_request", "IPv4"),
        ("connect", br#"{"ip":"10.0.0.1","port":70000}"#, "invalid_request", "1 to 65535"),
        ("devices", one_more.as_bytes(), "too_large", "65537 bytes"),
        ("reboot", b"{}", "unknown_command", "accept_filter/add"),
        ("ssl", b"{}", "unknown_command", "ssl/enable"),
        ("ssl/enable/", b"{}", "unknown_command", "ssl/enable"),
    ] {
        let answer = ask(&stack, &format!("gsdk/lobby/request/{command}"), payload).await;
        let reported = refusal(&answer);
        assert!(reported.0 == code && reported.1.contains(words), "{command}: {answer}");
    }
    let allowed = ["GetDeviceList", "GetAcceptFilter", "GetInfo", "SubscribeStatus"];
    let calls = stack.simulator.control().calls();
    assert!(calls.keys().all(|method| allowed.contains(&method.as_str())), "{calls:?}");
    assert_eq!(stack.bridge.get("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_topics_are_answered_ignored_or_stopped_by_the_broker() {
    let stack = Stack::new(3, ALL).await;
    let endless = "x".repeat(40_000);
    for topic in [
        "gsdk/lobby/request",
        "gsdk/lobby/request/",
        "gsdk/lobby/request/\u{1f6aa}",
        &format!("gsdk/lobby/request/{endless}"),
    ] {
        let answer = ask(&stack, topic, b"{\"transaction\":5}").await;
        assert_eq!(refusal(&answer).0, "unknown_command", "{answer}");
        assert_eq!(answer["transaction"], 5, "{answer}");
        assert!(answer.to_string().len() < 2_000, "{answer}");
    }
    let series =
        "gsdk_commands_total{command=\"unknown\",gateway=\"lobby\",result=\"unknown_command\"}";
    assert!(stack.bridge.metric(series).await.unwrap() >= 4.0, "{series}");
    let watcher = Watcher::start(stack.broker.port).await;
    for owner in ["unknown", "bridgehead", "T\u{fc}r 1", "", "\u{202e}", &endless] {
        publish(stack.broker.port, &["-t", &format!("gsdk/{owner}/request/devices"), "-m", "{}"]);
    }
    // Its response is later than theirs would be.
    assert_eq!(stack.ask("devices", "{}").await["result"], "ok");
    let answer = watcher.find(|seen| seen.topic.contains("/response/"));
    assert!(answer.is_none(), "no bridge has these gateways: {answer:?}");
    // A topic that is not UTF-8: this broker ends the connection, and the message is not delivered.
    let mut socket = TcpStream::connect(("127.0.0.1", stack.broker.port)).unwrap();
    socket.write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01z").unwrap();
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0], "CONNACK");
    let topic = b"gsdk/lobby/request/\xff\xfe";
    let mut publish = vec![0x30, u8::try_from(topic.len() + 4).unwrap()];
    publish.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    publish.extend(topic);
    publish.extend(b"{}");
    socket.write_all(&publish).unwrap();
    // Closed at once or, with bytes of ours unread, reset.
    assert!(matches!(socket.read(&mut answer), Ok(0) | Err(_)));
    assert_eq!(stack.ask("devices", "{}").await["result"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn correlation_data_is_returned_unchanged() {
    let stack = Stack::new(3, "").await;
    for (topic, result) in [("gsdk/lobby/request/pending", "ok"), ("gsdk/lobby/request/x", "error")]
    {
        let (correlation, answer) = ask_with(&stack, topic, b"{}", "a-7 \u{e9}").await;
        assert_eq!((correlation.as_str(), &answer["result"]), ("a-7 \u{e9}", &json!(result)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_as_large_as_permitted_is_read() {
    let stack = Stack::new(3, "[commands]\nmax_payload = \"1MiB\"\n").await;
    let request = |bytes: usize| format!("{{{}}}", " ".repeat(bytes - 2)).into_bytes();
    let topic = "gsdk/lobby/request/devices";
    assert_eq!(ask(&stack, topic, &request(1 << 20)).await["result"], "ok");
    assert_eq!(refusal(&ask(&stack, topic, &request((1 << 20) + 1)).await).0, "too_large");
}
