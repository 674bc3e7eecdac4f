//! Disks that are really full, really read-only, or return damaged data.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{reads, ready, within};
use crate::commands::{ALL, rr};
use crate::harness::bounded;
use crate::harness::bridge::{Bridge, PROGRAM, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Watcher, check_chain};
use gsdk2mqtt::simulator::{Fault, Simulator, Storm};

const PATIENCE: Duration = Duration::from_secs(60);
/// The store is tried again every 10 s.
const HEALED_WITHIN: Duration = Duration::from_secs(45);

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).status().is_ok_and(|status| status.success())
}

/// A small separate file system, unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    /// Mounting needs root.
    fn mounted_on(path: &Path) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let shown = path.to_str().unwrap();
        let mounted = run("mount", &["-t", "tmpfs", "-o", "size=8m", "gsdk2mqtt-test", shown]);
        assert!(mounted, "mounting a tmpfs on {shown} failed; run this test as root");
        Self(path.to_owned())
    }

    /// A file system of a disk, which can hang; `image` is the disk.
    fn ext4_on(path: &Path, image: &Path) -> Self {
        std::fs::create_dir_all(path).unwrap();
        std::fs::File::create(image).unwrap().set_len(16 << 20).unwrap();
        let (shown, image) = (path.to_str().unwrap(), image.to_str().unwrap());
        assert!(run("mkfs.ext4", &["-q", image]));
        let mounted = run("mount", &["-o", "loop", image, shown]);
        assert!(mounted, "mounting {image} on {shown} failed; run this test as root");
        Self(path.to_owned())
    }

    /// From now on it does not answer.
    fn hang(&self) -> Hanging<'_> {
        assert!(run("fsfreeze", &["-f", self.0.to_str().unwrap()]));
        Hanging(self)
    }

    /// Remounted with these options.
    fn remount(&self, options: &str) -> bool {
        run("mount", &["-o", &format!("remount,{options}"), self.0.to_str().unwrap()])
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        use std::io::Write as _;
        let mut ballast = std::fs::File::create(self.0.join("ballast")).unwrap();
        let error = loop {
            if let Err(error) = ballast.write_all(&[b'x'; 64]) {
                break error;
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the bridge of a failed test may still have files open.
        run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

/// A disk that hangs; dropped, it answers again. Until then its processes cannot be killed.
struct Hanging<'a>(&'a Disk);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        run("fsfreeze", &["-u", self.0.0.to_str().unwrap()]);
    }
}

fn reported(watcher: &Watcher, what: &str) -> Option<Value> {
    let topic = format!("gsdk/bridge/event/{what}");
    watcher.find(|seen| seen.topic == topic).map(|seen| seen.json())
}

/// Changes a device and waits for its event, in this chain if one is named.
pub(super) async fn happens(
    watcher: &Watcher,
    simulator: &Simulator,
    chain: Option<&Value>,
) -> Value {
    let connected = simulator.control().managed().into_iter().find(|it| it.status == 1);
    let device = connected.unwrap().device_id;
    let in_chain = || {
        let mut events = watcher.events_of(device);
        events.retain(|event| chain.is_none_or(|chain| event["chain"] == *chain));
        events
    };
    let known = in_chain().len();
    assert_eq!(simulator.control().apply_fault(&Fault::Drop { devices: device.into() }), 1);
    within(PATIENCE, "until an event is reported nevertheless", async || {
        in_chain().get(known).cloned()
    })
    .await
    .0
}

/// Killed and started again, it continues its current chain.
async fn goes_on(bridge: &mut Bridge, watcher: &Watcher, simulator: &Simulator) {
    let chain = happens(watcher, simulator, None).await["chain"].clone();
    bridge.kill();
    bridge.restart();
    ready(bridge, PATIENCE, "killed and started again, until ready").await;
    happens(watcher, simulator, Some(&chain)).await;
}

