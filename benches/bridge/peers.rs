//! The floor beside bridges as users of other languages write them: `make bench-peers`.

use std::process::Command;

use crate::Sizes;
use crate::counter::subscribe;
use crate::harness::mosquitto::Mosquitto;
use crate::process::median;
use crate::rounds::{BROKER, Run, run};
use crate::source::{Subject, bridge, floor, gateways, pipe};
use crate::tables::{Row, Table};

/// Rates in changes a second. Beyond the second one no peer keeps up.
const RATES: [u64; 2] = [2_000, 10_000];

/// Each peer, what runs it, and its program.
const PEERS: [(&str, &str, &str); 2] = [
    ("Node.js", "node", "benches/peers/bridge.mjs"),
    ("Python", "target/tools/venv/bin/python", "benches/peers/bridge.py"),
];

fn peer(program: &str, script: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg(script);
    command
}

/// CPU of a change and the latency of events, of each.
pub(crate) async fn peers(sizes: &Sizes) -> Table {
    let broker = Mosquitto::start(BROKER).await;
    let gateway = gateways(1, sizes.devices).await;
    let title = format!(
        "Steady streams for {} s over {} devices, {} rounds",
        sizes.paced_seconds, sizes.devices, sizes.rounds
    );
    let mut table = Table::new("peers", title);
    for rate in RATES {
        let changes = rate * sizes.paced_seconds;
        let mut runs: [Vec<Run>; 2 + PEERS.len()] = Default::default();
        for _ in 0..sizes.rounds {
            for (number, runs) in runs.iter_mut().enumerate() {
                let arrived = subscribe(broker.port);
                let subject: Subject = match number {
                    0 => floor(broker.port, &gateway[0]),
                    1 => bridge(broker.port, &gateway, "", &arrived).await,
                    _ => {
                        let (_, program, script) = PEERS[number - 2];
                        pipe(peer(program, script), broker.port, &gateway[0])
                    }
                };
                runs.push(run(&subject, &arrived, &gateway[0], changes, Some(rate)).await);
            }
        }
        let [floor, others @ ..] = &runs;
        let names = ["the bridge"].into_iter().chain(PEERS.map(|(name, ..)| name));
        for (name, runs) in names.zip(others) {
            for (what, value) in [
                ("CPU a change, us", (|run| run.cpu_us) as fn(&Run) -> f64),
                ("p99, ms", |run| run.p99_ms),
            ] {
                let of = |runs: &[Run]| median(runs.iter().map(value).collect());
                let what = format!("{name} at {rate} a second: {what}");
                table.row(Row::ratio(&what, of(runs), of(floor)));
            }
        }
    }
    table
}
