//! The history while it cannot be written, and its content after kills.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::disk::happens;
use super::{reads, ready, within};
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::Watcher;
use gsdk2mqtt::simulator::Storm;

const PATIENCE: Duration = Duration::from_secs(60);

/// A recorded event.
pub(super) struct Row {
    pub(super) event: Value,
    pub(super) delivered: bool,
}

/// Reads the database as an outside client, in the order of `id`.
pub(super) fn events(state_dir: &Path) -> Vec<Row> {
    let path = state_dir.join("history.db");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(path, flags).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    let mut query = connection.prepare("SELECT event, delivered FROM events ORDER BY id").unwrap();
    let rows = query.query_map((), |row| {
        let event: String = row.get(0)?;
        Ok(Row { event: serde_json::from_str(&event).unwrap(), delivered: row.get(1)? })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Aim: a failing history affects nothing else, and misses no event that the log still has. Method:
/// another program holds the database's write lock.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_cannot_be_written_delays_nothing_and_continues() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(10).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "history: the start, until ready").await;
    happens(&watcher, &simulator, None).await;
    let lock = Connection::open(bridge.state_dir().join("history.db")).unwrap();
    lock.busy_timeout(Duration::from_secs(5)).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    happens(&watcher, &simulator, None).await;
    reads(&bridge, "gsdk_history_ok", 0.0, PATIENCE, "history: until it is detected").await;
    let degraded = "gsdk_degraded{reason=\"history_not_written\"}";
    reads(&bridge, degraded, 1.0, PATIENCE, "history: until it is named").await;
    let (status, body) = bridge.get("/readyz").await;
    assert!(status == 200 && body.contains("the history: "), "{body}");
    let before = observed_s(&bridge).await;
    happens(&watcher, &simulator, None).await;
    assert_eq!(observed_s(&bridge).await, before, "what is not recorded is not observed");
    assert_eq!(bridge.metric("gsdk_store_ok").await, Some(1.0));
    lock.execute_batch("ROLLBACK").unwrap();
    reads(&bridge, "gsdk_history_ok", 1.0, PATIENCE, "history: until it continues").await;
    let seen = watcher.all().iter().filter(|seen| seen.topic.contains("/event/")).count();
    reads(&bridge, "gsdk_history_events", seen as f64, PATIENCE, "history: until all is there")
        .await;
    assert!(observed_s(&bridge).await > before);
    drop(lock);
}

/// The observed time of the first device, which the history has.
async fn observed_s(bridge: &Bridge) -> f64 {
    let (_, body) = bridge.get("/api/v1/availability?from=0").await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    let of = |field: &str| answer["availability"][0][field].as_f64().unwrap();
    of("connected_s") + of("disconnected_s")
}

/// The gaps that the history has.
fn gaps(state_dir: &Path) -> u64 {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(state_dir.join("history.db"), flags).unwrap();
    connection.query_row("SELECT count(*) FROM gaps", (), |row| row.get(0)).unwrap()
}

/// The history has every event that the watcher received, once, except this number of first ones.
async fn has_all_after(bridge: &Bridge, watcher: &Watcher, earlier: usize) {
    let seen = || {
        let all = watcher.all().into_iter().filter(|seen| seen.topic.contains("/event/"));
        all.skip(earlier).map(|seen| seen.json()["event_id"].clone()).collect::<Vec<_>>()
    };
    let recorded = || {
        let rows = events(&bridge.state_dir());
        rows.into_iter().map(|row| row.event["event_id"].clone()).collect::<Vec<_>>()
    };
    within(PATIENCE, "history: until it has all", async || {
        let (seen, recorded) = (seen(), recorded());
        let once = |id: &Value| recorded.iter().filter(|found| *found == id).count() == 1;
        seen.iter().all(once).then_some(())
    })
    .await;
}

/// Aim: when the log is replaced, no event that the history can have is missing, and the time of
/// which nothing proves that it has all events is a gap. Method: the log is removed, truncated, or
/// older than the store of an earlier build.
#[tokio::test(flavor = "multi_thread")]
async fn it_continues_after_the_log_was_replaced() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(10).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "other log: the start, until ready").await;
    let state_dir = bridge.state_dir();
    let replaced: [(&str, &dyn Fn()); 3] = [
        ("removed", &|| std::fs::remove_dir_all(state_dir.join("log")).unwrap()),
        ("cut short", &|| {
            let files = std::fs::read_dir(state_dir.join("log")).unwrap();
            let paths = files.map(|file| file.unwrap().path());
            let segments = paths.filter(|path| path.to_str().unwrap().contains("segment-"));
            let newest = std::fs::File::options().write(true).open(segments.max().unwrap());
            let newest = newest.unwrap();
            newest.set_len(newest.metadata().unwrap().len() - 30).unwrap();
        }),
        ("of an earlier build", &|| {
            for name in ["head", "end", "log-0000000001"] {
                std::fs::write(state_dir.join(name), "earlier").unwrap();
            }
        }),
    ];
    for (times, (what, replace)) in (1..).zip(replaced) {
        happens(&watcher, &simulator, None).await;
        // A clean stop, so that the history is complete.
        assert!(bridge.end().await.success(), "{what}");
        replace();
        bridge.restart();
        ready(&bridge, PATIENCE, "other log: restarted, until ready").await;
        happens(&watcher, &simulator, None).await;
        has_all_after(&bridge, &watcher, 0).await;
        assert_eq!(gaps(&state_dir), times, "{what}");
        assert!(!bridge.log().contains("history: cannot be written"), "{what}: {}", bridge.log());
    }
    assert!(state_dir.join("before-version-2/log-0000000001").exists());
}

