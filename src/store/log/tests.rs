//! Tests of the log: kills, torn tails, damage, cleaning. A kill is a log that is dropped without a
//! stop.

mod any_order;
mod faults;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use tempfile::TempDir;

use super::frame::{frames, json_frame};
use super::*;
use crate::fleet::{DeviceDetails, DeviceInfo, DeviceType, Known, Mode, Remembered, Status};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::Subject;
use crate::store::{Event, StateDir};

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
        details: Some(Arc::new(DeviceDetails {
            model: Some("X-Station 2".to_owned()),
            firmware: Some("1.2.0".to_owned()),
            mac: None,
        })),
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

fn put_device(batch: &mut LogBatch, number: u32, device: &Remembered) {
    batch.put(Key::Device(lobby(), id(number)), &encode(device));
}

fn lost(batch: &mut LogBatch, id: u64, count: u64) {
    batch.put(Key::LostBefore(id), &encode(&count));
}

fn delivered(batch: &mut LogBatch, id: u64) {
    batch.add(&Record::Done { id, delivered: true });
}

fn add_event(batch: &mut LogBatch, event: Event) {
    batch.add(&Record::Event(Cow::Owned(event)));
}

/// What a log holds, to compare: events by ID with what was lost before, and `seq` by device.
type Held = (BTreeMap<u64, (u64, Bytes)>, BTreeMap<u32, u64>);

fn held(content: &LogContent) -> Held {
    let lost = |id| content.values.get(&Key::LostBefore(id)).and_then(|it| decode(it));
    let events = content.events.values();
    let events = events.map(|it| (it.id, (lost(it.id).unwrap_or(0), it.payload.clone())));
    let devices = content.values.iter().filter_map(|(key, value)| match key {
        Key::Device(_, id) => Some((id.get(), decode::<Remembered>(value).unwrap().seq)),
        _ => None,
    });
    (events.collect(), devices.collect())
}

fn created(dir: &Path) -> Log {
    Log::create(dir, false, "k7f3", 1, 0, std::iter::empty()).unwrap()
}

/// Writes a batch, and cleans the log as if the history had read all of it.
fn write(log: &mut Log, batch: &mut LogBatch) {
    log.write(batch, true).unwrap();
    log.clean(u32::MAX).unwrap();
}

/// Segments of this length, each there as soon as the one before is full.
fn with_segments_of(segment_max: u64, log: Log) -> Log {
    Log { starting: true, segment_max, ..log }
}

/// Waits until the worker has done what was requested.
fn finish(log: &Log) {
    let (done, is_done) = sync_channel(1);
    log.worker.request(move || {
        _ = done.send(());
        Ok(())
    });
    // A failed job has ended the thread.
    _ = is_done.recv();
    while log.hangs(Duration::ZERO) {
        std::thread::yield_now();
    }
}

/// The machine is restarted.
fn reboot(dir: &Path) {
    let head = LogHead::read(dir).unwrap().unwrap();
    LogHead { boot: "an earlier one".to_owned(), ..head }.write(dir).unwrap();
}

fn open(dir: &Path) -> (LogContent, Recovery) {
    Log::open(dir, false).unwrap()
}

fn continues(dir: &Path) -> (Log, Held) {
    match open(dir) {
        (content, Recovery::Continue(log)) => {
            assert_eq!(log.chain(), "k7f3");
            (*log, held(&content))
        }
        (_, ended) => panic!("{ended:?}"),
    }
}

fn ends(dir: &Path) -> (String, Held) {
    match open(dir) {
        (content, Recovery::NewChain { reason, .. }) => (reason.unwrap(), held(&content)),
        (_, Recovery::Continue(log)) => panic!("{log:?}"),
    }
}

fn write_event(log: &mut Log, number: u64) {
    let mut batch = LogBatch::default();
    add_event(&mut batch, event(number));
    put_device(&mut batch, 1, &device(number));
    write(log, &mut batch);
}

fn device_of(content: &LogContent) -> Remembered {
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
fn killed() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = created(dir.path());
    (1..=3).for_each(|number| write_event(&mut log, number));
    finish(&log);
    let segment = segment_path(dir.path(), log.current());
    (dir, segment)
}

#[test]
fn written_records_are_read_after_a_kill() {
    let (dir, _) = killed();
    let (mut log, before) = continues(dir.path());
    assert_eq!(before.0.len(), 3);
    assert_eq!(before.1, BTreeMap::from([(1, 3)]));
    let (content, _) = open(copied(dir.path()).path());
    assert_eq!(content.next_id, 4);
    assert_eq!(content.events[&2], event(2), "to the last field");
    assert_eq!(device_of(&content), device(3), "to the last field");
    let mut batch = LogBatch::default();
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
    let copy = copied(dir.path());
    reboot(copy.path());
    let (reason, left) = ends(copy.path());
    assert!(reason.contains("restarted"), "{reason}");
    assert_eq!(left.0.len(), 3, "waiting events are delivered nevertheless");

    let (log, _) = continues(dir.path());
    log.stop().unwrap();
    reboot(dir.path());
    let (_, Recovery::Continue(mut log)) = Log::open(dir.path(), true).unwrap() else {
        panic!("it was stopped cleanly");
    };
    write_event(&mut log, 4);
    drop(log);
    reboot(dir.path());
    assert_eq!(continues(dir.path()).1.0.len(), 4, "it was always synced");
}

