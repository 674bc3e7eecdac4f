//! Tests of the request parser: what is read, and that every refusal says what to do.

use proptest::prelude::*;

use super::*;
use crate::commands::{BridgeCommand, Command, FailureCode, ModeOrSsl, read_history};
use crate::ids::{CommandName as Name, CommandScope, Moment};

fn refusal(name: Name, payload: &str) -> String {
    let refused = Command::read_request(name, payload.as_bytes()).expect_err(payload);
    assert_eq!(refused.failure.code, FailureCode::InvalidRequest, "{payload}");
    refused.failure.message
}

#[test]
fn requests_are_read() {
    let read = |name, payload: &str| Command::read_request(name, payload.as_bytes()).unwrap();
    assert_eq!(read(Name::Devices, "").command, Command::Devices);
    let search = read(Name::Search, r#"{"wait_s":2.5,"transaction":7,"timeout_s":30}"#);
    assert_eq!(search.command, Command::Search { wait: Duration::from_millis(2500) });
    assert_eq!(search.transaction.unwrap().to_string(), "7");
    assert_eq!(search.timeout, Some(Duration::from_secs(30)));
    let one = read(Name::Disconnect, r#"{"device_id":7,"requested_by":"Ann"}"#);
    let many = read(Name::Disconnect, r#"{"device_ids":[7,7]}"#);
    assert_eq!(one.command, many.command);
    assert_eq!(one.requested_by.as_deref(), Some("Ann"));
    let connect = read(Name::Connect, r#"{"ip":"10.0.0.1","ssl":true}"#);
    let target = crate::gsdk::Target { ip: [10, 0, 0, 1].into(), port: 51_211, ssl: true };
    assert_eq!(connect.command, Command::Connect(target));
    let mode = read(Name::ModeSet, r#"{"device_id":7,"mode":"Device_To_Server","apply":false}"#);
    let Command::Set { setting, apply, .. } = mode.command else { panic!("{mode:?}") };
    assert_eq!((setting, apply), (ModeOrSsl::Mode(crate::fleet::Mode::DeviceToServer), false));
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
        (Name::Devices, r#"{"wait_s":5}"#, "wait_s: unknown field `wait_s`"),
        (Name::Devices, r#"{"transaction":[]}"#, "transaction"),
        (Name::Devices, r#"{"timeout_s":0}"#, "timeout_s: invalid value: 0"),
        (Name::Devices, r#"{"timeout_s":1e9}"#, "timeout_s"),
        (Name::Search, r#"{"wait_s":"5"}"#, "wait_s: invalid value: \"5\""),
        (Name::Search, r#"{"wait_s":5,"timeout_s":5}"#, "raise timeout_s"),
        (Name::Search, r#"{"wait_s":-1}"#, "from 0.1 to 60"),
        (Name::Disconnect, "{}", "device_ids is missing"),
        (Name::Disconnect, r#"{"device_ids":[]}"#, "device_ids is empty"),
        (Name::Disconnect, r#"{"device_ids":[1,0]}"#, "device_ids[1]: invalid value: integer `0`"),
        (
            Name::Disconnect,
            r#"{"device_ids":[4294967296]}"#,
            "device_ids[0]: invalid value: integer `4294967296`",
        ),
        (
            Name::Disconnect,
            r#"{"device_ids":[1.5]}"#,
            "device_ids[0]: invalid type: floating point `1.5`",
        ),
        (
            Name::Disconnect,
            r#"{"device_id":"7"}"#,
            "device_id: invalid type: string \"7\", expected a device ID",
        ),
        (Name::Disconnect, r#"{"device_id":7,"device_ids":[7]}"#, "keep one"),
        (Name::Disconnect, &deep, "recursion limit"),
        (Name::Disconnect, &thousands, "at most 1000"),
        (Name::Connect, "{}", "missing field `ip`"),
        (Name::Connect, r#"{"ip":"fd00::1"}"#, "IPv4"),
        (Name::Connect, r#"{"ip":"reader.lan"}"#, "IPv4"),
        (Name::Connect, r#"{"ip":"0.0.0.0"}"#, "IPv4"),
        (Name::Connect, r#"{"ip":"10.0.0.1","port":65536}"#, "port: invalid value: 65536"),
        (Name::Connect, r#"{"ip":"10.0.0.1","port":0}"#, "from 1 to 65535"),
        (Name::Connect, r#"{"ip":"10.0.0.1","ssl":1}"#, "ssl: invalid type: integer `1`"),
        (Name::AsyncAdd, r#"{"devices":[]}"#, "devices is empty"),
        (
            Name::AsyncAdd,
            r#"{"devices":[7]}"#,
            "devices[0]: invalid type: integer `7`, expected an object",
        ),
        (Name::AsyncAdd, r#"{"devices":[{"device_id":7}]}"#, "devices[0]: missing field `ip`"),
        (Name::AsyncAdd, r#"{"devices":[{"device_id":7,"ip":"10.0.0.1","x":1}]}"#, "devices[0]"),
        (Name::FilterSet, "{}", "allow_all or device_ids"),
        (
            Name::FilterSet,
            r#"{"allow_all":true,"ips":["10.0.0.1"]}"#,
            "ips: gateways do not support",
        ),
        (Name::FilterAllowAll, "{}", "missing field `enabled`"),
        (Name::ModeSet, r#"{"device_id":7}"#, "missing field `mode`"),
        (Name::ModeSet, r#"{"device_id":7,"mode":"unknown_0x9"}"#, "mode: invalid"),
        (Name::SslEnable, r#"{"device_id":7,"apply":"no"}"#, "apply: invalid"),
        (Name::SlavesSet, r#"{"slaves":[{"device_id":7,"rs485":[0]}]}"#, "slaves[0].rs485[0]"),
        (Name::SlavesSet, r#"{"slaves":[{"device_id":7},{"device_id":7}]}"#, "named twice"),
    ] {
        let message = refusal(name, payload);
        assert!(message.contains(words), "{payload}: {message}");
    }
    let message = refusal(Name::Devices, r#"{"":1}"#);
    assert!(message.starts_with("unknown field ``"), "{message}");
    let refused = Command::read_request(Name::Devices, b"\xff\xfe").unwrap_err();
    assert!(refused.failure.message.contains("UTF-8"), "{refused:?}");
}

#[test]
fn nothing_is_given_twice() {
    for (name, payload, words) in [
        (Name::Devices, r#"{"transaction":1,"transaction":1}"#, "`transaction` is given twice"),
        (Name::Disconnect, r#"{"device_id":1,"device_id":2}"#, "keep one of them"),
        (Name::SlavesSet, r#"{"slaves":[{"device_id":7,"rs485":[7]}]}"#, "device 7 is named twice"),
        (Name::SlavesSet, r#"{"slaves":[{"device_id":7,"wiegand":[1,1]}]}"#, "named twice"),
        (Name::SlavesSet, r#"{"slaves":[{"device_id":7,"rs485":[1],"wiegand":[1]}]}"#, "twice"),
    ] {
        let message = refusal(name, payload);
        assert!(message.contains(words), "{payload}: {message}");
    }
}

#[test]
fn an_array_is_no_object() {
    for (name, payload, words) in [
        (
            Name::AsyncAdd,
            r#"{"devices":[{"device_id":7,"ip":"10.0.0.1"},[8,"10.0.0.1",51211,false]]}"#,
            "devices[1]: invalid type: sequence, expected an object in braces",
        ),
        (Name::SlavesSet, r#"{"slaves":[[7,[8],[]]]}"#, "slaves[0]: invalid type: sequence"),
        (
            Name::Disconnect,
            r#"{"device_ids":[[7]]}"#,
            "device_ids[0]: invalid type: sequence, expected a device ID",
        ),
    ] {
        let message = refusal(name, payload);
        assert!(message.starts_with(words), "{payload}: {message}");
        assert!(message.ends_with(name.example()), "{message}");
    }
}

#[test]
fn every_example_is_accepted_and_every_refusal_ends_with_one() {
    for &name in Name::ALL {
        let (example, scope) = (name.example().as_bytes(), name.scope());
        let refused = match scope {
            CommandScope::Gateway => Command::read_request(name, example).err(),
            CommandScope::Bridge => BridgeCommand::read_request(name, example).err(),
            CommandScope::Both => {
                let (zone, now) = (jiff::tz::TimeZone::UTC, Moment::from_millis(0));
                read_history(example, &zone, now).err()
            }
        };
        assert_eq!(refused, None, "{name}");
    }
    let message = refusal(Name::Connect, "{}");
    assert!(message.ends_with(Name::Connect.example()), "{message}");
}

#[test]
fn a_refusal_quotes_no_long_and_no_unprintable_text() {
    let long = format!("{{\"{}\":1}}", "x".repeat(50_000));
    assert!(refusal(Name::Devices, &long).len() < 1_000);
    let message = refusal(Name::Devices, "{\"a\\nb\":1}");
    assert!(!message.contains('\n'), "{message}");
}

#[test]
fn a_refused_request_keeps_its_transaction() {
    let refused =
        Command::read_request(Name::Connect, br#"{"transaction":"t","ip":1}"#).unwrap_err();
    assert_eq!(refused.transaction.unwrap().to_string(), "\"t\"");
    for (sent, read) in [
        (r#"{"transaction":"t","any":1}"#, Some("\"t\"")),
        (r#"{"transaction":12345678901234567890123}"#, Some("12345678901234567890123")),
        (r#"{"transaction":1.50}"#, Some("1.50")),
        (r#"{"transaction":1e2}"#, Some("1e2")),
        (r#"{"transaction":1,"transaction":2}"#, None),
        (r#"{"transaction":null}"#, None),
        (r#"{"transaction":true}"#, None),
        ("?", None),
    ] {
        let transaction = transaction_of(sent.as_bytes()).map(|it| it.to_string());
        assert_eq!(transaction.as_deref(), read, "{sent}");
    }
    let digits = |count: usize| format!("{{\"transaction\":{}}}", "7".repeat(count));
    assert!(transaction_of(digits(256).as_bytes()).is_some());
    assert!(transaction_of(digits(257).as_bytes()).is_none());
}

/// The number of inputs for the parser; `make nightly` sets a million.
const CASES_VARIABLE: &str = "GSDK2MQTT_FUZZ_CASES";
const CASES_DEFAULT: u32 = 2_000;

fn cases() -> ProptestConfig {
    let cases = std::env::var(CASES_VARIABLE);
    ProptestConfig::with_cases(cases.map_or(CASES_DEFAULT, |cases| cases.parse().unwrap()))
}

/// Requests that can be read, one for each shape of a command.
const GOOD: &[&str] = &[
    r#"{"transaction":"42","timeout_s":30.5,"requested_by":"Ann"}"#,
    r#"{"transaction":7,"wait_s":2.5}"#,
    r#"{"ip":"192.168.0.104","port":51211,"ssl":true}"#,
    r#"{"device_ids":[544114231,4294967295]}"#,
    r#"{"device_id":7,"mode":"device_to_server","apply":false}"#,
    r#"{"devices":[{"device_id":7,"ip":"10.0.0.1","port":1,"ssl":false},{"device_id":8}]}"#,
    r#"{"allow_all":true,"device_ids":[]}"#,
    r#"{"enabled":false}"#,
    r#"{"slaves":[{"device_id":7,"rs485":[8,9],"wiegand":[]}]}"#,
];
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
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
    "-0.0",
    "7",
    "4294967296",
    "18446744073709551616",
    "null",
    "true",
    "\"10.0.0.1\"",
    "\"::1\"",
    " ",
    "\u{0}",
    "\u{feff}",
    "\u{202e}",
];

/// JSON-like bytes: what a parser has more trouble with than with noise.
fn tokens() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(proptest::sample::select(WORDS), 0..40)
        .prop_map(|words| words.concat().into_bytes())
}

/// A good request, cut, doubled and written over in some places.
fn almost() -> impl Strategy<Value = Vec<u8>> {
    let place = any::<proptest::sample::Index>();
    let change = (place, 0..12_usize, proptest::sample::select(WORDS), any::<Option<u8>>());
    let changes = proptest::collection::vec(change, 0..4);
    (proptest::sample::select(GOOD), changes).prop_map(|(good, changes)| {
        let mut bytes = good.as_bytes().to_vec();
        for (place, length, word, byte) in changes {
            let from = place.index(bytes.len() + 1);
            let until = (from + length).min(bytes.len());
            let new = byte.map_or_else(|| word.as_bytes().to_vec(), |byte| vec![byte]);
            bytes.splice(from..until, new);
        }
        bytes
    })
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => proptest::collection::vec(any::<u8>(), 0..200),
        2 => tokens(),
        3 => almost(),
    ]
}

proptest! {
    #![proptest_config(cases())]

    /// Whatever comes is read or refused, with words, and what is read keeps its limits.
    #[test]
    fn no_bytes_break_the_parser(
        payload in payloads(),
        name in proptest::sample::select(Name::ALL),
    ) {
        let read = Command::read_request(name, &payload);
        prop_assert_eq!(&read, &Command::read_request(name, &payload), "the same twice");
        let own = BridgeCommand::read_request(Name::Forget, &payload);
        for failure in [read.as_ref().err(), own.as_ref().err()].into_iter().flatten() {
            prop_assert!((1..1_000).contains(&failure.failure.message.len()), "{failure:?}");
        }
        let said_back = match &read {
            Ok(request) => {
                let text = request.requested_by.as_deref().unwrap_or_default();
                prop_assert!(text.chars().count() <= 64);
                prop_assert!(request.command.device_ids().len() <= 1_000);
                prop_assert!(request.timeout.is_none_or(|timeout| timeout.as_secs_f64() <= 600.0));
                &request.transaction
            }
            Err(refused) => &refused.transaction,
        };
        prop_assert_eq!(said_back, &transaction_of(&payload));
    }
}

#[test]
fn the_good_requests_of_the_fuzz_are_mostly_good() {
    let read = |payload: &&&str| {
        Name::ALL.iter().any(|name| Command::read_request(*name, payload.as_bytes()).is_ok())
    };
    assert_eq!(GOOD.iter().filter(read).count(), GOOD.len() - 1);
}