/// Aim: a database that is lost is replaced, and this is reported. Method: it is removed while the
/// bridge runs, then damaged in a place that the start does not check, then removed while the
/// bridge is stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_removed_or_damaged_is_replaced() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(10).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "lost history: the start, until ready").await;
    happens(&watcher, &simulator, None).await;
    let path = bridge.state_dir().join("history.db");
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(bridge.state_dir().join(format!("history.db{suffix}"))).unwrap();
    }
    let earlier = watcher.all().iter().filter(|seen| seen.topic.contains("/event/")).count();
    happens(&watcher, &simulator, None).await;
    within(PATIENCE, "lost history: until it is there", async || is_database(&path).then_some(()))
        .await;
    has_all_after(&bridge, &watcher, earlier).await;
    assert!(bridge.log().contains("history: removed or replaced"), "{}", bridge.log());

    assert!(bridge.end().await.success());
    damage(&path, "events");
    bridge.restart();
    ready(&bridge, PATIENCE, "damaged history: until ready").await;
    let earlier = watcher.all().iter().filter(|seen| seen.topic.contains("/event/")).count();
    happens(&watcher, &simulator, None).await;
    let aside = path.with_extension("db.damaged-1");
    within(PATIENCE, "damaged history: until another is there", async || {
        (aside.exists() && is_database(&path)).then_some(())
    })
    .await;
    has_all_after(&bridge, &watcher, earlier).await;
    assert_eq!(bridge.metric("gsdk_history_ok").await, Some(1.0));

    assert!(bridge.end().await.success());
    std::fs::remove_file(&path).unwrap();
    bridge.restart();
    ready(&bridge, PATIENCE, "history removed while stopped: until ready").await;
    let (_, body) = bridge.get("/api/v1/events?from=1h").await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert!(answer["gap"]["oldest_at"].is_string(), "{answer}");
}

