//! Events while a client reads pages and reports of a year, as fast as they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::Sizes;
use crate::counter::subscribe;
use crate::harness::mosquitto::Mosquitto;
use crate::process::median;
use crate::rounds::{BROKER, run};
use crate::scale::drain;
use crate::source::{Subject, bridge, gateways, until};
use crate::tables::{Row, Table};

/// Days of the history before the bridge was started.
const DAYS: u64 = 365;
/// The year before the first span of each device: an outage of 10 minutes each day.
const YEAR: &str = "
CREATE TEMP TABLE begins AS SELECT gateway, device_id, min(from_at) - ?1 * 86400000 AS at
  FROM spans GROUP BY gateway, device_id;
CREATE TEMP TABLE days AS WITH RECURSIVE days(day) AS
  (SELECT 0 UNION ALL SELECT day + 1 FROM days WHERE day + 1 < ?1) SELECT day FROM days;
INSERT INTO spans SELECT gateway, device_id, at + day * 86400000,
  at + day * 86400000 + 85800000, 'connected' FROM begins, days;
INSERT INTO spans SELECT gateway, device_id, at + day * 86400000 + 85800000,
  at + (day + 1) * 86400000, 'disconnected' FROM begins, days;
UPDATE devices SET first_seen_at = first_seen_at - ?1 * 86400000;
UPDATE gateways SET first_seen_at = first_seen_at - ?1 * 86400000;
UPDATE observation SET spans_since = spans_since - ?1 * 86400000;
";

pub(crate) async fn readers(sizes: &Sizes) -> Table {
    let broker = Mosquitto::start(BROKER).await;
    let simulators = gateways(1, sizes.devices).await;
    let arrived = subscribe(broker.port);
    let mut subject = bridge(broker.port, &simulators, "", &arrived).await;
    let Subject::Bridge(bridge) = &mut subject else { panic!("a bridge was started") };
    assert!(bridge.end().await.success());
    let database = rusqlite::Connection::open(bridge.state_dir().join("history.db")).unwrap();
    database.execute_batch(&YEAR.replace("?1", &DAYS.to_string())).unwrap();
    drop(database);
    bridge.restart();
    until("the bridge is online again", || arrived.is_online()).await;
    bridge.is_ready().await;

    let port = bridge.http_port;
    let device = simulators[0].control().managed()[0].device_id;
    let (rounds, seconds) = (sizes.rounds, sizes.paced_seconds);
    let title = format!(
        "{} devices with a history of {DAYS} days, {rounds} rounds of {seconds} s",
        sizes.devices
    );
    let mut table = Table::new("readers", title);
    let answers = Arc::new(AtomicU64::new(0));
    for rate in [500, 2_000] {
        // An even number for each device: the first change of a run differs from the last one.
        let changes = (rate * seconds).next_multiple_of(2 * sizes.devices as u64);
        let mut runs = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (is_read, runs) in [false, true].into_iter().zip(&mut runs) {
                let stop = Arc::new(AtomicBool::new(!is_read));
                let client = tokio::spawn(read(port, device, stop.clone(), answers.clone()));
                runs.push(run(&subject, &arrived, &simulators[0], changes, Some(rate)).await);
                stop.store(true, Ordering::Relaxed);
                client.await.unwrap();
            }
        }
        let [alone, read] = runs;
        for (name, of) in [("p50", 0), ("p99", 1)] {
            let of = |runs: &[crate::rounds::Run]| {
                median(runs.iter().map(|run| [run.p50_ms, run.p99_ms][of]).collect())
            };
            let label = format!("{rate} changes a second: {name}, ms (floor: nothing is read)");
            table.row(Row::ratio(&label, of(&read), of(&alone)));
        }
    }
    let answered = answers.load(Ordering::Relaxed) as f64;
    let read_seconds = (2 * rounds) as f64 * seconds as f64;
    table.row(Row::one("pages and reports answered a second", answered / read_seconds));
    table
}

/// Reads one after the other, until the flag is set.
async fn read(port: u16, device: u32, stop: Arc<AtomicBool>, answers: Arc<AtomicU64>) {
    let year = format!("/api/v1/availability?from={DAYS}d&limit=10000");
    let paths = [
        year.clone(),
        "/?range=90d".to_owned(),
        format!("{year}&bucket=month"),
        format!("/devices/lobby/{device}?range=90d"),
        "/api/v1/events?order=desc&limit=1000".to_owned(),
    ];
    for path in paths.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        assert!(drain(port, path).await > 1_000, "{path}");
        answers.fetch_add(1, Ordering::Relaxed);
    }
}
