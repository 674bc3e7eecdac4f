//! The wall clock is set by an hour in both directions: published times follow, nothing else
//! changes.
//!
//! libfaketime gives one process its own clock.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{reads, ready, within};
use crate::harness::bridge::{Bridge, Setup, another_client};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Seen, Watcher};
use gsdk2mqtt::simulator::{Fault, Simulator};

const PATIENCE: Duration = Duration::from_secs(60);
const HOUR_S: f64 = 3_600.0;

pub(crate) fn library() -> String {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    let paths = folders.map(|folder| format!("{folder}/faketime/libfaketime.so.1"));
    let found = paths.into_iter().find(|path| Path::new(path).exists());
    found.expect("libfaketime must be installed (apt-get install faketime)")
}

/// A change of a device as the bridge reports it: how far `received_at` is ahead of the correct
/// time, and `duration_s`.
async fn reported(watcher: &Watcher, simulator: &Simulator) -> (f64, Option<f64>) {
    watcher.clear();
    let device = simulator.control().managed()[0].device_id;
    assert_eq!(simulator.control().apply_fault(&Fault::Drop { devices: device.into() }), 1);
    let topic = format!("gsdk/lobby/{device}/event/disconnected");
    let event = watcher.see("disconnected", |seen| seen.topic == topic).await.json();
    // And connected again, so that the next drop ends a time that was observed from its beginning.
    let topic = format!("gsdk/lobby/{device}/event/connected");
    watcher.see("connected", |seen| seen.topic == topic).await;
    (ahead_s(&event["received_at"]), event["duration_s"].as_f64())
}

fn ahead_s(shown: &Value) -> f64 {
    let shown: jiff::Timestamp = shown.as_str().unwrap().parse().unwrap();
    (shown.as_millisecond() - jiff::Timestamp::now().as_millisecond()) as f64 / 1_000.0
}

