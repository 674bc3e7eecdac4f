//! The state directory is removed, truncated, or unavailable for a while; and its content after
//! that.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{by_device, check_all, measured, reads, ready, within};
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::watcher::{Seen, Watcher, check_chain, retained};
use gsdk2mqtt::simulator::{Simulator, Storm};

const PATIENCE: Duration = Duration::from_secs(60);
/// Events that are lost after a report are reported a minute later.
const REPORTED_WITHIN: Duration = Duration::from_secs(90);
const AWAY: Mode = Mode { refuses: true, withholds_acks: false, delay: Duration::ZERO };

/// A bridge that has lost its broker, and changes since.
struct Outage {
    watcher: Watcher,
    proxy: Proxy,
    bridge: Bridge,
    /// They end with the test.
    others: (Mosquitto, Simulator),
}

impl Outage {
    async fn start(lines: &str, changes: u64, name: &str) -> Self {
        let broker = Mosquitto::start("max_queued_messages 0").await;
        let watcher = Watcher::start(broker.port).await;
        let proxy = Proxy::before(broker.port).await;
        let simulator = crate::harness::simulator(20).await;
        let setup = Setup::new(proxy.port, "").gateway("lobby", &simulator, "").lines(lines);
        let bridge = setup.start();
        ready(&bridge, PATIENCE, &format!("{name}: the first start")).await;
        reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, &format!("{name}: until delivered"))
            .await;
        proxy.set_mode(AWAY);
        simulator.control().storm(Storm::of(changes)).await.unwrap();
        Self { watcher, proxy, bridge, others: (broker, simulator) }
    }
}

/// The bridge's info.
fn reported(watcher: &Watcher, what: &str) -> Vec<Value> {
    let topic = format!("gsdk/bridge/event/{what}");
    let all = watcher.all();
    all.iter().filter(|seen| seen.topic == topic).map(Seen::json).collect()
}

/// Waits until it is reported.
async fn event(watcher: &Watcher, what: &str) -> Value {
    let bound = format!("until {what} is reported");
    within(PATIENCE, &bound, async || reported(watcher, what).pop()).await.0
}

/// The number of events that the bridge reported as stored for the next start.
fn kept(log: &str) -> usize {
    let said = log.split_once("stored for the next start").unwrap_or_else(|| panic!("{log}")).1;
    let number = said.split_once("events=").unwrap().1;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().unwrap()
}

/// The device events of a chain; each may be repeated, always with the same content.
fn of_chain(watcher: &Watcher, chain: &Value) -> BTreeMap<String, String> {
    let mut events = BTreeMap::new();
    for seen in watcher.all() {
        if seen.topic.contains("/event/") && seen.topic.matches('/').count() == 4 {
            let event = seen.json();
            let id = event["event_id"].as_str().unwrap().to_owned();
            if event["chain"] == *chain {
                let before = events.insert(id, seen.payload.clone());
                assert!(before.is_none_or(|before| before == seen.payload), "{}", seen.payload);
            }
        }
    }
    events
}

/// No event ID was reported with two contents.
fn check_ids(watcher: &Watcher) {
    let mut by_id: BTreeMap<String, String> = BTreeMap::new();
    for seen in watcher.all().into_iter().filter(|seen| seen.topic.contains("/event/")) {
        let id = seen.json()["event_id"].as_str().unwrap().to_owned();
        let before = by_id.insert(id, seen.payload.clone());
        assert!(before.is_none_or(|before| before == seen.payload), "{}", seen.payload);
    }
}

/// The same, and every chain is unbroken.
fn check_ids_and_chains(watcher: &Watcher) {
    check_ids(watcher);
    let messages = watcher.all().into_iter().map(|seen| (seen.topic, seen.payload.into_bytes()));
    for events in by_device(messages).values() {
        for of_chain in events.chunk_by(|before, after| before["chain"] == after["chain"]) {
            check_chain(of_chain);
        }
    }
}

async fn is_healed(bridge: &Bridge) {
    reads(bridge, "gsdk_store_ok", 1.0, PATIENCE, "until the store is healed").await;
}

