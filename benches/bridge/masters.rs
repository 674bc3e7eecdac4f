//! Gateways behind one master, beside as many with links of their own.

use std::time::{Duration, Instant};

use gsdk2mqtt::simulator::{Fault, Simulator};

use crate::Sizes;
use crate::counter::subscribe;
use crate::harness::bridge::Setup;
use crate::harness::master::{Master, behind};
use crate::harness::mosquitto::Mosquitto;
use crate::rounds::BROKER;
use crate::source::{gateways, started, until};
use crate::tables::{Row, Table};

/// How long the master is away when it restarts: less than `unknown_after`.
const DOWN: Duration = Duration::from_secs(2);
/// How long it is watched what is published after the gateways are back.
const WATCH: Duration = Duration::from_secs(8);

/// What one of the two takes.
struct Figures {
    start_s: f64,
    start_cpu_s: f64,
    resident_mb: f64,
    peak_mb: f64,
    /// From the end of all connections until every list is read again.
    back_s: f64,
    back_cpu_s: f64,
    /// States and events that were published over it.
    published: u64,
}

pub(crate) async fn masters(sizes: &Sizes) -> Table {
    let Sizes { gateways: count, devices, .. } = *sizes;
    let direct = {
        let (broker, simulators) = (Mosquitto::start(BROKER).await, gateways(count, devices).await);
        let cut = async || simulators.iter().for_each(cut_connections);
        figures(&broker, sizes, &simulators, &simulators, "", cut).await
    };
    let ids: Vec<String> = (0..count).map(|number| format!("Gateway {number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let master = Master::idle(&ids, devices, |settings| settings).await;
    let control = master.simulator.control();
    while control.managed().iter().filter(|one| matches!(one.status, 1 | 2)).count()
        < count * devices
    {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let table = |(at, id): (usize, &&str)| {
        behind(&format!("gateway{at}"), "campus", id, "audit_interval = \"1h\"")
    };
    let tables: String = ids.iter().enumerate().map(table).collect();
    let lines = master.table("campus", "queue_size = 1000000") + &tables;
    let broker = Mosquitto::start(BROKER).await;
    let restart = async || control.restart(DOWN).await;
    let watched = std::slice::from_ref(&master.simulator);
    let behind = figures(&broker, sizes, &[], watched, &lines, restart).await;

    let title = format!(
        "{} devices, {count} gateways behind a master (floor: {count} links)",
        count * devices
    );
    let mut table = Table::new("masters", title);
    let ratio = |what, of: fn(&Figures) -> f64| Row::ratio(what, of(&behind), of(&direct));
    table.row(ratio("memory, MB", |it| it.resident_mb));
    table.row(ratio("most memory while starting, MB", |it| it.peak_mb));
    table.row(ratio("from start to all retained, s", |it| it.start_s));
    table.row(ratio("CPU from start to all retained, s", |it| it.start_cpu_s));
    let what = format!(
        "the master restarts, away for {} s (floor: all links are cut): all lists read, s",
        DOWN.as_secs()
    );
    table.row(ratio(&what, |it| it.back_s));
    table.row(ratio("the same: CPU, s", |it| it.back_cpu_s));
    let published = Row::one("the same: states and events published", behind.published as f64);
    table.row(published.at_most(0.0));
    table
}

fn cut_connections(simulator: &Simulator) {
    simulator.control().apply_fault(&Fault::CutConnections);
}

/// Starts a bridge with `links` to gateways and these lines, and ends its connections to the
/// `simulators`.
async fn figures(
    broker: &Mosquitto,
    sizes: &Sizes,
    links: &[Simulator],
    simulators: &[Simulator],
    lines: &str,
    end_connections: impl AsyncFnOnce(),
) -> Figures {
    let arrived = subscribe(broker.port);
    let started_at = Instant::now();
    // What devices say of themselves is read for minutes, and published.
    let setup = Setup::new(broker.port, "").top("device_details = false");
    let subject = started(setup, links, lines, &arrived).await;
    let devices = (sizes.gateways * sizes.devices) as u64;
    until("every state is published", || arrived.states() >= devices).await;
    let start_s = started_at.elapsed().as_secs_f64();
    let process = subject.process();
    let (resident_mb, peak_mb) = (process.resident_mb(), process.peak_mb());
    let start_cpu_s = process.cpu().as_secs_f64();

    let (said, cpu, since) = (arrived.states() + arrived.events(), process.cpu(), Instant::now());
    let before = lists(simulators);
    end_connections().await;
    let all = before + sizes.gateways as u64;
    until("every list is read again", || lists(simulators) >= all).await;
    let back_s = since.elapsed().as_secs_f64();
    tokio::time::sleep(WATCH).await;
    let published = arrived.states() + arrived.events() - said;
    let back_cpu_s = (process.cpu() - cpu).as_secs_f64();
    Figures { start_s, start_cpu_s, resident_mb, peak_mb, back_s, back_cpu_s, published }
}

/// How many lists of devices were requested.
fn lists(simulators: &[Simulator]) -> u64 {
    let lists = |simulator: &Simulator| {
        let calls = simulator.control().calls();
        let of = calls.into_iter().filter(|(method, _)| method.ends_with("GetDeviceList"));
        of.map(|(_, count)| count).sum::<u64>()
    };
    simulators.iter().map(lists).sum()
}
