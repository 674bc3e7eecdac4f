//! `gsdk2mqtt report` on recorded times that are known: the head of its JSON, and what it selects.

use std::path::Path;
use std::time::Duration;

use gsdk2mqtt::config::HistoryConfig;
use gsdk2mqtt::ids::Moment;
use gsdk2mqtt::store::history::{Database, FILE_NAME};
use rusqlite::Connection;
use serde_json::Value;

use crate::harness::bounded;
use crate::harness::bridge::PROGRAM;
use crate::harness::mosquitto::free_port;

const LONG: Duration = Duration::from_secs(1_000 * 86_400);

fn hours_ago(now: Moment, hours: i64) -> i64 {
    now.plus(-hours * 3_600_000).millis()
}

/// Two doors for ten days. The one of `lobby` was disconnected for 76 hours, and `annex` was lost
/// for one.
fn record(folder: &Path) {
    std::fs::create_dir(folder.join("state")).unwrap();
    let (path, now) = (
        folder.join("state").join(FILE_NAME),
        Moment::from_millis(jiff::Timestamp::now().as_millisecond()),
    );
    let keep = HistoryConfig { keep: LONG, max_bytes: 1 << 30, keep_availability: LONG };
    drop(Database::open(&path, keep, now).unwrap());
    let at = |hours| hours_ago(now, hours);
    let (first, now) = (at(240), now.millis());
    let sql = format!(
        "UPDATE observation SET proven_at = {now}, spans_since = {first};
         INSERT INTO gateways VALUES ('lobby', {first}), ('annex', {first});
         INSERT INTO devices VALUES
           ('lobby', 1, 'Front door', {first}), ('annex', 2, 'Back door', {first});
         INSERT INTO spans VALUES
           ('lobby', 1, {first}, {down}, 'connected'), ('lobby', 1, {down}, {up}, 'disconnected'),
           ('lobby', 1, {up}, NULL, 'connected'), ('annex', 2, {first}, {up}, 'connected'),
           ('annex', 2, {back}, NULL, 'connected');
         INSERT INTO unobserved VALUES ('annex', {up}, {back}, 'gateway_lost');",
        down = at(100),
        up = at(24),
        back = at(23),
    );
    Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
    let text = format!(
        "state_dir = {:?}\n[http]\nlisten = \"127.0.0.1:{}\"\n",
        folder.join("state"),
        free_port()
    );
    std::fs::write(folder.join("config.toml"), text).unwrap();
}

fn report(folder: &Path, words: &[&str]) -> Value {
    let mut command = bounded(PROGRAM);
    command.args(["report", "--last", "9d", "--time-zone", "UTC", "--format", "json", "--config"]);
    let output = command.arg(folder.join("config.toml")).args(words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_total_is_the_same_whatever_the_buckets() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path());
    for bucket in ["total", "month", "day"] {
        let report = report(folder.path(), &["--bucket", bucket]);
        let total = &report["total"];
        assert_eq!(total["outages"], 1, "{bucket}: {total}");
        assert_eq!(total["longest_outage_s"], 76 * 3_600, "{bucket}: {total}");
        assert_eq!(total["disconnected_s"], 76 * 3_600, "{bucket}: {total}");
        assert_eq!(report["bucket"], bucket);
    }
}

#[test]
fn a_report_of_devices_has_only_their_gateways() {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path());
    let gateways = |words: &[&str]| -> Vec<String> {
        let report = report(folder.path(), words);
        let rows = report["gateways"].as_array().unwrap();
        rows.iter().map(|row| row["gateway"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(gateways(&[]), ["annex", "lobby"]);
    assert_eq!(gateways(&["--device", "1"]), ["lobby"]);
    assert_eq!(gateways(&["--device", "1,2"]), ["annex", "lobby"]);
    assert_eq!(gateways(&["--device", "1", "--below", "1"]), ["lobby"], "its door is not shown");
}

#[test]
fn an_address_without_a_bridge_is_reported_with_the_remedy() {
    let url = format!("http://127.0.0.1:{}", free_port());
    for command in ["report", "history"] {
        let output = bounded(PROGRAM).args([command, "--url", &url]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}: {stderr}");
        assert!(stderr.contains(&url) && stderr.contains("http.listen"), "{command}: {stderr}");
    }
}