#[test]
fn a_tail_torn_at_any_byte_is_cut() {
    let (dir, segment) = killed();
    let whole = std::fs::read(&segment).unwrap();
    let ends_at: Vec<_> = frames(&whole).map(|(end, _)| end).collect();
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
    for name in [segment.file_name().unwrap(), "head".as_ref()] {
        let whole = std::fs::read(dir.path().join(name)).unwrap();
        for at in 0..whole.len() {
            let copy = copied(dir.path());
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            std::fs::write(copy.path().join(name), &bytes).unwrap();
            let (reason, left) = ends(copy.path());
            assert!(reason.contains("damaged"), "{reason}");
            let known = |(number, event)| written.0.get(number) == Some(event);
            assert!(left.0.iter().all(known), "byte {at}");
            let aside = std::fs::read_dir(copy.path()).unwrap();
            let mut names = aside.map(|it| it.unwrap().file_name().into_string().unwrap());
            assert!(names.any(|name| name.ends_with(".damaged")), "byte {at}");
            // Killed before it created a new log: the rest does not count as complete.
            assert!(matches!(open(copy.path()).1, Recovery::NewChain { .. }));
            let log = created(copy.path());
            drop(log);
            _ = continues(copy.path());
        }
    }
}

#[test]
fn an_empty_directory_is_no_reset() {
    let dir = tempfile::tempdir().unwrap();
    let (_, Recovery::NewChain { from, reason }) = open(dir.path()) else { panic!("of what?") };
    assert_eq!((from, reason), (None, None));
}

#[test]
fn a_store_that_was_given_up_proves_nothing() {
    let (dir, _) = killed();
    let (mut log, _) = continues(dir.path());
    log.worker.request(|| Err(StoreError::Failed("a test".to_owned())));
    finish(&log);
    let mut batch = LogBatch::default();
    delivered(&mut batch, 1);
    assert!(matches!(log.write(&mut batch, true), Err(StoreError::Failed(_))));
    log.give_up();
    let (reason, left) = ends(dir.path());
    assert!(reason.contains("could not be written when"), "{reason}");
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
    let (log, _) = continues(dir.path());
    let mut batch = LogBatch::default();
    (1..=3).for_each(|number| delivered(&mut batch, number));
    put_device(&mut batch, 1, &device(9));
    let mut log = with_segments_of(1, log);
    write(&mut log, &mut batch);
    drop(log);
    assert!(!segment.exists(), "nothing in it is live, so it is removed before the next start");
}

#[test]
fn a_million_in_and_out_leaves_little() {
    let dir = tempfile::tempdir().unwrap();
    // No disk is as quick as this test writes.
    let mut log = with_segments_of(SEGMENT_MAX, created(dir.path()));
    let event = |number| Event { payload: Bytes::from_static(&[b'x'; 300]), ..event(number) };
    let mut batch = LogBatch::default();
    // An event that is not delivered must not keep the space of the others.
    add_event(&mut batch, Event { subject: subject(9), ..event(1) });
    write(&mut log, &mut batch);
    for number in (2..1_000_002).step_by(20) {
        for number in number..number + 20 {
            add_event(&mut batch, event(number));
        }
        put_device(&mut batch, 1, &device(number));
        write(&mut log, &mut batch);
        (number..number + 20).for_each(|number| delivered(&mut batch, number));
        write(&mut log, &mut batch);
    }
    finish(&log);
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
        let mut batch = LogBatch::default();
        let began = std::time::Instant::now();
        for _ in 0..commits {
            for row in 1..=rows {
                number += 1;
                add_event(&mut batch, event(number));
                put_device(&mut batch, row, &device(number));
                if number > 1000 {
                    delivered(&mut batch, number - 1000);
                }
            }
            write(&mut log, &mut batch);
        }
        println!("a commit of {rows}: {:?}", began.elapsed() / commits);
    }
    let mut batch = LogBatch::default();
    (1..=100_000).for_each(|number| put_device(&mut batch, number, &device(7)));
    write(&mut log, &mut batch);
    log.stop().unwrap();
    let began = std::time::Instant::now();
    let (content, _) = open(dir.path());
    println!("a start with {} last states: {:?}", content.values.len(), began.elapsed());
}

#[test]
fn what_is_stored_of_a_device_keeps_its_form() {
    let stored = [
        &[3, 1, 128, 4, 1, 0, 128, 176, 131, 197, 152, 104, 1, 128, 4, 2, 8, 128, 4, 1, 1, 26, 1],
        &[192, 168, 0, 104, 150, 160, 6, 0, 0, 1, 0, 0, 1, 1, 11][..],
        b"X-Station 2",
        &[1, 5],
        b"1.2.0",
        &[0],
    ];
    assert_eq!(encode(&device(3)), stored.concat());
    assert_eq!(decode::<Remembered>(&stored.concat()), Some(device(3)));
}
