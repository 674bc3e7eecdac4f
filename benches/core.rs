//! The core alone on one thread: status changes a second, and what it allocates for them.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, missing_docs)]

use std::alloc::System;
use std::hint::black_box;
use std::time::Instant;

use gsdk2mqtt::fleet::{
    DeviceInfo, DeviceType, Fleet, GatewayIndex, GatewaySettings, LinkEvent, Listed, Mode, Output,
    Status, StreamedStatus,
};
use gsdk2mqtt::ids::{DeviceId, Moment, SteadyClock};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CHANGES: u32 = 4_000_000;
const ROUNDS: usize = 5;

fn main() {
    // `cargo test --all-targets` runs benches too, to see that they run.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut table = "| devices | what | a second | ns each | allocations each |\n\
        | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for devices in [1_000, 10_000, 100_000] {
        table += &measure(devices, "repeats", |_| Status::TlsConnected);
        let alternating = move |number: u32| {
            if (number / devices).is_multiple_of(2) {
                Status::TcpConnected
            } else {
                Status::TlsConnected
            }
        };
        table += &measure(devices, "changes", alternating);
    }
    println!("{table}");
    if std::env::args().any(|argument| argument == "--write") {
        write(&table);
    }
}

/// Puts the table in its place on the page.
fn write(table: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once("<!-- core -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /core -->").unwrap();
    let page = format!("{before}<!-- core -->\n{table}<!-- /core -->{after}");
    std::fs::write(path, page).unwrap();
}

/// What this thread has had of a core, so that others on the machine do not count. Linux only.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// The best of a few rounds: other programs on the machine slow down the rest.
fn measure(devices: u32, what: &str, status: impl Fn(u32) -> Status) -> String {
    let now = Moment::from_millis(1_790_000_000_000);
    let received = Instant::now();
    let (mut fleet, gateways) = fleet(devices, SteadyClock::new(received, now), now);
    let mut out: Vec<Output> = Vec::with_capacity(4_096);
    let mut best = f64::MAX;
    let mut allocations = 0.0;
    for _ in 0..ROUNDS {
        let region = Region::new(ALLOCATOR);
        let started = cpu_seconds();
        for number in 0..CHANGES {
            let device = number % devices;
            let gateway = gateways[(device / 1_000) as usize];
            let device_id = DeviceId::new(540_000_000 + device).unwrap();
            let status = status(number);
            let timestamp_s = 1_790_000_000;
            let event =
                LinkEvent::Status(StreamedStatus { device_id, status, timestamp_s, received });
            fleet.step(now, gateway, event, &mut out);
            if out.len() > 2_000 {
                black_box(&out);
                out.clear();
            }
        }
        best = best.min(cpu_seconds() - started);
        out.clear();
        allocations = region.change().allocations as f64 / f64::from(CHANGES);
    }
    let changes = f64::from(CHANGES);
    format!(
        "| {devices} | {what} | {:.2} M | {:.0} | {allocations:.6} |\n",
        changes / best / 1e6,
        best * 1e9 / changes
    )
}

/// Gateways of a thousand devices each, all of them listed and connected.
fn fleet(devices: u32, clock: SteadyClock, now: Moment) -> (Fleet, Vec<GatewayIndex>) {
    let mut fleet = Fleet::new(clock);
    let mut out = Vec::new();
    let one = |place: u32| {
        let settings = GatewaySettings {
            audit_interval_ms: 60_000,
            unknown_after_ms: 10_000,
            forget_after_ms: None,
        };
        let gateway = fleet.add_gateway(now, settings, &[]);
        let row = |device: u32| Listed {
            device_id: DeviceId::new(540_000_000 + device).unwrap(),
            status: Status::TlsConnected,
            info: DeviceInfo {
                device_type: DeviceType::from_code(0x0D),
                ip: None,
                port: 51_211,
                mode: Mode::ServerToDevice,
                ssl: true,
                auto_reconnect: true,
            },
        };
        let rows = (place * 1_000..(place + 1) * 1_000).map(row).collect();
        for event in [LinkEvent::LinkUp, LinkEvent::ListRequested, LinkEvent::List(rows)] {
            fleet.step(now, gateway, event, &mut out);
        }
        gateway
    };
    let gateways = (0..devices / 1_000).map(one).collect();
    (fleet, gateways)
}
