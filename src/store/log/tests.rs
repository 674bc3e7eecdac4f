//! Tests of the log: kills, torn tails, damage, cleaning. A kill is a log that is dropped without a
//! stop.

mod any_order;
mod faults;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;

use super::segment::segment_numbers;
use super::*;
use crate::fleet::{DeviceInfo, DeviceType, Known, Mode, Remembered, Status};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::Subject;
use crate::store::{Event, StateDir};

const BOOT: &str = "boot-1";

fn lobby() -> GatewayName {
    "lobby".parse().unwrap()
}

fn id(number: u32) -> DeviceId {
    DeviceId::new(number).unwrap()
}

fn device(seq: u64) -> Remembered {
    Remembered {
        absent_ms: 0,
        forgotten: false,
        seq,
        status: Some(Status::TcpCannotConnect),
        known: Some(Known {
            connected: false,
            since: Moment::from_millis(1_790_000_000_000),
            exact: true,
            whole: false,
            status: Status::TcpCannotConnect,
        }),
        reported_retries: vec![Status::TryToConnect, Status::TcpCannotConnect].into(),
        managed: true,
        info: Some(DeviceInfo {
            device_type: DeviceType::from_code(0x0D),
            ip: Some("192.168.0.104".parse().unwrap()),
            port: 51211,
            mode: Mode::ServerToDevice,
            ssl: false,
            auto_reconnect: true,
        }),
    }
}

fn subject(number: u32) -> Subject {
    Subject::Device(lobby(), id(number))
}

fn payload(number: u64) -> Bytes {
    format!("{{\"event\":{number},\"{}\":0}}", "x".repeat(usize::try_from(number % 7).unwrap()))
        .into()
}

fn event(number: u64) -> Event {
    Event {
        id: number,
        recorded_at: Moment::from_millis(1_790_000_000_000),
        subject: subject(1),
        event_type: "connected".into(),
        payload: payload(number),
        read_at: None,
    }
}

fn put_device(batch: &mut Batch, number: u32, device: &Remembered) {
    batch.put(Key::Device(lobby(), id(number)), &encode(device));
}

fn lost(batch: &mut Batch, id: u64, count: u64) {
    batch.put(Key::LostBefore(id), &encode(&count));
}

fn delivered(batch: &mut Batch, id: u64) {
    batch.done(id, true);
}

/// What a log holds, to compare: events by ID with what was lost before, and `seq` by device.
type Held = (BTreeMap<u64, (u64, Bytes)>, BTreeMap<u32, u64>);

fn held(content: &Content) -> Held {
    let lost = |id| content.values.get(&Key::LostBefore(id)).and_then(|it| decode(it));
    let events =
        content.events.iter().map(|it| (it.id, (lost(it.id).unwrap_or(0), it.payload.clone())));
    let devices = content.values.iter().filter_map(|(key, value)| match key {
        Key::Device(_, id) => Some((id.get(), decode::<Remembered>(value).unwrap().seq)),
        _ => None,
    });
    (events.collect(), devices.collect())
}

/// A log as if nothing followed the history.
fn released(log: Log) -> Log {
    Log { read_to: u64::MAX, ..log }
}

fn created(dir: &Path) -> Log {
    let none = std::iter::empty();
    released(create::replace(dir, head(dir), 1, none).unwrap())
}

/// The head of a log that replaces the one there.
fn head(dir: &Path) -> Head {
    let last = segment_numbers(dir).unwrap().last().copied().unwrap_or(0);
    Head::new("k7f3", BOOT, SyncMode::Interval, last + 1)
}

fn open(dir: &Path, boot: &str) -> Opened {
    Log::open_at(dir, SyncMode::Interval, boot).unwrap()
}

fn continues(dir: &Path) -> (Log, Held) {
    let opened = open(dir, BOOT);
    let held = held(&opened.content);
    assert_eq!(opened.recovery, Recovery::Continue { chain: "k7f3".to_owned() });
    (released(*opened.log.unwrap()), held)
}

fn ends(dir: &Path, boot: &str) -> (String, Held) {
    let opened = open(dir, boot);
    match opened.recovery {
        Recovery::NewChain { reason, .. } => (reason.unwrap(), held(&opened.content)),
        other @ Recovery::Continue { .. } => panic!("{other:?}"),
    }
}

