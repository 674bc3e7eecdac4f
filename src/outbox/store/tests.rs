//! Tests of the store: kills, torn tails, damage, cleaning; nothing is ever told twice differently.
//!
//! May not use the bridge. A kill is a store that is dropped without a stop.

mod faults;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::code::Reader;
use super::*;
use crate::fleet::{DeviceInfo, DeviceType, Known, Mode, Remembered, Status};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::Subject;

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
        told: vec![Status::TryToConnect, Status::TcpCannotConnect],
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

/// What a store holds, to compare.
type Held = (BTreeMap<u64, (u64, Bytes)>, BTreeMap<u32, u64>);

fn held(content: &Content) -> Held {
    let events = content.events.iter().map(|it| (it.number, (it.lost, it.payload.clone())));
    let devices = content.devices.iter().map(|(_, id, device)| (id.get(), device.seq));
    (events.collect(), devices.collect())
}

fn fresh(dir: &Path) -> Store {
    let none = std::iter::empty();
    Store::fresh_at(dir, SyncMode::Interval, "k7f3", BOOT, none).unwrap()
}

fn open(dir: &Path, boot: &str) -> Found {
    Store::open_at(dir, SyncMode::Interval, boot)
}

fn goes_on(dir: &Path) -> (Store, Held) {
    let found = open(dir, BOOT);
    let held = held(&found.content);
    match found.verdict {
        Verdict::GoesOn(chain, store) => {
            assert_eq!(chain, "k7f3");
            (*store, held)
        }
        other => panic!("{other:?}"),
    }
}

fn ends(dir: &Path, boot: &str) -> (String, Held) {
    let found = open(dir, boot);
    match found.verdict {
        Verdict::Ends { reason, .. } => (reason.unwrap(), held(&found.content)),
        other => panic!("{other:?}"),
    }
}

fn write_event(store: &mut Store, number: u64) {
    let mut batch = Batch::default();
    batch.event(number, 0, &subject(1), "connected", &payload(number));
    batch.device(&lobby(), id(1), &device(number));
    store.write(&mut batch).unwrap();
}

fn copied(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

/// A store of three batches, killed; with the segment that holds them.
fn killed() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path());
    (1..=3).for_each(|number| write_event(&mut store, number));
    store.syncer.settle();
    let segment = load::segment_path(dir.path(), store.current);
    (dir, segment)
}

#[test]
fn what_was_written_is_there_after_a_kill() {
    let (dir, _) = killed();
    let (mut store, before) = goes_on(dir.path());
    assert_eq!(before.0.len(), 3);
    assert_eq!(before.1, BTreeMap::from([(1, 3)]));
    let found = open(copied(dir.path()).path(), BOOT);
    assert_eq!(found.content.devices[0].2, device(3), "to the last field");
    let mut batch = Batch::default();
    batch.gone(1);
    batch.lost(2, 7);
    batch.device_gone(&lobby(), id(1));
    store.write(&mut batch).unwrap();
    drop(store);
    let (_, after) = goes_on(dir.path());
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

    let (store, _) = goes_on(dir.path());
    store.stop().unwrap();
    assert!(matches!(open(dir.path(), "boot-2").verdict, Verdict::GoesOn(..)));

    let found = Store::open_at(dir.path(), SyncMode::Always, "boot-2");
    let Verdict::GoesOn(_, mut store) = found.verdict else { panic!("same boot") };
    write_event(&mut store, 4);
    drop(store);
    assert!(matches!(open(dir.path(), "boot-3").verdict, Verdict::GoesOn(..)));
}