/// Aim: a database that other programs have emptied, or whose write-ahead log they have removed, is
/// not written on without anyone being able to read it.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_emptied_or_loses_its_write_ahead_log_is_opened_again() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(10).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "emptied history: the start, until ready").await;
    let state_dir = bridge.state_dir();
    let spoiled: [(&str, bool, &dyn Fn()); 2] = [
        ("its write-ahead log is removed", true, &|| {
            std::fs::remove_file(state_dir.join("history.db-wal")).unwrap();
        }),
        ("it is emptied", false, &|| {
            std::fs::File::create(state_dir.join("history.db")).unwrap();
        }),
    ];
    for (times, (what, keeps_all, spoil)) in (1..).zip(spoiled) {
        happens(&watcher, &simulator, None).await;
        has_all_after(&bridge, &watcher, 0).await;
        let seen = watcher.all().iter().filter(|seen| seen.topic.contains("/event/")).count();
        spoil();
        // Queries create the removed file again.
        bridge.get("/api/v1/events").await;
        happens(&watcher, &simulator, None).await;
        within(PATIENCE, what, async || {
            let reported = bridge.log().matches("history: removed or replaced").count() == times;
            let answers = bridge.get("/api/v1/events").await.0 == 200;
            (reported && answers && is_database(&state_dir.join("history.db"))).then_some(())
        })
        .await;
        has_all_after(&bridge, &watcher, if keeps_all { 0 } else { seen }).await;
        assert_eq!(bridge.metric("gsdk_history_ok").await, Some(1.0), "{what}");
    }
}

/// Aim: damage that only queries read is reported, and the rest stays. Method: the page of an old
/// event is overwritten, which the bridge never writes again.
#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_query_finds_is_reported_until_the_file_is_moved_away() {
    /// The first byte of a page with rows.
    const LEAF: u8 = 0x0d;
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(10).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "old damage: the start, until ready").await;
    let oldest = happens(&watcher, &simulator, None).await;
    simulator.control().storm(Storm::of(1_000)).await.unwrap();
    reads(&bridge, "gsdk_outbox_events", 0.0, PATIENCE, "old damage: until all is sent").await;
    assert!(bridge.end().await.success());
    let path = bridge.state_dir().join("history.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let id = oldest["event_id"].to_string().into_bytes();
    let is_page =
        |page: &&mut [u8]| page[0] == LEAF && page.windows(id.len()).any(|window| window == id);
    bytes.chunks_mut(4_096).find(is_page).unwrap().fill(0);
    std::fs::write(&path, bytes).unwrap();
    bridge.restart();
    ready(&bridge, PATIENCE, "old damage: until ready").await;
    let known = bridge.metric("gsdk_history_events").await.unwrap();
    assert_eq!(bridge.get("/api/v1/events?order=asc&after_id=0").await.0, 503);
    reads(&bridge, "gsdk_history_ok", 0.0, PATIENCE, "old damage: until it is reported").await;
    let (_, body) = bridge.get("/readyz").await;
    assert!(body.contains("history_not_written") && body.contains("is damaged"), "{body}");
    happens(&watcher, &simulator, None).await;
    within(PATIENCE, "old damage: new events are recorded", async || {
        (bridge.metric("gsdk_history_events").await.unwrap() > known).then_some(())
    })
    .await;
    assert_eq!(bridge.get("/api/v1/events?order=desc&limit=1").await.0, 200);
    std::fs::rename(&path, path.with_extension("old")).unwrap();
    happens(&watcher, &simulator, None).await;
    reads(&bridge, "gsdk_history_ok", 1.0, PATIENCE, "old damage: moved away, until ok").await;
    assert_eq!(bridge.get("/api/v1/events?order=asc&after_id=0").await.0, 200);
}

/// Whether its tables exist.
fn is_database(path: &Path) -> bool {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let rows = "SELECT count(*) FROM progress";
    connection.is_ok_and(|it| it.query_row(rows, (), |row| row.get(0)) == Ok(1))
}

/// Overwrites the first page of a table.
fn damage(path: &Path, table: &str) {
    use std::os::unix::fs::FileExt as _;
    let page: u64 = {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let query = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        connection.query_row(query, [table], |row| row.get(0)).unwrap()
    };
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0xff; 4_096], (page - 1) * 4_096).unwrap();
}