/// Waits until this number of status changes was processed.
async fn taken(bridge: &Bridge, changes: u32, what: &str) {
    within(PATIENCE, what, async || {
        let (_, text) = bridge.get("/metrics").await;
        let of = |family: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(family));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
        };
        let taken = of("gsdk_status_changes_total{") + of("gsdk_repeated_status_total{");
        (taken >= f64::from(changes)).then_some(())
    })
    .await;
}

/// Aim: a directory that is not available at the start loses nothing. Method: events wait in it,
/// and it is available a little later, as on a disk that is mounted late.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_not_available_at_the_start_is_exit_1_and_nothing_is_lost() {
    let Outage { watcher, proxy, mut bridge, others: _others } =
        Outage::start("", 500, "not available").await;
    within(PATIENCE, "not available: until events wait", async || {
        (bridge.metric("gsdk_outbox_events").await > Some(100.0)).then_some(())
    })
    .await;
    let (_, log) = bridge.terminate().await;
    let kept = kept(&log);
    let (dir, away) = (bridge.state_dir(), bridge.state_dir().with_extension("away"));
    std::fs::rename(&dir, &away).unwrap();
    std::fs::write(&dir, "").unwrap();
    watcher.clear();
    bridge.restart();
    let status = bridge.ends().await;
    assert_eq!(status.code(), Some(1), "{}", bridge.log());
    std::fs::remove_file(&dir).unwrap();
    std::fs::rename(&away, &dir).unwrap();
    proxy.set_mode(Mode::default());
    bridge.restart();
    ready(&bridge, PATIENCE, "not available: available again").await;
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "not available: until delivered").await;
    assert!(check_all(&watcher) >= kept, "each of them");
    assert!(reported(&watcher, "chain_reset").is_empty());
    assert!(bridge.log().contains("chain continues"), "{}", bridge.log());
}

/// Aim: a truncated log does not count as complete. Method: cut after a kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_log_ends_the_chain_and_no_event_id_is_used_twice() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(20).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "cut log: the first start").await;
    simulator.control().storm(Storm::of(500)).await.unwrap();
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "cut log: until all is reported").await;
    // The history has the length of the log.
    within(PATIENCE, "cut log: until all is recorded", async || {
        let events = watcher.all().iter().filter(|seen| seen.topic.contains("/event/")).count();
        (bridge.metric("gsdk_history_events").await == Some(events as f64)).then_some(())
    })
    .await;
    bridge.kill();
    let log = bridge.state_dir().join("log/segment-0000000001");
    let file = std::fs::OpenOptions::new().write(true).open(&log).unwrap();
    file.set_len(file.metadata().unwrap().len() - 900).unwrap();
    bridge.restart();
    let reset = event(&watcher, "chain_reset").await;
    assert!(reset["reason"].as_str().unwrap().contains("was cut"), "{reset}");
    ready(&bridge, PATIENCE, "cut log: until ready").await;
    simulator.control().storm(Storm::of(500)).await.unwrap();
    within(PATIENCE, "cut log: until the new chain begins", async || {
        let new_chain = of_chain(&watcher, &reset["to"]);
        new_chain.values().any(|event| event.contains("\"seq\":1,")).then_some(())
    })
    .await;
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "cut log: until all is reported").await;
    // With the end of the log, some acknowledgements are lost: these events of the old chain are
    // sent again, unchanged.
    check_ids(&watcher);
}

/// Aim: the oldest segment does not count as cleaned away. Method: it is removed after a kill,
/// while it has most of the events that wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_oldest_segment_ends_the_chain_and_its_events_are_reported_as_lost() {
    let Outage { watcher, proxy, mut bridge, others: _others } =
        Outage::start("", 14_000, "no oldest segment").await;
    taken(&bridge, 14_000, "no oldest segment: until all is processed").await;
    within(PATIENCE, "no oldest segment: until all is recorded", async || {
        let waiting = bridge.metric("gsdk_outbox_events").await?;
        (bridge.metric("gsdk_history_events").await? >= waiting).then_some(())
    })
    .await;
    bridge.kill();
    let log = bridge.state_dir().join("log");
    assert!(log.join("segment-0000000002").metadata().unwrap().len() > 100_000);
    std::fs::remove_file(log.join("segment-0000000001")).unwrap();
    proxy.set_mode(Mode::default());
    bridge.restart();
    let reset = event(&watcher, "chain_reset").await;
    let reason = reset["reason"].as_str().unwrap();
    assert!(reason.contains("the segment before") && reason.contains("is missing"), "{reason}");
    let lost = event(&watcher, "events_lost").await;
    assert!(lost["count"].as_u64() > Some(5_000), "{lost}");
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "until the others are reported").await;
    check_ids(&watcher);
}

