//! `/metrics` as Prometheus reads it.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;

use crate::harness::bounded;
use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Seen, Watcher};
use gsdk2mqtt::simulator::{Fault, StatusCode};

/// All metrics, except those that are absent until their value is known.
const NAMES: [&str; 43] = [
    "gsdk_build_info",
    "gsdk_corrections_total",
    "gsdk_device_connect_failures_total",
    "gsdk_device_connected",
    "gsdk_device_connected_seconds_total",
    "gsdk_device_connects_total",
    "gsdk_device_disconnects_total",
    "gsdk_device_expected",
    "gsdk_device_info",
    "gsdk_device_managed",
    "gsdk_device_observed_seconds_total",
    "gsdk_device_since_timestamp_seconds",
    "gsdk_device_status",
    "gsdk_event_delivery_seconds",
    "gsdk_gateway_audit_interval_seconds",
    "gsdk_gateway_certificate_expiry_timestamp_seconds",
    "gsdk_gateway_clock_skew_seconds",
    "gsdk_gateway_devices",
    "gsdk_gateway_info",
    "gsdk_gateway_last_list_timestamp_seconds",
    "gsdk_gateway_since_timestamp_seconds",
    "gsdk_gateway_stream_starts_total",
    "gsdk_gateway_up",
    "gsdk_history_events",
    "gsdk_history_ok",
    "gsdk_mqtt_connected",
    "gsdk_mqtt_connections_total",
    "gsdk_mqtt_publish_failures_total",
    "gsdk_mqtt_published_total",
    "gsdk_outbox_bytes",
    "gsdk_outbox_dropped_total",
    "gsdk_outbox_events",
    "gsdk_repeated_status_total",
    "gsdk_rpc_duration_seconds",
    "gsdk_rpcs_total",
    "gsdk_status_changes_total",
    "gsdk_store_ok",
    "gsdk_store_write_seconds",
    "gsdk_stranger_status_total",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

/// Those that exist after the corresponding event, or with a master.
const LATER: [&str; 5] = [
    "gsdk_commands_total",
    "gsdk_degraded",
    "gsdk_history_oldest_timestamp_seconds",
    "gsdk_master_certificate_expiry_timestamp_seconds",
    "gsdk_master_up",
];

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_wrong_and_every_name_is_there() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(3).await;
    let device = simulator.control().devices()[0].id;
    let name = format!("devices = {{ {device} = {{ name = 'the \"new\" \\ door' }} }}");
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, &name).start();
    bridge.is_ready().await;
    simulator.control().apply_fault(&Fault::Drop { devices: device.into() });
    let text = crate::harness::patiently("an event is delivered", async {
        loop {
            let (_, text) = bridge.get("/metrics").await;
            if text.contains("gsdk_mqtt_published_total{kind=\"event\"} 2") {
                return text;
            }
        }
    })
    .await;
    for name in NAMES {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing");
    }
    for reason in ["answers_full", "closes_connection", "not_authorized", "quota_exceeded"] {
        let series = format!("gsdk_mqtt_publish_failures_total{{reason=\"{reason}\"}} 0\n");
        assert!(text.contains(&series), "{series} is missing: rate() needs it before its count");
    }
    assert!(text.contains(r#"name="the \"new\" \\ door""#), "{text}");

    let mut promtool = bounded("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool must be installed (apt-get install prometheus)");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = promtool.wait_with_output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
}

/// Aim: the delivery time is that of the stream. Method: changes on the stream, one that
/// only the list shows, and the gateway's own events.
#[tokio::test(flavor = "multi_thread")]
async fn delivery_time_counts_device_events_of_the_stream_only() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let control = simulator.control();
    let bridge = Setup::new(broker.port, "")
        .gateway("lobby", &simulator, "audit_interval = \"10s\"")
        .start();
    bridge.is_ready().await;
    let devices = control.devices();
    control.apply_fault(&Fault::Drop { devices: devices[0].id.into() });
    control
        .apply_fault(&Fault::Silent { devices: devices[1].id.into(), status: StatusCode(0x203) });
    let source = |seen: &Seen| seen.json()["source"].as_str().map(str::to_owned);
    let of_audit =
        |seen: &Seen| seen.topic.contains("/event/") && source(seen).as_deref() == Some("audit");
    watcher.see("the audit finds it", of_audit).await;
    watcher.see("the gateway's event", |seen| seen.topic.ends_with("/event/corrected")).await;
    crate::harness::patiently("nothing waits", async {
        while bridge.metric("gsdk_outbox_events").await != Some(0.0) {
            tokio::time::sleep(crate::harness::LOOK_EVERY).await;
        }
    })
    .await;
    let events = watcher.all().into_iter().filter(|seen| seen.topic.contains("/event/"));
    let of_stream = events.filter(|seen| source(seen).as_deref() == Some("stream")).count();
    let counted = bridge.metric("gsdk_event_delivery_seconds_count").await.unwrap();
    assert!(of_stream > 0);
    assert!((counted - of_stream as f64).abs() < 0.5, "{counted} counted, {of_stream} reported");
}

