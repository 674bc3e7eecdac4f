//! The same measurements with 1,000, 10,000 and 100,000 devices.

use std::process::Command;
use std::time::{Duration, Instant};

use gsdk2mqtt::simulator::Fault;
use tokio::io::AsyncReadExt;

use crate::counter::subscribe;
use crate::harness::bridge::{Setup, ask, get};
use crate::harness::mosquitto::Mosquitto;
use crate::process::{Process, quantile};
use crate::rounds::{BROKER, run};
use crate::source::{Subject, bridge, delays_ms, gateways, scraping, send, until};
use crate::tables::{Row, Table};

/// How long after a reconnect it is watched what is published.
const RECONNECT_WATCH: Duration = Duration::from_secs(8);
/// How long a bridge that was started waits for another one of its name before it publishes.
const OTHER_BRIDGE_WAIT: Duration = Duration::from_secs(2);
/// How long it is watched at rest.
const REST: Duration = Duration::from_secs(20);
/// Changes a second while it is scraped.
const CHANGES_PER_SECOND: u64 = 500;

/// One size: so many gateways of 1,000 devices each.
pub(crate) async fn scale(name: &'static str, count: usize) -> Table {
    let broker = Mosquitto::start(BROKER).await;
    let devices = (count * 1_000) as u64;
    let mut table = Table::new(name, format!("{devices} devices over {count} gateways"));

    let empty_mb = empty_mb().await;
    let simulators = gateways(count, 1_000).await;
    let alone = fill(devices).await;
    let arrived = subscribe(broker.port);
    let started = Instant::now();
    let subject = bridge(broker.port, &simulators, "", &arrived).await;
    until("every state is published", || arrived.states() >= devices).await;
    let start_seconds = started.elapsed().as_secs_f64();
    let process = subject.process();
    let resident_mb = process.resident_mb();
    table.row(
        Row::one("memory over the empty process's, MB", resident_mb - empty_mb).at_most(100.0),
    );
    table.row(Row::one("most memory while starting, MB", process.peak_mb()));
    table.row(Row::one("from start to all retained, s", start_seconds));
    let ratio = Row::ratio(
        "the same without the wait for another bridge, s",
        start_seconds - OTHER_BRIDGE_WAIT.as_secs_f64(),
        alone,
    );
    table.row(ratio.at_most(1.05));
    table.row(Row::one("CPU from start to all retained, s", process.cpu().as_secs_f64()));

    let (states, events) = (arrived.states(), arrived.events());
    for simulator in &simulators {
        simulator.control().apply_fault(&Fault::CutConnections);
    }
    tokio::time::sleep(RECONNECT_WATCH).await;
    let published = (arrived.states() - states) + (arrived.events() - events);
    table.row(
        Row::one("states and events published after all links were cut", published as f64)
            .at_most(0.0),
    );

    rest(&mut table, process).await;
    // Before anything that would leave free memory behind, of which a scrape would take its own.
    scrape(&mut table, &subject, &simulators, &arrived).await;
    changes(&mut table, &subject, &simulators[0], &arrived).await;
    table
}

/// Nothing happens.
async fn rest(table: &mut Table, process: Process) {
    let (cpu, wakes, since) = (process.cpu(), process.wake_ups(), Instant::now());
    tokio::time::sleep(REST).await;
    let seconds = since.elapsed().as_secs_f64();
    let cpu = (process.cpu() - cpu).as_secs_f64();
    table.row(Row::one("idle: CPU, % of a core", cpu * 100.0 / seconds));
    let wakes = (process.wake_ups() - wakes) as f64;
    table.row(Row::one("idle: wake-ups a second", wakes / seconds));
}

/// A steady stream and a burst of one gateway's devices, among all the others.
async fn changes(
    table: &mut Table,
    subject: &Subject,
    simulator: &gsdk2mqtt::simulator::Simulator,
    arrived: &crate::counter::Arrived,
) {
    let paced = run(subject, arrived, simulator, 10_000, Some(2_000)).await;
    table.row(Row::one("2,000 changes a second: CPU a change, us", paced.cpu_us));
    table.row(Row::one("2,000 changes a second: p99 to the subscriber, ms", paced.p99_ms));
    let burst = run(subject, arrived, simulator, 100_000, None).await;
    table.row(Row::one("a burst: CPU a change, us", burst.cpu_us));
    table.row(Row::one("a burst: events a second", 100_000.0 / burst.seconds));
}

