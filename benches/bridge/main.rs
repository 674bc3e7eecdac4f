//! The bridge side by side with a floor: `make bench`, or `cargo bench --bench bridge -- burst`.
//!
//! Bridge and floor run as processes of their own; simulator and subscriber are in this one, the
//! same for both.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, clippy::expect_used)]
#![allow(clippy::cast_possible_truncation, missing_docs)]

mod counter;
mod floor;
#[path = "../../tests/it/harness/mod.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod harness;
mod limits;
mod masters;
mod neighbours;
mod peers;
mod process;
mod readers;
mod rounds;
mod scale;
mod small;
mod source;
mod tables;

use tokio::runtime::Builder;

/// How much is measured.
pub(crate) struct Sizes {
    pub(crate) rounds: usize,
    pub(crate) gateways: usize,
    pub(crate) devices: usize,
    pub(crate) burst: u64,
    pub(crate) paced_seconds: u64,
    pub(crate) far_seconds: u64,
}

const FULL: Sizes = Sizes {
    rounds: 5,
    gateways: 100,
    devices: 1_000,
    burst: 200_000,
    paced_seconds: 10,
    far_seconds: 60,
};
/// To see that it works.
const QUICK: Sizes =
    Sizes { rounds: 1, gateways: 5, devices: 100, burst: 10_000, paced_seconds: 2, far_seconds: 2 };

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let lean = || Builder::new_current_thread().enable_all().build().unwrap();
    match words.as_slice() {
        ["floor", gateway, ca_file, port] => {
            lean().block_on(floor::pipe(gateway, ca_file, port.parse().unwrap()));
        }
        ["fill", count, port] => {
            lean().block_on(floor::fill(count.parse().unwrap(), port.parse().unwrap()));
        }
        // `cargo test --all-targets` runs benches too, to see that they run.
        words if !words.contains(&"--bench") => {}
        words => {
            Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure(words));
        }
    }
}

async fn measure(words: &[&str]) {
    let has = |word: &str| words.contains(&word);
    let named = words.iter().any(|word| !word.starts_with("--"));
    let wanted = |name: &str| !named || has(name);
    let (sizes, write) = (if has("--quick") { QUICK } else { FULL }, has("--write"));
    if wanted("burst") {
        rounds::burst(&sizes).await.print(write);
    }
    for (name, rate, target) in rounds::PACED {
        if wanted("paced") || has(name) {
            rounds::paced(name, rate, target, &sizes).await.print(write);
        }
    }
    if wanted("draining") {
        limits::draining(&sizes).await.print(write);
    }
    if wanted("far") {
        limits::far(&sizes).await.print(write);
    }
    for (name, gateways) in [("scale_1000", 1), ("scale_10000", 10), ("scale_100000", 100)] {
        if wanted(name) {
            scale::scale(name, gateways).await.print(write);
        }
    }
    if wanted("masters") {
        masters::masters(&sizes).await.print(write);
    }
    if wanted("readers") {
        readers::readers(&sizes).await.print(write);
    }
    if wanted("neighbours") {
        neighbours::neighbours(&sizes).await.print(write);
    }
    if wanted("idle") {
        scale::idle().await.print(write);
    }
    // They need what `make bench-peers` installs.
    if has("peers") {
        peers::peers(&sizes).await.print(write);
    }
    if let Ok(groups) = std::env::var("BENCH_CGROUP")
        && wanted("small")
    {
        small::small(&sizes, &groups).await.print(write);
    }
}