/// Within each chain every device's events are unbroken, and the next chain begins with 1.
fn check_chains(watcher: &Watcher) {
    let seen = watcher.all().into_iter().map(|seen| (seen.topic, seen.payload.into_bytes()));
    for events in super::by_device(seen).values() {
        for of_chain in events.chunk_by(|before, after| before["chain"] == after["chain"]) {
            check_chain(of_chain);
            assert_eq!(of_chain[0]["seq"], 1, "{}", of_chain[0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, to mount a file system: make test-root"]
async fn a_full_disk_is_reported_and_recovered_from_once_there_is_space() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(40).await;
    let setup = Setup::new(broker.port, "").lines(ALL).gateway("lobby", &simulator, "");
    let disk = Disk::mounted_on(&setup.state_dir());
    let mut bridge = setup.start();
    ready(&bridge, PATIENCE, "full disk: the start, until ready").await;
    disk.fill();
    simulator.control().storm(Storm::of(2_000)).await.unwrap();
    within(PATIENCE, "full disk: until store_failed is reported", async || {
        reported(&watcher, "store_failed")
    })
    .await;
    let reset = within(PATIENCE, "full disk: until chain_reset is reported", async || {
        reported(&watcher, "chain_reset")
    });
    let (reset, _) = reset.await;
    assert!(reset["reason"].as_str().unwrap().contains("No space left"), "{reset}");
    assert_eq!(bridge.metric("gsdk_store_ok").await, Some(0.0));
    let (_, body) = bridge.get("/readyz").await;
    assert!(body.contains("store_in_memory") && body.contains("the store: "), "{body}");
    happens(&watcher, &simulator, Some(&reset["to"])).await;
    // Items that a command makes meanwhile are lost with the bridge, and its response warns about
    // this.
    let warnings = async |id: u32| {
        let request = format!("{{\"device_id\":{id}}}");
        let args = ["-t", "gsdk/lobby/request/accept_filter/add", "-m", &request];
        let answer = rr(broker.port, &args, "20").await.unwrap();
        assert_eq!(answer["result"], "ok", "{answer}");
        answer["warnings"].clone()
    };
    let reported = warnings(7).await;
    assert_eq!(reported[0]["code"], "not_remembered", "{reported}");
    // Longer than one attempt to create a new log: it fails as well, without further effects.
    tokio::time::sleep(Duration::from_secs(11)).await;
    happens(&watcher, &simulator, Some(&reset["to"])).await;
    disk.make_room();
    reads(&bridge, "gsdk_store_ok", 1.0, HEALED_WITHIN, "full disk: room again, until healed")
        .await;
    assert_eq!(warnings(8).await, serde_json::json!([]));
    goes_on(&mut bridge, &watcher, &simulator).await;
    check_chains(&watcher);
    drop(bridge);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, to mount a file system: make test-root"]
async fn a_full_disk_that_then_hangs_holds_nothing_up() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(40).await;
    let setup = Setup::new(broker.port, "").gateway("lobby", &simulator, "");
    let setup = setup.environment("RUST_LOG", "gsdk2mqtt=debug");
    let image = setup.state_dir().with_extension("image");
    let disk = Disk::ext4_on(&setup.state_dir(), &image);
    let mut bridge = setup.start();
    ready(&bridge, PATIENCE, "hanging disk: the start, until ready").await;
    disk.fill();
    simulator.control().storm(Storm::of(2_000)).await.unwrap();
    within(PATIENCE, "hanging disk: until store_failed is reported", async || {
        reported(&watcher, "store_failed")
    })
    .await;
    let hanging = disk.hang();
    // Twice, as the second attempt finds that the first has not ended.
    for attempt in ["first", "second"] {
        let aim = format!("hanging disk: until the {attempt} attempt is over");
        let attempts = bridge.log().matches("does not answer").count();
        within(HEALED_WITHIN, &aim, async || {
            (bridge.log().matches("does not answer").count() > attempts).then_some(())
        })
        .await;
        happens(&watcher, &simulator, None).await;
    }
    let (_, body) = bridge.get("/readyz").await;
    assert!(body.contains("store_in_memory") && body.contains("does not answer"), "{body}");
    drop(hanging);
    disk.make_room();
    reads(&bridge, "gsdk_store_ok", 1.0, HEALED_WITHIN, "hanging disk: until healed").await;
    goes_on(&mut bridge, &watcher, &simulator).await;
    check_chains(&watcher);
    drop(bridge);
}

/// Sets the limit of this process to the size of its files, in bytes; it may be raised again.
fn limit_file_size(bridge: &Bridge, limit: &str) {
    assert!(run("prlimit", &["--pid", &bridge.pid().to_string(), &format!("--fsize={limit}:")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_file_sizes_is_like_a_full_disk() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(40).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "file size: the start, until ready").await;
    limit_file_size(&bridge, "200000");
    simulator.control().storm(Storm::of(2_000)).await.unwrap();
    let reset = within(PATIENCE, "file size: until chain_reset is reported", async || {
        reported(&watcher, "store_failed")?;
        reported(&watcher, "chain_reset")
    });
    let (reset, _) = reset.await;
    assert!(reset["reason"].as_str().unwrap().contains("File too large"), "{reset}");
    happens(&watcher, &simulator, None).await;
    limit_file_size(&bridge, "unlimited");
    reads(&bridge, "gsdk_store_ok", 1.0, HEALED_WITHIN, "file size: raised, until healed").await;
    goes_on(&mut bridge, &watcher, &simulator).await;
    check_chains(&watcher);
}

/// Aim: the history names the time of events that were published while the store had failed, also
/// if the process ended meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_published_from_memory_is_a_gap_in_the_history() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(40).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "memory: the start, until ready").await;
    limit_file_size(&bridge, "200000");
    simulator.control().storm(Storm::of(2_000)).await.unwrap();
    let reset = within(PATIENCE, "memory: until chain_reset is reported", async || {
        reported(&watcher, "chain_reset")
    });
    let (reset, _) = reset.await;
    let event = happens(&watcher, &simulator, Some(&reset["to"])).await;
    bridge.kill();
    bridge.restart();
    ready(&bridge, PATIENCE, "memory: killed and started again, until ready").await;
    let at = event["received_at"].as_str().unwrap();
    let (_, body) = bridge.get(&format!("/api/v1/events?order=asc&limit=1000&from={at}")).await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    let events = answer["events"].as_array().unwrap();
    assert!(events.iter().all(|recorded| recorded["event_id"] != event["event_id"]), "{answer}");
    let missing = &answer["gap"]["missing"][0];
    let bounds = [&missing["from"], &missing["to"]].map(|it| it.as_str().unwrap_or_default());
    assert!(bounds[0] <= at && at <= bounds[1], "{missing} {at}");
}

/// Starts it with an unusable state directory: it exits with 1 and prints the remedy.
async fn is_exit_1(bridge: &mut Bridge, reason: &str) {
    bridge.restart();
    let status = bridge.ends().await;
    let log = bridge.log();
    assert_eq!(status.code(), Some(1), "{log}");
    for part in ["state_dir cannot be used", reason, "set another state_dir"] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, to mount a file system: make test-root"]
async fn a_disk_that_is_read_only_or_full_at_the_start_is_exit_1_and_nothing_is_lost() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(10).await;
    let setup = Setup::new(broker.port, "").gateway("lobby", &simulator, "");
    let disk = Disk::mounted_on(&setup.state_dir());
    let mut bridge = setup.start();
    ready(&bridge, PATIENCE, "read-only: the first start, until ready").await;
    let before = happens(&watcher, &simulator, None).await;
    bridge.terminate().await;
    assert!(disk.remount("ro"));
    is_exit_1(&mut bridge, "Read-only file system").await;
    let mut history = bounded(PROGRAM);
    history.args(["history", "--json", "--config"]).arg(bridge.config_file());
    let printed = history.output().unwrap();
    let events = String::from_utf8(printed.stdout).unwrap();
    assert!(events.contains(before["event_id"].as_str().unwrap()), "{:?}", printed.stderr);
    assert!(disk.remount("rw"));
    disk.fill();
    is_exit_1(&mut bridge, "No space left").await;
    let mut check = bounded(PROGRAM);
    check.args(["check", "--connect", "--config"]).arg(bridge.config_file());
    let checked = String::from_utf8(check.output().unwrap().stdout).unwrap();
    assert!(checked.contains("cannot be written (No space left"), "{checked}");
    disk.make_room();
    bridge.restart();
    ready(&bridge, PATIENCE, "read-only: writable, until ready").await;
    happens(&watcher, &simulator, Some(&before["chain"])).await;
    assert!(reported(&watcher, "chain_reset").is_none());
    check_chains(&watcher);
    drop(bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_set_aside_and_a_new_chain_begins() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(10).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "damaged log: the first start, until ready").await;
    let before = happens(&watcher, &simulator, None).await;
    bridge.kill();
    let log = bridge.state_dir().join("log/segment-0000000001");
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&log, bytes).unwrap();
    bridge.restart();
    let (reset, _) = within(PATIENCE, "damaged log: until chain_reset is reported", async || {
        reported(&watcher, "chain_reset")
    })
    .await;
    assert_eq!(reset["from"], before["chain"]);
    ready(&bridge, PATIENCE, "damaged log: until ready").await;
    assert!(log.with_extension("damaged").exists());
    goes_on(&mut bridge, &watcher, &simulator).await;
    check_chains(&watcher);
}

/// Aim: a chain that has ended does not come back, also if no file could be removed when it ended.
/// Method: its head is mounted on itself, so that it can be written but neither removed nor
/// replaced, and the segment is moved away until the bridge has stopped.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, to mount a file system: make test-root"]
async fn a_head_that_cannot_be_removed_does_not_continue_a_chain_that_has_ended() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let simulator = crate::harness::simulator(5).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "fixed head: the first start").await;
    let log = bridge.state_dir().join("log");
    let (head, segment) = (log.join("head"), log.join("segment-0000000001"));
    let away = log.join("away");
    let shown = head.to_str().unwrap();
    assert!(run("mount", &["--bind", shown, shown]), "run this test as root");
    let mounted = Disk(head.clone());
    std::fs::rename(&segment, &away).unwrap();
    within(PATIENCE, "fixed head: until the chain has ended", async || {
        reported(&watcher, "chain_reset")
    })
    .await;
    let (_, said) = bridge.terminate().await;
    assert!(said.contains("store: not written at the stop"), "{said}");
    drop(mounted);
    std::fs::rename(&away, &segment).unwrap();
    watcher.clear();
    bridge.restart();
    let (reset, _) = within(PATIENCE, "fixed head: until a new chain is reported", async || {
        reported(&watcher, "chain_reset")
    })
    .await;
    let reason = reset["reason"].as_str().unwrap();
    assert!(reason.contains("could not be written when the last process ended"), "{reason}");
}
