//! Alternating rounds of bridge and floor: a burst, and a steady stream.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use gsdk2mqtt::simulator::Simulator;

use crate::Sizes;
use crate::counter::{Arrived, subscribe};
use crate::harness::mosquitto::Mosquitto;
use crate::process::{median, quantile};
use crate::source::{Subject, bridge, bridge_of, delays_ms, floor, gateways, send, until};
use crate::tables::{Row, Table};

/// A broker that holds nothing back and logs nothing.
pub(crate) const BROKER: &str =
    "log_type none\nmax_queued_messages 0\nmax_inflight_messages 1000\nset_tcp_nodelay true";

/// One run's figures.
pub(crate) struct Run {
    pub(crate) seconds: f64,
    pub(crate) cpu_us: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    states: f64,
    bytes: f64,
    peak_mb: f64,
}

pub(crate) async fn run(
    subject: &Subject,
    arrived: &Arrived,
    gateway: &Simulator,
    changes: u64,
    rate: Option<u64>,
) -> Run {
    let process = subject.process();
    let states = arrived.states();
    let bytes = arrived.bytes.load(std::sync::atomic::Ordering::Relaxed);
    arrived.times.lock().unwrap().clear();
    let events = arrived.events();
    process.forget_peak();
    let cpu = process.cpu();
    let started = Instant::now();
    let sent = send(&gateway.control(), changes, rate).await;
    until("every event has arrived", || arrived.events() - events >= changes).await;
    let seconds = started.elapsed().as_secs_f64();
    // The last acknowledgements and the last states are part of the work.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(arrived.events() - events, changes, "each once");
    let delays = delays_ms(&sent, arrived);
    Run {
        seconds,
        cpu_us: (process.cpu() - cpu).as_secs_f64() * 1e6 / changes as f64,
        p50_ms: quantile(delays.clone(), 0.5),
        p99_ms: quantile(delays, 0.99),
        states: (arrived.states() - states) as f64,
        bytes: (arrived.bytes.load(std::sync::atomic::Ordering::Relaxed) - bytes) as f64
            / (changes + arrived.states() - states) as f64,
        peak_mb: process.peak_mb(),
    }
}

/// The runs of each subject, from rounds in which they alternate with fresh processes.
struct Rounds {
    bridge: Vec<Run>,
    floor: Vec<Run>,
    /// Of an earlier build, if one is named.
    before: Vec<Run>,
}

impl Rounds {
    /// CPU of the bridge beside the floor's, and that of the earlier build.
    fn cpu(&self, table: &mut Table, target: f64) {
        let cpu = |runs: &[Run]| of(runs, |run| run.cpu_us);
        let floor = cpu(&self.floor);
        table.row(Row::ratio("CPU a change, us", cpu(&self.bridge), floor).at_most(target));
        if !self.before.is_empty() {
            table.row(Row::ratio("of the build before", cpu(&self.before), floor));
        }
    }
}

async fn rounds(sizes: &Sizes, changes: u64, rate: Option<u64>) -> Rounds {
    let before = std::env::var_os("BENCH_BEFORE").map(PathBuf::from);
    let broker = Mosquitto::start(BROKER).await;
    let gateway = gateways(1, sizes.devices).await;
    let (mut bridges, mut floors, mut befores) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..sizes.rounds {
        let arrived = subscribe(broker.port);
        let subject = bridge(broker.port, &gateway, "", &arrived).await;
        bridges.push(run(&subject, &arrived, &gateway[0], changes, rate).await);
        drop(subject);
        let arrived = subscribe(broker.port);
        let subject = floor(broker.port, &gateway[0]);
        floors.push(run(&subject, &arrived, &gateway[0], changes, rate).await);
        drop(subject);
        if let Some(program) = &before {
            let arrived = subscribe(broker.port);
            let subject = bridge_of(program, broker.port, &gateway, &arrived).await;
            befores.push(run(&subject, &arrived, &gateway[0], changes, rate).await);
        }
    }
    Rounds { bridge: bridges, floor: floors, before: befores }
}

fn of(runs: &[Run], value: impl Fn(&Run) -> f64) -> f64 {
    median(runs.iter().map(value).collect())
}

/// As many changes as the gateway can tell.
pub(crate) async fn burst(sizes: &Sizes) -> Table {
    let changes = sizes.burst;
    let rounds = rounds(sizes, changes, None).await;
    let Rounds { bridge, floor, .. } = &rounds;
    let mut table = Table::new(
        "burst",
        format!(
            "{changes} changes at once over {} devices, {} rounds",
            sizes.devices, sizes.rounds
        ),
    );
    let each = |runs: &[Run]| of(runs, |run| changes as f64 / run.seconds);
    table.row(Row::ratio("events a second", each(bridge), each(floor)).at_least(0.8));
    rounds.cpu(&mut table, 1.0);
    table.row(Row::ratio(
        "states published",
        of(bridge, |it| it.states),
        of(floor, |it| it.states),
    ));
    table.row(Row::ratio("bytes a payload", of(bridge, |it| it.bytes), of(floor, |it| it.bytes)));
    table.row(Row::ratio(
        "most memory, MB",
        of(bridge, |it| it.peak_mb),
        of(floor, |it| it.peak_mb),
    ));
    table
}

/// Steady rates, in changes a second, with the target for CPU beside the floor's. At 500 each
/// change is alone.
pub(crate) const PACED: [(&str, u64, f64); 3] =
    [("paced_500", 500, 1.6), ("paced_2000", 2_000, 1.3), ("paced_10000", 10_000, 1.2)];

/// A stream at a steady rate.
pub(crate) async fn paced(name: &'static str, rate: u64, target: f64, sizes: &Sizes) -> Table {
    let changes = rate * sizes.paced_seconds;
    let rounds = rounds(sizes, changes, Some(rate)).await;
    let Rounds { bridge, floor, .. } = &rounds;
    let mut table = Table::new(
        name,
        format!(
            "{rate} changes a second for {} s over {} devices, {} rounds",
            sizes.paced_seconds, sizes.devices, sizes.rounds
        ),
    );
    let p50 = |runs: &[Run]| of(runs, |run| run.p50_ms);
    let p99 = |runs: &[Run]| of(runs, |run| run.p99_ms);
    table.row(Row::ratio("p50 from stream to subscriber, ms", p50(bridge), p50(floor)));
    table.row(
        Row::ratio("p99 from stream to subscriber, ms", p99(bridge), p99(floor)).at_most_over(1.0),
    );
    rounds.cpu(&mut table, target);
    table
}