async fn observed_s(bridge: &Bridge) -> f64 {
    let (_, text) = bridge.get("/metrics").await;
    let family = "gsdk_device_observed_seconds_total{";
    let line = text.lines().find(|line| line.starts_with(family)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A bridge whose wall clock is wrong by the offset in this file.
pub(crate) fn with_clock(
    setup: Setup,
    simulator: &Simulator,
    library: &str,
    offset: &Path,
) -> Setup {
    setup
        .gateway("lobby", simulator, "audit_interval = \"10s\"")
        .environment("LD_PRELOAD", library)
        .environment("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap())
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .environment("FAKETIME_NO_CACHE", "1")
}

/// Aim: setting a clock that was decades behind makes the bridge forget nothing. Method: a
/// device leaves the list while the clock is 50 years behind, as after a start without a time
/// server; then the clock is set.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_not_forgotten_because_a_clock_that_was_decades_behind_is_set() {
    let library = library();
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let folder = tempfile::tempdir().unwrap();
    let offset = folder.path().join("offset");
    // The gateway's certificate is of today, so the link is established with the correct time.
    std::fs::write(&offset, "+0").unwrap();
    let setup = Setup::new(broker.port, "").top("forget_after = \"30d\"");
    let bridge = with_clock(setup, &simulator, &library, &offset).start();
    ready(&bridge, PATIENCE, "with a clock of its own, until ready").await;
    std::fs::write(&offset, "-18262d").unwrap();
    let ((), _) = within(PATIENCE, "clock 50 years behind: until it shows", async || {
        (reported(&watcher, &simulator).await.0 < -1e9).then_some(())
    })
    .await;
    let gone = simulator.control().devices()[2].id;
    another_client(&simulator, &["async", "remove", &gone.to_string()]);
    let left = |seen: &Seen| {
        seen.topic == format!("gsdk/lobby/{gone}/state") && seen.json()["managed"] == false
    };
    watcher.see("it has left the list", left).await;
    std::fs::write(&offset, "+0").unwrap();
    let ((), _) = within(PATIENCE, "clock set: until it shows", async || {
        (reported(&watcher, &simulator).await.0.abs() < 10.0).then_some(())
    })
    .await;
    // Two further lists: devices are forgotten when a list is read.
    let lists = "gsdk_rpcs_total{code=\"ok\",gateway=\"lobby\",method=\"GetDeviceList\"}";
    let before = bridge.metric(lists).await.unwrap();
    within(PATIENCE, "until the list was read twice more", async || {
        (bridge.metric(lists).await.unwrap() >= before + 2.0).then_some(())
    })
    .await;
    let series = format!("gsdk_device_managed{{gateway=\"lobby\",device_id=\"{gone}\"}}");
    assert_eq!(bridge.metric(&series).await, Some(0.0), "it is still known");
}

/// Aim: a clock that is far ahead when the machine starts, until it is set, removes no event.
/// Method: the bridge starts with a clock that is ahead by more than `history.keep`.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_far_ahead_at_the_start_removes_nothing_from_the_history() {
    let library = library();
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(1).await;
    let folder = tempfile::tempdir().unwrap();
    let offset = folder.path().join("offset");
    std::fs::write(&offset, "+0").unwrap();
    let setup = Setup::new(broker.port, "");
    let mut bridge = with_clock(setup, &simulator, &library, &offset).start();
    ready(&bridge, PATIENCE, "with a clock of its own, until ready").await;
    reported(&watcher, &simulator).await;
    assert!(bridge.end().await.success());
    let state_dir = bridge.state_dir();
    let ids = || -> Vec<Value> {
        let rows = super::history::events(&state_dir);
        rows.into_iter().map(|row| row.event["event_id"].clone()).collect()
    };
    let before = ids();
    std::fs::write(&offset, "+500d").unwrap();
    bridge.restart();
    // The gateway's certificate has expired by this clock.
    reads(&bridge, "gsdk_history_ok", 1.0, PATIENCE, "500 days ahead: until it is written").await;
    assert!(bridge.end().await.success());
    let after = ids();
    assert_eq!(after.get(..before.len()), Some(&before[..]), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_an_hour_is_followed() {
    let library = library();
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(1).await;
    let folder = tempfile::tempdir().unwrap();
    let offset = folder.path().join("offset");
    let set = |text: &str| std::fs::write(&offset, text).unwrap();
    set("+0");
    let setup = Setup::new(broker.port, "");
    let bridge = with_clock(setup, &simulator, &library, &offset).start();
    ready(&bridge, PATIENCE, "with a clock of its own, until ready").await;
    watcher.see_text("gsdk/bridge/state", "online").await;
    assert!(reported(&watcher, &simulator).await.0.abs() < 10.0, "the truth at first");
    let before = observed_s(&bridge).await;
    for (text, jump_s) in [("+3600", HOUR_S), ("-3600", -HOUR_S), ("+0", 0.0)] {
        set(text);
        let what = format!("clock set to {text}: until it shows");
        let ((), _) = within(PATIENCE, &what, async || {
            let (ahead, duration) = reported(&watcher, &simulator).await;
            let duration = duration.expect("seen from its beginning");
            assert!((0.0..600.0).contains(&duration), "{duration} s are no hour");
            ((ahead - jump_s).abs() < 10.0).then_some(())
        })
        .await;
        if jump_s < 0.0 {
            let degraded = "gsdk_degraded{reason=\"history_not_written\"}";
            reads(&bridge, degraded, 1.0, PATIENCE, "until availability is reported as missing")
                .await;
            let (_, body) = bridge.get("/readyz").await;
            assert!(body.contains("availability is not recorded"), "{body}");
        }
        assert!(bridge.log().contains("wall clock set or machine suspended"), "not in the log");
    }
    let observed = observed_s(&bridge).await - before;
    assert!((0.0..600.0).contains(&observed), "{observed} s observed are no hour");
    let starts = "gsdk_gateway_stream_starts_total{gateway=\"lobby\"}";
    assert_eq!(bridge.metric(starts).await, Some(1.0), "the link did not notice");
    assert_eq!(bridge.metric("gsdk_mqtt_connections_total").await, Some(1.0));
}