/// Aim: the loss of the whole directory is reported. Method: it is moved away while the bridge is
/// stopped; the broker retains the chain that ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_empty_at_the_start_is_reported_where_the_broker_retains_a_chain() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(3).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "empty directory: the first start").await;
    let info = |broker: &Mosquitto| -> Value {
        serde_json::from_str(&retained(broker.port)["gsdk/bridge/info"]).unwrap()
    };
    let before = info(&broker)["chain"].clone();
    assert!(reported(&watcher, "chain_reset").is_empty(), "there was none before");
    assert!(bridge.log().contains("new chain"), "{}", bridge.log());
    bridge.terminate().await;
    std::fs::rename(bridge.state_dir(), bridge.state_dir().with_extension("old")).unwrap();
    bridge.restart();
    let reset = event(&watcher, "chain_reset").await;
    assert_eq!(reset["reason"], "the state directory was empty at the start");
    assert_eq!((&reset["from"], &reset["to"]), (&before, &info(&broker)["chain"]), "{reset}");
    // Once: not at another connection, nor at the next start.
    bridge.terminate().await;
    bridge.restart();
    ready(&bridge, PATIENCE, "empty directory: the third start").await;
    assert_eq!(reported(&watcher, "chain_reset").len(), 1);
}

/// Aim: the loss of the log is reported with the events that waited in it. Method: its folder is
/// removed while the bridge is stopped; the history has their number.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_missing_at_the_start_is_reported_with_the_events_that_waited() {
    let Outage { watcher, proxy, mut bridge, others: _others } =
        Outage::start("", 200, "missing log").await;
    taken(&bridge, 200, "missing log: until all is processed").await;
    let (_, log) = bridge.terminate().await;
    std::fs::remove_dir_all(bridge.state_dir().join("log")).unwrap();
    watcher.clear();
    proxy.set_mode(Mode::default());
    bridge.restart();
    let reset = event(&watcher, "chain_reset").await;
    assert_eq!(reset["reason"], "its log is missing");
    let lost = event(&watcher, "events_lost").await;
    assert_eq!(lost["count"], kept(&log), "{lost}");
    assert!(lost["devices"].as_u64() > Some(10), "{lost}");
    assert!(lost["reason"].as_str().unwrap().contains("missing or damaged"), "{lost}");
    check_ids_and_chains(&watcher);
}

/// Aim: the removal of a state directory in use, or of the log in it, is detected, also when
/// nothing is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_removed_while_in_use_is_reported_and_created_again() {
    for removed in ["", "log"] {
        let broker = Mosquitto::start("max_queued_messages 0").await;
        let watcher = Watcher::start(broker.port).await;
        let simulator = crate::harness::simulator(20).await;
        let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
        ready(&bridge, PATIENCE, "removed: the first start").await;
        std::fs::remove_dir_all(bridge.state_dir().join(removed)).unwrap();
        let failed = reads(&bridge, "gsdk_store_ok", 0.0, PATIENCE, "removed: until detected");
        failed.await;
        let reason = event(&watcher, "store_failed").await;
        assert!(reason["reason"].as_str().unwrap().contains("removed or replaced"), "{reason}");
        let reset = event(&watcher, "chain_reset").await;
        is_healed(&bridge).await;
        bridge.kill();
        bridge.restart();
        ready(&bridge, PATIENCE, "removed: killed and started again").await;
        simulator.control().storm(Storm::of(100)).await.unwrap();
        within(PATIENCE, "removed: until its chain continues", async || {
            (!of_chain(&watcher, &reset["to"]).is_empty()).then_some(())
        })
        .await;
        check_ids_and_chains(&watcher);
    }
}