/// A bridge with a single device: it does not start without a gateway.
async fn empty_mb() -> f64 {
    let broker = Mosquitto::start(BROKER).await;
    let simulators = gateways(1, 1).await;
    let empty = Setup::new(broker.port, "").gateway("lobby", &simulators[0], "").start();
    empty.is_ready().await;
    Process(empty.pid()).resident_mb()
}

/// The MQTT client alone, as many retained messages of a state's size, and the same subscriber:
/// seconds.
async fn fill(devices: u64) -> f64 {
    let broker = Mosquitto::start(BROKER).await;
    let arrived = subscribe(broker.port);
    let started = Instant::now();
    let program = std::env::current_exe().unwrap();
    let arguments = ["fill".to_owned(), devices.to_string(), broker.port.to_string()];
    let mut child = Command::new(program).args(arguments).spawn().unwrap();
    let mut status = None;
    until("all is filled", || {
        status = child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(status.unwrap().success());
    until("every message has arrived", || arrived.states() >= devices).await;
    started.elapsed().as_secs_f64()
}

async fn scrape(
    table: &mut Table,
    subject: &Subject,
    simulators: &[gsdk2mqtt::simulator::Simulator],
    arrived: &crate::counter::Arrived,
) {
    let Subject::Bridge(bridge) = subject else { return };
    let (process, port) = (subject.process(), bridge.http_port);
    process.forget_peak();
    let before_mb = process.resident_mb();
    let (_, text) = get(port, "/metrics").await;
    let series = text.lines().filter(|line| line.starts_with("gsdk_device")).count();
    let mut times = Vec::new();
    let cpu = process.cpu();
    for _ in 0..5 {
        let started = Instant::now();
        // Not to the byte: the seconds go on.
        assert!(drain(port, "/metrics").await > text.len() / 10 * 9);
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let cpu_ms = (process.cpu() - cpu).as_secs_f64() * 1e3 / 5.0;
    table.row(Row::one("scrape, ms (median)", quantile(times, 0.5)).at_most(250.0));
    table.row(Row::one("scrape, CPU ms", cpu_ms));
    let extra = process.peak_mb() - before_mb;
    table.row(Row::one("scrape, extra memory, MB", extra).at_most(10.0));
    table.row(Row::one("scrape, MB of text", text.len() as f64 / 1e6));
    table.row(Row::one("device series", series as f64));

    let control = simulators[0].control();
    let changes = CHANGES_PER_SECOND * 4;
    let mut p99 = Vec::new();
    for scraped in [false, true] {
        let events = arrived.events();
        arrived.times.lock().unwrap().clear();
        let scraper = scraped.then(|| scraping(port, Duration::from_millis(200)));
        // The first change of each round differs from the list.
        let sent = send(&control, changes, Some(CHANGES_PER_SECOND)).await;
        until("every event has arrived", || arrived.events() - events >= changes).await;
        if let Some((stop, task)) = scraper {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            task.await.unwrap();
        }
        p99.push(quantile(delays_ms(&sent, arrived), 0.99));
    }
    table.row(Row::ratio("p99 of events while scraped, ms (floor: unscraped)", p99[1], p99[0]));
}

/// GET, read and thrown away as it comes: how many bytes. What a client does with them is its own.
pub(crate) async fn drain(port: u16, path: &str) -> usize {
    let mut stream = ask(port, path).await;
    let (mut buffer, mut bytes) = (vec![0; 1 << 16], 0);
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => return bytes,
            read => bytes += read,
        }
    }
}

/// A quiet bridge with 1,000 devices.
pub(crate) async fn idle() -> Table {
    let broker = Mosquitto::start(BROKER).await;
    let simulators = gateways(1, 1_000).await;
    let arrived = subscribe(broker.port);
    let started = Instant::now();
    let subject = bridge(broker.port, &simulators, "", &arrived).await;
    let start_seconds = started.elapsed().as_secs_f64();
    let process = subject.process();
    // What follows the start is not yet quiet: second infos, HTTP/2 settling.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let mut table = Table::new("idle", format!("1,000 devices, idle for {REST:?}"));
    rest(&mut table, process).await;
    table.row(Row::one("memory, MB", process.resident_mb()));
    table.row(Row::one("from start to online, s", start_seconds));
    let size = std::fs::metadata(crate::harness::bridge::PROGRAM).unwrap().len();
    table.row(Row::one("binary, MB", size as f64 / 1e6));
    table
}