#[test]
fn a_tail_torn_at_any_byte_is_cut() {
    let (dir, segment) = killed();
    let whole = std::fs::read(&segment).unwrap();
    let mut two = 0;
    let mut ends_at = Vec::new();
    while let Next::Whole(_, next) = frame::next(&whole, two) {
        ends_at.push(next);
        two = next;
    }
    let (before_last, end) = (ends_at[2], ends_at[3]);
    assert_eq!(end, whole.len());
    for cut in before_last..=end {
        let copy = copied(dir.path());
        let path = copy.path().join(segment.file_name().unwrap());
        std::fs::write(&path, &whole[..cut]).unwrap();
        // The kill was in the middle of the last write, before it was said to be done.
        let said = End { oldest: 1, segment: 1, len: before_last as u64 };
        EndFile::begin(copy.path(), said).unwrap();
        let (mut store, left) = goes_on(copy.path());
        let events = if cut == end { 3 } else { 2 };
        assert_eq!((left.0.len(), left.1[&1]), (events, events as u64), "cut at {cut}");
        write_event(&mut store, 4);
        drop(store);
        let (_, left) = goes_on(copy.path());
        assert_eq!(left.0.len(), events + 1, "written on after a cut at {cut}");
    }
}

#[test]
fn a_damaged_byte_anywhere_ends_the_chain_and_invents_nothing() {
    let (dir, segment) = killed();
    let written = goes_on(copied(dir.path()).path()).1;
    for name in [segment.file_name().unwrap(), head::NAME.as_ref()] {
        let whole = std::fs::read(dir.path().join(name)).unwrap();
        for at in 0..whole.len() {
            let copy = copied(dir.path());
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            std::fs::write(copy.path().join(name), &bytes).unwrap();
            let (reason, left) = ends(copy.path(), BOOT);
            assert!(reason.contains("damaged") || reason.contains("read"), "{reason}");
            let known = |(number, event)| written.0.get(number) == Some(event);
            assert!(left.0.iter().all(known), "byte {at}");
            let aside = std::fs::read_dir(copy.path()).unwrap();
            let mut names = aside.map(|it| it.unwrap().file_name().into_string().unwrap());
            assert!(names.any(|name| name.ends_with(".damaged-1")), "byte {at}");
            // Killed before it began anew: the rest is not taken for all.
            assert!(matches!(open(copy.path(), BOOT).verdict, Verdict::Ends { .. }));
            let store = fresh(copy.path());
            drop(store);
            _ = goes_on(copy.path());
        }
    }
}

#[test]
fn an_empty_directory_is_no_reset() {
    let dir = tempfile::tempdir().unwrap();
    let found = open(dir.path(), BOOT);
    let Verdict::Ends { from, reason } = found.verdict else { panic!("of what?") };
    assert_eq!((from, reason), (None, None));
}

#[test]
fn another_versions_store_is_set_aside_and_named() {
    let (dir, _) = killed();
    let head = dir.path().join("head");
    let text = std::fs::read_to_string(&head).unwrap().replace("store 1", "store 9");
    let body = &text[..text.rfind("crc ").unwrap()];
    let check = crc32fast::hash(body.as_bytes());
    std::fs::write(&head, format!("{body}crc {check:08x}\n")).unwrap();
    let (reason, _) = ends(dir.path(), BOOT);
    assert!(reason.contains("another version wrote it (gsdk2mqtt store 9"), "{reason}");
    assert!(dir.path().join("head.damaged-1").exists());
}

/// What the first builds wrote of a device ended before its absence, and later ones wrote when it
/// left instead.
#[test]
fn a_device_as_earlier_builds_wrote_it_is_read() {
    let device = Remembered { absent_ms: 9, ..device(7) };
    let value = Batch::device_value(&device);
    assert_eq!(Reader(&value).remembered().unwrap(), device);
    let older = &value[..value.len() - (1 + 8 + 1)];
    let from_zero = Remembered { absent_ms: 0, ..device };
    assert_eq!(Reader(older).remembered().unwrap(), from_zero);
    let left_at = [older, &[1], &1_790_000_000_000_u64.to_le_bytes()[..], &[0]].concat();
    assert_eq!(Reader(&left_at).remembered().unwrap(), from_zero);
    let unknown = [older, &[0, 0]].concat();
    assert_eq!(Reader(&unknown).remembered().unwrap(), from_zero);
}

