//! A machine like a Raspberry Pi: a control group with half a core and 64 MiB, which is to be there
//! already. `BENCH_CGROUP` has its folders, separated by spaces.

use std::os::unix::fs::PermissionsExt;

use crate::Sizes;
use crate::counter::subscribe;
use crate::harness::bridge::{PROGRAM, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::rounds::{BROKER, run};
use crate::source::{gateways, started};
use crate::tables::{Row, Table};

const RATE: u64 = 100;
const SECONDS_OF_A_DAY: f64 = 86_400.0;

/// The bridge in these groups.
pub(crate) async fn small(sizes: &Sizes, groups: &str) -> Table {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("limited");
    let join = |group| format!("echo $$ > {group}/cgroup.procs\n");
    let joins: String = groups.split_whitespace().map(join).collect();
    std::fs::write(&program, format!("#!/bin/sh -e\n{joins}exec {PROGRAM} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();

    let broker = Mosquitto::start(BROKER).await;
    let simulators = gateways(1, sizes.devices).await;
    let arrived = subscribe(broker.port);
    let setup = Setup::new(broker.port, "").program(&program);
    let subject = started(setup, &simulators, "", &arrived).await;
    let process = subject.process();
    let (changes, written) = (RATE * sizes.far_seconds, process.written_mb());
    let events = arrived.events();
    let run = run(&subject, &arrived, &simulators[0], changes, Some(RATE)).await;
    let title = format!("{RATE} changes a second for {} s, half a core, 64 MiB", sizes.far_seconds);
    let mut table = Table::new("small", title);
    table.row(Row::one("p50 from stream to subscriber, ms", run.p50_ms));
    table.row(Row::one("p99 from stream to subscriber, ms", run.p99_ms));
    table.row(Row::one("CPU, % of a core", run.cpu_us * RATE as f64 / 1e4));
    table.row(Row::one("memory, MB", process.resident_mb()));
    let lost = arrived.events() as f64 - events as f64 - changes as f64;
    table.row(Row::one("lost or twice", lost).at_most(0.0));
    let written = process.written_mb() - written;
    table.row(Row::one("GB written a day", written / 1e3 / run.seconds * SECONDS_OF_A_DAY));
    table
}