/// Aim: a log that is truncated while in use does not count as written. Method: its file is emptied
/// while nothing is written, then again just before a stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_truncated_while_in_use_is_a_failed_store_until_another_is_created() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(5).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "truncated: the start").await;
    let segment = |number| bridge.state_dir().join(format!("log/segment-000000000{number}"));
    let (first, second) = (segment(1), segment(2));
    let empty = |path| std::fs::File::options().write(true).truncate(true).open(path).unwrap();
    empty(first);
    let failed = event(&watcher, "store_failed").await;
    assert!(failed["reason"].as_str().unwrap().contains("truncated"), "{failed}");
    is_healed(&bridge).await;
    simulator.control().storm(Storm::of(100)).await.unwrap();
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "truncated: until delivered").await;
    empty(second);
    let (_, said) = bridge.terminate().await;
    assert!(said.contains("stored for the next start"), "{said}");
    bridge.restart();
    ready(&bridge, PATIENCE, "truncated: started again").await;
    within(PATIENCE, "truncated: until each of the two is reported", async || {
        (reported(&watcher, "chain_reset").len() == 2).then_some(())
    })
    .await;
    assert!(bridge.log().contains("chain continues"), "{}", bridge.log());
    check_ids_and_chains(&watcher);
}

/// Aim: no other process can use the directory unnoticed. Method: the locked file is removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_removed_while_in_use_is_a_failed_store_until_it_is_locked_again() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(5).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "removed lock: the start").await;
    std::fs::remove_file(bridge.state_dir().join("lock")).unwrap();
    let failed = event(&watcher, "store_failed").await;
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains("/lock failed: it was removed or replaced"), "{reason}");
    is_healed(&bridge).await;
    let (status, log) = bridge.second().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("in use by process {}", bridge.pid())), "{log}");
    check_ids_and_chains(&watcher);
}

/// Aim: after a stop while nothing could be stored, the reason of the next chain is true, and no
/// events are named as lost where none were. Method: another file takes the place of the segment,
/// and a folder that of the new head.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_the_store_has_failed_is_the_reason_of_the_next_chain() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(5).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "stopped in memory: the first start").await;
    let log = bridge.state_dir().join("log");
    let (segment, copy) = (log.join("segment-0000000001"), log.join("copy"));
    std::fs::create_dir(log.join("head.new")).unwrap();
    std::fs::copy(&segment, &copy).unwrap();
    std::fs::rename(&copy, &segment).unwrap();
    event(&watcher, "store_failed").await;
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "in memory: until delivered").await;
    let (status, said) = bridge.terminate().await;
    assert!(status.success(), "{said}");
    assert!(said.contains("store: not written at the stop") && said.contains("lost=0"), "{said}");
    std::fs::remove_dir(log.join("head.new")).unwrap();
    watcher.clear();
    bridge.restart();
    let reset = event(&watcher, "chain_reset").await;
    let reason = reset["reason"].as_str().unwrap();
    assert!(reason.contains("could not be written when the last process ended"), "{reason}");
}

/// Aim: events that are reported as stored are stored. Method: the directory, or the log in it, is
/// removed while events wait, and the bridge is stopped at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_after_the_directory_was_removed_stores_what_it_reports_as_stored() {
    for removed in ["", "log"] {
        let Outage { watcher, proxy, mut bridge, others: _others } =
            Outage::start("", 500, "removed, then stopped").await;
        within(PATIENCE, "removed, then stopped: until events wait", async || {
            (bridge.metric("gsdk_outbox_events").await > Some(100.0)).then_some(())
        })
        .await;
        std::fs::remove_dir_all(bridge.state_dir().join(removed)).unwrap();
        let (_, log) = bridge.terminate().await;
        let kept = kept(&log);
        watcher.clear();
        proxy.set_mode(Mode::default());
        bridge.restart();
        ready(&bridge, PATIENCE, "removed, then stopped: until ready").await;
        reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "until all is reported").await;
        let events = watcher.all().iter().filter(|seen| seen.topic.contains("/event/")).count();
        measured("kept, and reported after the next start", (kept, events));
        assert!(events >= kept, "{events} of {kept}");
        check_ids_and_chains(&watcher);
    }
}