fn write_event(log: &mut Log, number: u64) {
    let mut batch = Batch::default();
    batch.event(&event(number));
    put_device(&mut batch, 1, &device(number));
    log.write(&mut batch, true).unwrap();
}

fn device_of(content: &Content) -> Remembered {
    decode(&content.values[&Key::Device(lobby(), id(1))]).unwrap()
}

fn copied(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

/// A log of three batches, killed; with the segment that holds them.
fn killed() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = created(dir.path());
    (1..=3).for_each(|number| write_event(&mut log, number));
    log.worker.finish();
    let segment = segment_path(dir.path(), log.current);
    (dir, segment)
}

#[test]
fn what_was_written_is_there_after_a_kill() {
    let (dir, _) = killed();
    let (mut log, before) = continues(dir.path());
    assert_eq!(before.0.len(), 3);
    assert_eq!(before.1, BTreeMap::from([(1, 3)]));
    let opened = open(copied(dir.path()).path(), BOOT);
    assert_eq!(opened.next_id, 4);
    assert_eq!(device_of(&opened.content), device(3), "to the last field");
    let mut batch = Batch::default();
    delivered(&mut batch, 1);
    lost(&mut batch, 2, 7);
    batch.remove(Key::Device(lobby(), id(1)));
    log.write(&mut batch, true).unwrap();
    drop(log);
    let (_, after) = continues(dir.path());
    assert_eq!(after.0.keys().copied().collect::<Vec<_>>(), [2, 3]);
    assert_eq!(after.0[&2].0, 7);
    assert!(after.1.is_empty());
}

#[test]
fn another_boot_ends_the_chain_unless_it_was_stopped_or_always_synced() {
    let (dir, _) = killed();
    let (reason, left) = ends(copied(dir.path()).path(), "boot-2");
    assert!(reason.contains("restarted"), "{reason}");
    assert_eq!(left.0.len(), 3, "what waits is delivered all the same");

    let (log, _) = continues(dir.path());
    log.stop().unwrap();
    assert!(matches!(open(dir.path(), "boot-2").recovery, Recovery::Continue { .. }));

    let opened = Log::open_at(dir.path(), SyncMode::Always, "boot-2").unwrap();
    let mut log = opened.log.expect("same boot");
    write_event(&mut log, 4);
    drop(log);
    assert!(matches!(open(dir.path(), "boot-3").recovery, Recovery::Continue { .. }));
}

#[test]
fn a_tail_torn_at_any_byte_is_cut() {
    let (dir, segment) = killed();
    let whole = std::fs::read(&segment).unwrap();
    let mut two = 0;
    let mut ends_at = Vec::new();
    while let frame::Next::Whole(_, next) = frame::next(&whole, two) {
        ends_at.push(next);
        two = next;
    }
    let (before_last, end) = (ends_at[3], ends_at[4]);
    assert_eq!(end, whole.len());
    for cut in before_last..=end {
        let copy = copied(dir.path());
        let path = copy.path().join(segment.file_name().unwrap());
        std::fs::write(&path, &whole[..cut]).unwrap();
        let (mut log, left) = continues(copy.path());
        let events = if cut == end { 3 } else { 2 };
        assert_eq!((left.0.len(), left.1[&1]), (events, events as u64), "cut at {cut}");
        write_event(&mut log, 4);
        drop(log);
        let (_, left) = continues(copy.path());
        assert_eq!(left.0.len(), events + 1, "written on after a cut at {cut}");
    }
}

#[test]
fn a_damaged_byte_anywhere_ends_the_chain_and_invents_nothing() {
    let (dir, segment) = killed();
    let written = continues(copied(dir.path()).path()).1;
    for name in [segment.file_name().unwrap(), head::NAME.as_ref()] {
        let whole = std::fs::read(dir.path().join(name)).unwrap();
        for at in 0..whole.len() {
            let copy = copied(dir.path());
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            std::fs::write(copy.path().join(name), &bytes).unwrap();
            let (reason, left) = ends(copy.path(), BOOT);
            assert!(reason.contains("damaged"), "{reason}");
            let known = |(number, event)| written.0.get(number) == Some(event);
            assert!(left.0.iter().all(known), "byte {at}");
            let aside = std::fs::read_dir(copy.path()).unwrap();
            let mut names = aside.map(|it| it.unwrap().file_name().into_string().unwrap());
            assert!(names.any(|name| name.ends_with(".damaged")), "byte {at}");
            // Killed before it began anew: the rest is not taken for all.
            assert!(matches!(open(copy.path(), BOOT).recovery, Recovery::NewChain { .. }));
            let log = created(copy.path());
            drop(log);
            _ = continues(copy.path());
        }
    }
}

