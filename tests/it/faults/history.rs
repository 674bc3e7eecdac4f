//! The history while it cannot be written, and what it has after kills.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::disk::happens;
use super::{reads, ready};
use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::Watcher;

const PATIENCE: Duration = Duration::from_secs(60);

/// A recorded event.
pub(super) struct Row {
    pub(super) event: Value,
    pub(super) delivered: bool,
}

/// Reads the database as anyone may, in the order of `id`.
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

/// Aim: a history that fails costs nothing else, and misses nothing that the log still has. Method:
/// another program holds the database's write lock.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_cannot_be_written_holds_up_nothing_and_continues() {
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
    reads(&bridge, "gsdk_history_ok", 0.0, PATIENCE, "history: until it is noticed").await;
    let degraded = "gsdk_degraded{reason=\"history_not_written\"}";
    reads(&bridge, degraded, 1.0, PATIENCE, "history: until it is named").await;
    let (status, body) = bridge.get("/readyz").await;
    assert!(status == 200 && body.contains("the history: "), "{body}");
    happens(&watcher, &simulator, None).await;
    assert_eq!(bridge.metric("gsdk_store_ok").await, Some(1.0));
    lock.execute_batch("ROLLBACK").unwrap();
    reads(&bridge, "gsdk_history_ok", 1.0, PATIENCE, "history: until it continues").await;
    let seen = watcher.all().iter().filter(|seen| seen.topic.contains("/event/")).count();
    reads(&bridge, "gsdk_history_events", seen as f64, PATIENCE, "history: until all is there")
        .await;
    drop(lock);
}