/// More than the event loop copies in one answer.
#[tokio::test(flavor = "multi_thread")]
async fn every_device_has_its_series_however_many_there_are() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(2_001).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let (_, text) = bridge.get("/metrics").await;
    for name in NAMES.into_iter().filter(|name| name.starts_with("gsdk_device_")) {
        let start = format!("{name}{{gateway=\"lobby\",device_id=\"");
        let of = text.lines().filter_map(|line| line.strip_prefix(&start)?.split('"').next());
        let devices: Vec<&str> = of.collect();
        assert_eq!(devices.len(), 2_001, "{name}");
        assert!(devices.is_sorted_by(|one, next| one < next), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_device_series_can_be_switched_off_but_not_those_that_alerts_need() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(3).await;
    let bridge = Setup::new(broker.port, "")
        // Former names of what is always served.
        .lines("[metrics]\ndevice = [\"info\", \"state\"]\n")
        .gateway("lobby", &simulator, "")
        .start();
    bridge.is_ready().await;
    let (_, text) = bridge.get("/metrics").await;
    let of_devices = |text: &str| {
        let names =
            text.lines().filter_map(|line| line.strip_prefix("gsdk_device_")?.split('{').next());
        names.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let always = [
        "connected",
        "disconnects_total",
        "expected",
        "info",
        "managed",
        "since_timestamp_seconds",
        "status",
    ];
    assert_eq!(of_devices(&text), BTreeSet::from(always.map(str::to_owned)));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_unknown_status_codes_are_counted_together() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let device = simulator.control().devices()[0].id;
    for code in 0x1000..0x1064 {
        let status = StatusCode(code);
        simulator.control().apply_fault(&Fault::Tell { devices: device.into(), status });
    }
    let of = |text: &str, label: &str| {
        let start = format!("gsdk_status_changes_total{{gateway=\"lobby\",status=\"{label}");
        let samples = text.lines().filter(|line| line.starts_with(&start));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    crate::harness::patiently("all are counted", async {
        loop {
            let (_, text) = bridge.get("/metrics").await;
            // `unknown` is the status of a lost gateway's device, and never one of an event.
            assert!(!text.contains("status=\"unknown\""), "{text}");
            let (named, other) = (of(&text, "unknown_0x"), of(&text, "other\""));
            if named + other == 100 {
                assert!(named >= 32 && other > 0, "{named}, {other}");
                break;
            }
            tokio::time::sleep(crate::harness::LOOK_EVERY).await;
        }
    })
    .await;
}

#[test]
fn the_included_rules_fire_and_resolve() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus");
    for args in [["check", "rules", "gsdk2mqtt.rules.yml"], ["test", "rules", "gsdk2mqtt.test.yml"]]
    {
        let out = bounded("promtool").args(args).current_dir(folder).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stdout));
    }
}

/// Rules and documents name only metrics that the bridge serves.
#[test]
fn rules_and_documents_name_no_metric_that_is_not_there() {
    let known: Vec<&str> = NAMES.into_iter().chain(LATER).collect();
    for file in [
        "deploy/prometheus/gsdk2mqtt.rules.yml",
        "docs/alerts.md",
        "docs/metrics.md",
        "docs/recipes.md",
        "README.md",
    ] {
        let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let of_a_name = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        let names = text.split(of_a_name).filter(|word| word.starts_with("gsdk_"));
        let mut count = 0;
        for name in names {
            assert!(known.contains(&name), "{file} names {name}");
            count += 1;
        }
        assert!(count > 0, "{file} names no metric at all");
    }
}
