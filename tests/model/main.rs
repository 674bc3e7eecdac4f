//! The model test: the whole bridge, gateways and a broker in one thread on a paused clock, with
//! faults drawn from a seed. A failing seed fails again in the same way.
//!
//! Each seed has its own process, because tokio counts runtimes for its random branches.
//! `MODEL_SEED=7` runs one seed, `MODEL_SEEDS=5000` that many from 1 on (or from `MODEL_FIRST`);
//! `MODEL_LOG=debug` shows the log of the one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod broker;
mod changes;
mod history;
mod mqtt;
mod network;
mod oracle;
mod record;
mod request;
mod schedule;
mod storage;
mod watch;
mod world;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use broker::Seen;
use record::Shown;
use schedule::Schedule;
use storage::StoredEvent;

/// Seeds of `make test`; `make nightly` runs many more.
const SEEDS: u64 = 40;
/// A seed that takes longer than this is in an endless loop.
const PATIENCE: Duration = Duration::from_secs(120);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

/// Runs a seed in a separate process.
fn play(seed: u64) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_seed_in_this_process", "--ignored", "--nocapture"])
        .env("MODEL_SEED", seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if is_done.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        }
    });
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut err, &mut bytes).unwrap();
        bytes
    });
    let mut stdout = Vec::new();
    std::io::Read::read_to_end(&mut out, &mut stdout).unwrap();
    let stderr = reader.join().unwrap();
    let status = child.wait().unwrap();
    drop(done);
    watch.join().unwrap();
    Output { status, stdout, stderr }
}

/// The summary line of a run.
fn summary(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.find("run: ").map(|at| line[at..].to_owned()))
}

#[test]
fn nothing_is_lost_and_no_state_is_wrong_with_any_fault() {
    let first = number("MODEL_SEED").or_else(|| number("MODEL_FIRST")).unwrap_or(1);
    let count = match number("MODEL_SEED") {
        Some(_) => 1,
        None => number("MODEL_SEEDS").unwrap_or(SEEDS),
    };
    let started = Instant::now();
    let (next, failed) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let enough = AtomicBool::new(false);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let output = play(seed);
                    if output.status.success() && summary(&output).is_some() {
                        continue;
                    }
                    let mut failed = failed.lock().unwrap();
                    failed.push((seed, output));
                    enough.store(failed.len() >= 10, Ordering::Relaxed);
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_by_key(|(seed, _)| *seed);
    for (seed, output) in &failed {
        println!("---- seed {seed}: MODEL_SEED={seed} cargo test --test model plays it again");
        println!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let seeds: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
    assert!(seeds.is_empty(), "of {count} seeds these failed: {seeds:?}");
    println!("{count} seeds in {:?}", started.elapsed());
}

#[test]
fn a_seed_plays_the_same_again() {
    for seed in [3, 8] {
        let [one, two] = [(); 2].map(|()| play(seed));
        let summaries = [summary(&one), summary(&two)];
        assert!(summaries[0].is_some(), "{}", String::from_utf8_lossy(&one.stderr));
        assert_eq!(summaries[0], summaries[1]);
    }
}

/// A hash of the subscriber's messages and the history, except what the certificates' dates
/// change.
fn trace_of(shown: &Shown) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (id, StoredEvent { topic, payload, delivered, .. }) in &shown.history.events {
        (id, topic, payload, delivered).hash(&mut hasher);
    }
    for Seen { at_us, connection, topic, payload, retain, correlation } in &shown.seen {
        (at_us, connection, topic, retain, correlation).hash(&mut hasher);
        if !topic.ends_with("/info") {
            payload.hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[test]
#[ignore = "the other tests run it, for each seed in a process of its own"]
fn one_seed_in_this_process() {
    chance::take_out();
    let seed = number("MODEL_SEED").expect("MODEL_SEED");
    if let Ok(level) = std::env::var("MODEL_LOG") {
        let filter: tracing_subscriber::filter::Targets = level.parse().expect("MODEL_LOG");
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
        let log = log.with_writer(std::io::stderr).with_timer(Elapsed).with_ansi(false);
        log.finish().with(filter).init();
    }
    static PANICKED: AtomicBool = AtomicBool::new(false);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICKED.store(true, Ordering::Relaxed);
        usual(panic);
    }));
    let schedule = Schedule::of(seed);
    if std::env::var_os("MODEL_LOG").is_some() {
        eprintln!("{schedule:#?}");
    }
    // A separate thread, because each begins with the same random state.
    let played = std::thread::scope(|scope| scope.spawn(|| world::play(seed, &schedule)).join());
    let shown = played.expect("the run ends");
    let summary = oracle::check(&schedule, &shown);
    if let Ok(path) = std::env::var("MODEL_TRACE") {
        let lines = shown.seen.iter().map(|seen| format!("{seen:?}\n"));
        std::fs::write(path, lines.collect::<String>()).unwrap();
    }
    println!(
        "run: seed {seed}, MQTT {}, {} steps, {} power cuts, {} messages, {} events, {} repeats, \
         {} recorded, {} requests, {} answers, trace {:016x}",
        schedule.protocol.as_str(),
        schedule.steps.len(),
        shown.cuts.len(),
        shown.seen.len(),
        summary.events,
        summary.repeats,
        shown.history.events.len(),
        shown.sent.len(),
        summary.answers,
        trace_of(&shown)
    );
    let died = PANICKED.load(Ordering::Relaxed);
    if died || !summary.wrong.is_empty() {
        let protocol = schedule.protocol.as_str();
        eprintln!("gateways: {:#?}\nwindow {}, MQTT {protocol}", schedule.sites, schedule.window);
        for (at, act) in &schedule.steps {
            eprintln!("{:>9.3} s  {act:?}", at.as_secs_f64());
        }
        eprintln!("{:>9.3} s  all is healed", schedule.healed_at.as_secs_f64());
        for wrong in &summary.wrong {
            eprintln!("WRONG: {wrong}");
        }
        panic!("seed {seed}: {} things are wrong; a task died: {died}", summary.wrong.len());
    }
}

/// The model's time in the log.
struct Elapsed;

impl tracing_subscriber::fmt::time::FormatTime for Elapsed {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        thread_local!(static BEGAN: tokio::time::Instant = tokio::time::Instant::now());
        let since = BEGAN.try_with(tokio::time::Instant::elapsed).unwrap_or_default();
        write!(w, "{:>10.4}", since.as_secs_f64())
    }
}
