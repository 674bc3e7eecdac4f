//! Tests of the request parser: what is read, and that every refusal says what to do.
//!
//! May not need a gateway.

use proptest::prelude::*;

use super::*;
use crate::commands::code;

fn refusal(name: Name, payload: &str) -> String {
    let refused = Request::read(name, payload.as_bytes()).expect_err(payload);
    assert_eq!(refused.failure.code, code::INVALID_REQUEST, "{payload}");
    refused.failure.message
}

#[test]
fn requests_are_read() {
    let read = |name, payload: &str| Request::read(name, payload.as_bytes()).unwrap();
    assert_eq!(read(Name::Devices, "").command, Command::Devices);
    let search = read(Name::Search, r#"{"wait_s":2.5,"transaction":7,"timeout_s":30}"#);
    assert_eq!(search.command, Command::Search { wait: Duration::from_millis(2500) });
    assert_eq!(search.transaction, Some(Value::from(7)));
    assert_eq!(search.timeout, Some(Duration::from_secs(30)));
    let one = read(Name::Disconnect, r#"{"device_id":7,"requested_by":"Ann"}"#);
    let many = read(Name::Disconnect, r#"{"device_ids":[7,7]}"#);
    assert_eq!(one.command, many.command);
    assert_eq!(one.requested_by.as_deref(), Some("Ann"));
    let connect = read(Name::Connect, r#"{"ip":"10.0.0.1","ssl":true}"#);
    let target = crate::gateway::Target { ip: [10, 0, 0, 1].into(), port: 51_211, ssl: true };
    assert_eq!(connect.command, Command::Connect(target));
    let mode = read(Name::ModeSet, r#"{"device_id":7,"mode":"Device_To_Server","apply":false}"#);
    let Command::ModeSet { mode, apply, .. } = mode.command else { panic!("{mode:?}") };
    assert_eq!((mode, apply), (crate::fleet::Mode::DeviceToServer, false));
}

#[test]
fn every_refusal_names_the_field_and_the_remedy() {
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let deep = format!("{{\"device_ids\":{deep}}}");
    let thousands = format!("{{\"device_ids\":[{}1]}}", "1,".repeat(1_000));
    for (name, payload, words) in [
        (Name::Devices, "nonsense", "as JSON"),
        (Name::Devices, "[]", "braces"),
        (Name::Devices, "{\"a\":", "as JSON"),
        (Name::Devices, r#"{"wait_s":5}"#, "\"wait_s\" is not known"),
        (Name::Devices, r#"{"transaction":[]}"#, "transaction"),
        (Name::Devices, r#"{"timeout_s":0}"#, "timeout_s is 0"),
        (Name::Devices, r#"{"timeout_s":1e9}"#, "timeout_s"),
        (Name::Search, r#"{"wait_s":"5"}"#, "wait_s is \"5\""),
        (Name::Search, r#"{"wait_s":5,"timeout_s":5}"#, "raise timeout_s"),
        (Name::Search, r#"{"wait_s":-1}"#, "from 0.1 to 60"),
        (Name::Disconnect, "{}", "device_ids is missing"),
        (Name::Disconnect, r#"{"device_ids":[]}"#, "device_ids is missing"),
        (Name::Disconnect, r#"{"device_ids":[1,0]}"#, "device_ids[1] is 0"),
        (Name::Disconnect, r#"{"device_ids":[4294967296]}"#, "device_ids[0] is 4294967296"),
        (Name::Disconnect, r#"{"device_ids":[1.5]}"#, "device_ids[0] is 1.5"),
        (Name::Disconnect, r#"{"device_id":"7"}"#, "device_id is \"7\""),
        (Name::Disconnect, r#"{"device_id":7,"device_ids":[7]}"#, "keep one"),
        (Name::Disconnect, &deep, "recursion limit"),
        (Name::Disconnect, &thousands, "at most 1000"),
        (Name::Connect, "{}", "ip is missing"),
        (Name::Connect, r#"{"ip":"fd00::1"}"#, "IPv4"),
        (Name::Connect, r#"{"ip":"reader.lan"}"#, "IPv4"),
        (Name::Connect, r#"{"ip":"0.0.0.0"}"#, "IPv4"),
        (Name::Connect, r#"{"ip":"10.0.0.1","port":65536}"#, "port is 65536"),
        (Name::Connect, r#"{"ip":"10.0.0.1","port":0}"#, "from 1 to 65535"),
        (Name::Connect, r#"{"ip":"10.0.0.1","ssl":1}"#, "ssl is 1"),
        (Name::AsyncAdd, r#"{"devices":[]}"#, "devices is missing"),
        (Name::AsyncAdd, r#"{"devices":[7]}"#, "devices[0] is 7"),
        (Name::AsyncAdd, r#"{"devices":[{"device_id":7}]}"#, "devices[0].ip is missing"),
        (Name::AsyncAdd, r#"{"devices":[{"device_id":7,"ip":"10.0.0.1","x":1}]}"#, "devices[0]"),
        (Name::FilterSet, "{}", "allow_all or device_ids"),
        (Name::FilterSet, r#"{"allow_all":true,"ips":["10.0.0.1"]}"#, "do not support ips"),
        (Name::FilterAllowAll, "{}", "enabled is missing"),
        (Name::ModeSet, r#"{"device_id":7}"#, "mode is missing"),
        (Name::ModeSet, r#"{"device_id":7,"mode":"unknown_0x9"}"#, "mode is"),
        (Name::SslEnable, r#"{"device_id":7,"apply":"no"}"#, "apply is"),
        (Name::SlavesSet, r#"{"slaves":[{"device_id":7,"rs485":[0]}]}"#, "slaves[0].rs485[0]"),
        (Name::SlavesSet, r#"{"slaves":[{"device_id":7},{"device_id":7}]}"#, "named twice"),
    ] {
        let message = refusal(name, payload);
        assert!(message.contains(words), "{payload}: {message}");
    }
    let refused = Request::read(Name::Devices, b"\xff\xfe").unwrap_err();
    assert!(refused.failure.message.contains("UTF-8"), "{refused:?}");
}

#[test]
fn a_refused_request_keeps_its_transaction() {
    let refused = Request::read(Name::Connect, br#"{"transaction":"t","ip":1}"#).unwrap_err();
    assert_eq!(refused.transaction, Some(Value::from("t")));
    assert_eq!(transaction_of(br#"{"transaction":"t","any":1}"#), Some(Value::from("t")));
    assert_eq!(transaction_of(b"?"), None);
}

/// JSON-like bytes: what a parser has more trouble with than with noise.
fn tokens() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"device_ids\"",
        "\"devices\"",
        "\"ip\"",
        "\"slaves\"",
        "\"transaction\"",
        "\"timeout_s\"",
        "\"mode\"",
        "\"\\ud800\"",
        "0",
        "-1",
        "1e999",
        "7",
        "4294967296",
        "null",
        "true",
        "\"10.0.0.1\"",
        " ",
    ];
    proptest::collection::vec(proptest::sample::select(WORDS), 0..40)
        .prop_map(|words| words.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_break_the_parser(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        tokens in tokens(),
        name in proptest::sample::select(&Name::ALL[..]),
    ) {
        for payload in [noise, tokens] {
            match Request::read(name, &payload) {
                Ok(request) => prop_assert!(request.command.device_ids().len() <= 1_000),
                Err(refused) => {
                    prop_assert!(!refused.failure.message.is_empty());
                    prop_assert!(refused.failure.message.len() < 1_000);
                }
            }
        }
    }
}
