//! Changes from simulated gateways, and what passes them on: the bridge or the floor.
//!
//! Changes alternate between the two statuses of a connected device, so that each is an event and
//! none makes the bridge read lists meanwhile.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gsdk2mqtt::simulator::{
    Control, Fault, Simulator, SimulatorSettings, StatusCode, mixed_devices,
};
use tempfile::TempDir;

use crate::counter::Arrived;
use crate::harness::bridge::{Bridge, Setup};
use crate::process::Process;

/// Changes sent before the task yields.
const BATCH_SIZE: u64 = 256;
/// The deadline of every wait.
const PATIENCE: Duration = Duration::from_secs(600);

/// What passes the changes on.
pub(crate) enum Subject {
    Bridge(Box<Bridge>),
    /// The floor or a peer, and the folder of the root certificate.
    Pipe(Child, #[expect(dead_code, reason = "held until the child ends")] TempDir),
}

impl Subject {
    pub(crate) fn process(&self) -> Process {
        match self {
            Self::Bridge(bridge) => Process(bridge.pid()),
            Self::Pipe(child, _) => Process(child.id()),
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Self::Pipe(child, _) = self {
            // The bridge does this by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A gateway with devices, all connected; several have devices of their own each.
pub(crate) async fn gateways(count: usize, devices: usize) -> Vec<Simulator> {
    let mut gateways = Vec::new();
    for number in 0..count {
        let settings = SimulatorSettings {
            devices: mixed_devices(number, number * devices, devices),
            ..SimulatorSettings::fast(devices)
        };
        gateways.push(Simulator::start(settings).await.unwrap());
    }
    for gateway in &gateways {
        until("every device is connected", || {
            let managed = gateway.control().managed();
            managed.iter().filter(|one| matches!(one.status, 1 | 2)).count() == devices
        })
        .await;
    }
    gateways
}

/// A bridge on these gateways, online.
pub(crate) async fn bridge(
    mqtt_port: u16,
    gateways: &[Simulator],
    lines: &str,
    arrived: &Arrived,
) -> Subject {
    started(Setup::new(mqtt_port, ""), gateways, lines, arrived).await
}

/// The same, of another build of the program.
pub(crate) async fn bridge_of(
    program: &Path,
    mqtt_port: u16,
    gateways: &[Simulator],
    arrived: &Arrived,
) -> Subject {
    started(Setup::new(mqtt_port, "").program(program), gateways, "", arrived).await
}

/// A bridge with this setup beside the gateways, online.
pub(crate) async fn started(
    mut setup: Setup,
    gateways: &[Simulator],
    lines: &str,
    arrived: &Arrived,
) -> Subject {
    for (number, gateway) in gateways.iter().enumerate() {
        let name = if number == 0 { "lobby".to_owned() } else { format!("lobby{number}") };
        let keys = "queue_size = 1000000\naudit_interval = \"1h\"";
        setup = setup.gateway(&name, gateway, keys);
    }
    // Details are read after the start, ten a second: no part of what is measured.
    let bridge = setup.top("device_details = false").lines(lines).start();
    until("the bridge is online", || arrived.is_online()).await;
    Subject::Bridge(Box::new(bridge))
}

/// The floor on this gateway, reading.
pub(crate) fn floor(mqtt_port: u16, gateway: &Simulator) -> Subject {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("floor");
    pipe(command, mqtt_port, gateway)
}

/// A program that takes a gateway, its root certificate and a broker, reading.
pub(crate) fn pipe(mut command: Command, mqtt_port: u16, gateway: &Simulator) -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.crt");
    std::fs::write(&ca_file, gateway.ca_pem()).unwrap();
    let mut child = command
        .arg(gateway.address().to_string())
        .arg(&ca_file)
        .arg(mqtt_port.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    Subject::Pipe(child, dir)
}

/// Polls until the condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// When each device's changes were sent, in order.
pub(crate) type SentAt = HashMap<u32, Vec<Instant>>;

/// Sends so many changes through all devices in turn, at this rate or at once.
pub(crate) async fn send(control: &Control, changes: u64, per_second: Option<u64>) -> SentAt {
    let mut next: Vec<(u32, i32)> =
        control.managed().iter().map(|one| (one.device_id, 3 - one.status)).collect();
    let mut sent = SentAt::new();
    let started = Instant::now();
    let mut number = 0;
    while number < changes {
        let due = per_second.map_or(changes, |rate| {
            (started.elapsed().as_micros() as u64).saturating_mul(rate) / 1_000_000 + 1
        });
        let until = due.min(changes).min(number + BATCH_SIZE);
        if until <= number {
            tokio::time::sleep(Duration::from_micros(500)).await;
            continue;
        }
        while number < until {
            let at = number as usize % next.len();
            let (id, status) = &mut next[at];
            if per_second.is_some() {
                sent.entry(*id).or_default().push(Instant::now());
            }
            control
                .apply_fault(&Fault::Tell { devices: (*id).into(), status: StatusCode(*status) });
            *status = 3 - *status;
            number += 1;
        }
        tokio::task::yield_now().await;
    }
    sent
}

/// Milliseconds from sending to arrival, of every change.
pub(crate) fn delays_ms(sent: &SentAt, arrived: &Arrived) -> Vec<f64> {
    let mut seen: HashMap<u32, usize> = HashMap::new();
    let times = arrived.times.lock().unwrap();
    times
        .iter()
        .filter_map(|(id, at)| {
            let number = seen.entry(*id).or_default();
            let sent = sent.get(id)?.get(*number)?;
            *number += 1;
            Some(at.duration_since(*sent).as_secs_f64() * 1e3)
        })
        .collect()
}

/// Scrapes repeatedly until the flag is set.
pub(crate) fn scraping(
    port: u16,
    every: Duration,
) -> (Arc<AtomicBool>, tokio::task::JoinHandle<()>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            let (status, _) = crate::harness::bridge::get(port, "/metrics").await;
            assert_eq!(status, 200);
            tokio::time::sleep(every).await;
        }
    });
    (stop, task)
}