#[test]
fn an_empty_directory_is_no_reset() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), BOOT);
    let Recovery::NewChain { from, reason } = opened.recovery else { panic!("of what?") };
    assert_eq!((from, reason), (None, None));
}

#[test]
fn a_store_that_was_given_up_proves_nothing() {
    let (dir, _) = killed();
    let (mut log, _) = continues(dir.path());
    log.worker.fail();
    let mut batch = Batch::default();
    delivered(&mut batch, 1);
    assert!(matches!(log.write(&mut batch, true), Err(StoreError::Failed(_))));
    log.give_up();
    let (reason, left) = ends(dir.path(), BOOT);
    assert!(reason.contains("head is missing"), "{reason}");
    assert_eq!(left.0.len(), 3);
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/state");
    let held = StateDir::lock(&path).unwrap();
    let error = StateDir::lock(&path).unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    drop(held);
    StateDir::lock(&path).unwrap();
}

#[test]
fn a_log_that_was_dropped_removes_nothing_behind_the_next_start() {
    let (dir, segment) = killed();
    let (mut log, _) = continues(dir.path());
    let mut batch = Batch::default();
    (1..=3).for_each(|number| delivered(&mut batch, number));
    put_device(&mut batch, 1, &device(9));
    (log.next_segment, log.segment_max) = (NextSegment::AtOnce, 1);
    log.write(&mut batch, true).unwrap();
    drop(log);
    assert!(!segment.exists(), "nothing in it is live, so it is removed before the next start");
}

#[test]
fn a_million_in_and_out_leaves_little() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = created(dir.path());
    // No disk is as quick as this test writes.
    log.next_segment = NextSegment::AtOnce;
    let event = |number| Event { payload: Bytes::from_static(&[b'x'; 300]), ..event(number) };
    let mut batch = Batch::default();
    // One that nobody takes must not hold the others' space.
    batch.event(&Event { subject: subject(9), ..event(1) });
    log.write(&mut batch, true).unwrap();
    for number in (2..1_000_002).step_by(20) {
        for number in number..number + 20 {
            batch.event(&event(number));
        }
        put_device(&mut batch, 1, &device(number));
        log.write(&mut batch, true).unwrap();
        (number..number + 20).for_each(|number| delivered(&mut batch, number));
        log.write(&mut batch, true).unwrap();
    }
    log.worker.finish();
    let files = std::fs::read_dir(dir.path()).unwrap();
    let bytes: u64 = files.map(|it| it.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 4 * SEGMENT_MAX, "{bytes} bytes");
    drop(log);
    let (_, left) = continues(dir.path());
    assert_eq!(left.0.keys().copied().collect::<Vec<_>>(), [1]);
}

/// Prints what a commit costs: `cargo test --release --lib cost_of -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_commit_and_of_a_start() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let mut log = created(dir.path());
    let event = |number| Event { payload: Bytes::from_static(&[b'x'; 300]), ..event(number) };
    let mut number = 0;
    for rows in [1_u32, 20] {
        let commits = 100_000 / rows;
        let mut batch = Batch::default();
        let began = std::time::Instant::now();
        for _ in 0..commits {
            for row in 1..=rows {
                number += 1;
                batch.event(&event(number));
                put_device(&mut batch, row, &device(number));
                if number > 1000 {
                    delivered(&mut batch, number - 1000);
                }
            }
            log.write(&mut batch, true).unwrap();
        }
        println!("a commit of {rows}: {:?}", began.elapsed() / commits);
    }
    let mut batch = Batch::default();
    (1..=100_000).for_each(|number| put_device(&mut batch, number, &device(7)));
    log.write(&mut batch, true).unwrap();
    log.stop().unwrap();
    let began = std::time::Instant::now();
    let opened = open(dir.path(), BOOT);
    println!("a start with {} last states: {:?}", opened.content.values.len(), began.elapsed());
}