#[test]
fn a_store_that_was_given_up_proves_nothing() {
    let (dir, _) = killed();
    let (mut store, _) = goes_on(dir.path());
    store.syncer.fail();
    let mut batch = Batch::default();
    batch.gone(1);
    assert!(matches!(store.write(&mut batch), Err(StoreError::Sync(_))));
    store.give_up();
    let (reason, left) = ends(dir.path(), BOOT);
    assert!(reason.contains("head is missing"), "{reason}");
    assert_eq!(left.0.len(), 3);
}

#[test]
fn what_waits_is_read_where_nothing_can_be_written() {
    let (dir, _) = killed();
    let (store, written) = goes_on(dir.path());
    // As on a full disk: the next segment cannot be made.
    std::fs::create_dir(load::segment_path(dir.path(), store.current + 1)).unwrap();
    drop(store);
    let found = open(dir.path(), BOOT);
    assert_eq!(held(&found.content), written);
    assert!(matches!(found.verdict, Verdict::Ends { .. }), "a directory is no segment");

    let (dir, _) = killed();
    let full = StoreError::Sync("the disk is full".to_owned());
    let found = Store::look(dir.path(), full);
    assert_eq!(held(&found.content).0.len(), 3);
    let Verdict::Unwritable { from, .. } = found.verdict else { panic!("{:?}", found.verdict) };
    assert_eq!(from.as_deref(), Some("k7f3"));
    assert_eq!(goes_on(dir.path()).1.0.len(), 3, "nothing was touched");
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/state");
    let held = StateDir::hold(&path).unwrap();
    let error = StateDir::hold(&path).unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    drop(held);
    StateDir::hold(&path).unwrap();
}

#[test]
fn a_store_that_was_dropped_clears_nothing_away_behind_the_next() {
    let (dir, segment) = killed();
    let (mut store, _) = goes_on(dir.path());
    let mut batch = Batch::default();
    (1..=3).for_each(|number| batch.gone(number));
    batch.device(&lobby(), id(1), &device(9));
    store.write(&mut batch).unwrap();
    drop(store);
    assert!(
        !segment.exists(),
        "nothing in it lives, so it is cleared away, and before the next opens"
    );
}

#[test]
fn a_million_in_and_out_leaves_little() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path());
    // No disk is as quick as this test writes.
    store.beside = false;
    let payload = [b'x'; 300];
    let mut batch = Batch::default();
    // One that nobody takes must not hold the others' space.
    batch.event(1, 0, &subject(9), "connected", &payload);
    store.write(&mut batch).unwrap();
    for number in (2..1_000_002).step_by(20) {
        for number in number..number + 20 {
            batch.event(number, 0, &subject(1), "connected", &payload);
        }
        batch.device(&lobby(), id(1), &device(number));
        store.write(&mut batch).unwrap();
        (number..number + 20).for_each(|number| batch.gone(number));
        store.write(&mut batch).unwrap();
    }
    store.syncer.settle();
    let files = std::fs::read_dir(dir.path()).unwrap();
    let bytes: u64 = files.map(|it| it.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= SLACK + 2 * SEGMENT_MAX, "{bytes} bytes");
    drop(store);
    let (_, left) = goes_on(dir.path());
    assert_eq!(left.0.keys().copied().collect::<Vec<_>>(), [1]);
}

/// Prints what a commit costs: `cargo test --release --lib cost_of -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_commit_and_of_a_start() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let mut store = fresh(dir.path());
    let payload = [b'x'; 300];
    let mut number = 0;
    for rows in [1_u32, 20] {
        let commits = 100_000 / rows;
        let mut batch = Batch::default();
        let began = std::time::Instant::now();
        for _ in 0..commits {
            for row in 1..=rows {
                number += 1;
                batch.event(number, 0, &subject(row), "connected", &payload);
                batch.device(&lobby(), id(row), &device(number));
                if number > 1000 {
                    batch.gone(number - 1000);
                }
            }
            store.write(&mut batch).unwrap();
        }
        println!("a commit of {rows}: {:?}", began.elapsed() / commits);
    }
    let (began, times) = (std::time::Instant::now(), 100_000);
    for _ in 0..times {
        store.end.write(end_of(&store.segments)).unwrap();
    }
    println!("of that, to say where the log ends: {:?}", began.elapsed() / times);
    let mut batch = Batch::default();
    (1..=100_000).for_each(|number| batch.device(&lobby(), id(number), &device(7)));
    store.write(&mut batch).unwrap();
    store.stop().unwrap();
    let began = std::time::Instant::now();
    let found = open(dir.path(), BOOT);
    println!("a start with {} last states: {:?}", found.content.devices.len(), began.elapsed());
}