/// Aim: `events_lost` reports dropped events, although the process that dropped them has ended.
#[tokio::test(flavor = "multi_thread")]
async fn events_lost_includes_events_dropped_before_the_start() {
    let Outage { watcher, proxy, mut bridge, others: _others } =
        Outage::start("[outbox]\nmax_events = 20\n", 200, "dropped").await;
    taken(&bridge, 200, "dropped: until all is processed").await;
    let dropped = bridge.metric("gsdk_outbox_dropped_total").await.unwrap();
    bridge.terminate().await;
    let all = |watcher: &Watcher| -> u64 {
        reported(watcher, "events_lost").iter().map(|event| event["count"].as_u64().unwrap()).sum()
    };
    assert_eq!(all(&watcher), 0, "nothing is reported");
    bridge.restart();
    proxy.set_mode(Mode::default());
    ready(&bridge, PATIENCE, "dropped: started again").await;
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "dropped: until all is reported").await;
    // The first drops may have been added to the outbox as a report before the end of the
    // connection was detected; those after a report are reported a minute later.
    within(REPORTED_WITHIN, "dropped: until events_lost reports all", async || {
        (all(&watcher) as f64 >= dropped).then_some(())
    })
    .await;
    let since = bridge.metric("gsdk_outbox_dropped_total").await.unwrap();
    let lost = all(&watcher);
    measured("dropped before the start, after it, reported by events_lost", (dropped, since, lost));
    assert!(dropped > 50.0);
    assert!((dropped..=dropped + since).contains(&(lost as f64)));
}

/// Aim: memory is bounded also while nothing can be stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_uses_no_more_memory_for_further_events() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let proxy = Proxy::before(broker.port).await;
    proxy.set_mode(AWAY);
    let simulator = crate::harness::simulator(100).await;
    let lines = "[outbox]\nmax_events = 1_000\n[metrics]\ndevice = []\n";
    let setup = Setup::new(proxy.port, "").gateway("lobby", &simulator, "").lines(lines);
    let bridge = setup.start();
    reads(&bridge, "gsdk_store_ok", 1.0, PATIENCE, "until it has started").await;
    std::fs::remove_dir_all(bridge.state_dir()).unwrap();
    std::fs::write(bridge.state_dir(), "").unwrap();
    reads(&bridge, "gsdk_store_ok", 0.0, PATIENCE, "until the store has failed").await;
    reads(&bridge, "gsdk_gateway_up{gateway=\"lobby\"}", 1.0, PATIENCE, "until it is up").await;
    let mut most = Vec::new();
    for round in 1..=6 {
        simulator.control().storm(Storm::of(12_000)).await.unwrap();
        taken(&bridge, 12_000 * round, &format!("no store: round {round} processed")).await;
        most.push(bridge.memory() >> 20);
    }
    assert_eq!(bridge.metric("gsdk_store_ok").await, Some(0.0));
    let waiting = bridge.metric("gsdk_outbox_events").await.unwrap();
    assert!(waiting <= 1_001.0, "{waiting}");
    measured("no store: memory after each 12,000 changes, MiB", &most);
    assert!(most[5] < most[0] + 32, "{most:?}");
    proxy.set_mode(Mode::default());
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "no store: until all is reported").await;
    event(&watcher, "events_lost").await;
    check_ids_and_chains(&watcher);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_dir_may_be_a_symbolic_link() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(5).await;
    let setup = Setup::new(broker.port, "").gateway("lobby", &simulator, "");
    let real = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(real.path(), setup.state_dir()).unwrap();
    let mut bridge = setup.start();
    ready(&bridge, PATIENCE, "a link: the first start").await;
    assert!(real.path().join("log/head").exists());
    for _ in 0..2 {
        simulator.control().storm(Storm::of(100)).await.unwrap();
        reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "a link: until all is reported").await;
        bridge.kill();
        bridge.restart();
        ready(&bridge, PATIENCE, "a link: killed and started again").await;
    }
    assert_eq!(bridge.metric("gsdk_store_ok").await, Some(1.0));
    assert!(check_all(&watcher) > 50);
    assert!(reported(&watcher, "chain_reset").is_empty());
}
