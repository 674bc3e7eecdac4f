//! The throughput of status streams, and the memory of many devices: `cargo bench --bench
//! simulator`.
//!
//! The clients run in the same process, so their reading, TLS and decoding is part of what is
//! measured.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use gsdk2mqtt::proto::connect::SubscribeStatusRequest;
use gsdk2mqtt::proto::connect::connect_client::ConnectClient;
use gsdk2mqtt::simulator::{MasterSettings, Simulator, SimulatorSettings, Storm, mixed_devices};
use tokio_stream::StreamExt;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

const CHANGES: u64 = 500_000;

#[tokio::main]
async fn main() {
    // `cargo test --all-targets` runs benches too, to see that they run.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    for streams in [1, 10] {
        feed(streams).await;
    }
    weigh().await;
}

async fn subscribe(
    simulator: &Simulator,
) -> tonic::Streaming<gsdk2mqtt::proto::connect::StatusChange> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(simulator.ca_pem()));
    let endpoint = Endpoint::from_shared(format!("https://{}", simulator.address())).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    let request = SubscribeStatusRequest { queue_size: 1 << 20 };
    ConnectClient::new(channel).subscribe_status(request).await.unwrap().into_inner()
}

async fn feed(streams: u64) {
    let simulator = Simulator::start(SimulatorSettings::fast(1_000)).await.unwrap();
    let control = simulator.control();
    while control.managed().iter().filter(|one| matches!(one.status, 1 | 2)).count() < 1_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..streams {
        let mut stream = subscribe(&simulator).await;
        readers.spawn(async move {
            for _ in 0..CHANGES {
                stream.next().await.unwrap().unwrap();
            }
        });
    }
    let started = Instant::now();
    let report = control.storm(Storm::of(CHANGES)).await.unwrap();
    let sent = started.elapsed().as_secs_f64();
    readers.join_all().await;
    let read = started.elapsed().as_secs_f64();
    let discarded: u64 = report.subscriptions.iter().map(|one| one.discarded).sum();
    let changes = CHANGES as f64;
    println!(
        "{streams} stream(s), {CHANGES} changes: sent in {sent:.2} s ({:.0} /s), all read in \
         {read:.2} s ({:.0} /s a stream, {:.0} /s in all), {discarded} discarded",
        changes / sent,
        changes / read,
        changes * streams as f64 / read,
    );
}

/// This process's resident memory in MiB; 0 if the system does not report it.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

async fn weigh() {
    let before = resident_mib();
    let devices = |number| mixed_devices(number, number * 1_000, 1_000);
    let master = Some(MasterSettings::numbered(100, devices));
    let started = Instant::now();
    let simulator =
        Simulator::start(SimulatorSettings { master, ..SimulatorSettings::fast(0) }).await.unwrap();
    let start_seconds = started.elapsed().as_secs_f64();
    let control = simulator.control();
    let connected = || control.managed().iter().filter(|one| matches!(one.status, 1 | 2)).count();
    while connected() < 100_000 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "100 gateways x 1,000 devices: started in {:.2} s, all connected in {:.2} s; resident \
         memory {} MiB, of which {before} MiB were there before",
        start_seconds,
        started.elapsed().as_secs_f64(),
        resident_mib(),
    );
}