#[derive(Clone, Debug)]
enum Op {
    Events(u8, u8),
    Gone(usize),
    Lost(usize, u64),
    Device(u32, u64),
    DeviceGone(u32),
    Kill,
    Stop,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..4u8, 0..3u8).prop_map(|(events, lost)| Op::Events(events, lost)),
        6 => any::<usize>().prop_map(Op::Gone),
        1 => (any::<usize>(), 1..9u64).prop_map(|(at, lost)| Op::Lost(at, lost)),
        4 => (1..20u32, 0..9u64).prop_map(|(id, seq)| Op::Device(id, seq)),
        1 => (1..20u32).prop_map(Op::DeviceGone),
        1 => Just(Op::Kill),
        1 => Just(Op::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_happens_what_was_written_is_there(
        ops in prop::collection::vec(op(), 1..120),
        segment_max in 100..2_000u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let small = |store: Store| Store { beside: false, segment_max, ..store };
        let mut store = small(fresh(dir.path()));
        let mut model = Held::default();
        let mut number = 0;
        for op in ops {
            let mut batch = Batch::default();
            let nth = |at: usize, model: &Held| {
                let count = model.0.len();
                (count > 0).then(|| *model.0.keys().nth(at % count).unwrap())
            };
            match op {
                Op::Events(events, lost) => for _ in 0..events {
                    number += 1;
                    let lost = u64::from(lost);
                    batch.event(number, lost, &subject(1), "connected", &payload(number));
                    model.0.insert(number, (lost, payload(number)));
                },
                Op::Gone(at) => if let Some(number) = nth(at, &model) {
                    batch.gone(number);
                    model.0.remove(&number);
                },
                Op::Lost(at, lost) => if let Some(number) = nth(at, &model) {
                    batch.lost(number, lost);
                    model.0.get_mut(&number).unwrap().0 = lost;
                },
                Op::Device(number, seq) => {
                    batch.device(&lobby(), id(number), &device(seq));
                    model.1.insert(number, seq);
                }
                Op::DeviceGone(number) => {
                    batch.device_gone(&lobby(), id(number));
                    model.1.remove(&number);
                }
                Op::Kill => {
                    store.syncer.settle();
                    drop(store);
                    let (again, held) = goes_on(dir.path());
                    prop_assert_eq!(&held, &model);
                    store = small(again);
                }
                Op::Stop => {
                    store.syncer.settle();
                    store.stop().unwrap();
                    let found = open(dir.path(), "another");
                    prop_assert_eq!(&held(&found.content), &model);
                    let Verdict::GoesOn(_, again) = found.verdict else { panic!("stopped") };
                    drop(again);
                    // Back in the first boot, which the head does not know any more.
                    _ = ends(dir.path(), BOOT);
                    let batches = anew(&found.content);
                    let again = Store::fresh_at(
                        dir.path(), SyncMode::Interval, "k7f3", BOOT, batches,
                    );
                    store = small(again.unwrap());
                }
            }
            store.write(&mut batch).unwrap();
            let live: u64 = store.segments.values().map(|segment| segment.live_bytes).sum();
            let most = 2 * live + 8 * segment_max + 4_096;
            prop_assert!(store.bytes() <= most, "{} of {most}", store.bytes());
        }
    }
}

fn anew(content: &Content) -> [Batch; 1] {
    let mut batch = Batch::default();
    for Event { number, lost, subject, event_type, payload } in &content.events {
        batch.event(*number, *lost, subject, event_type, payload);
    }
    for (gateway, device_id, device) in &content.devices {
        batch.device(gateway, *device_id, device);
    }
    [batch]
}
