//! Logs that somebody cut, removed or wrote long ago, directories that go away, disks that hang.
//!
//! May not use the bridge.

use std::time::Duration;

use super::*;

/// Events that wait in `fixture/`, and the devices that it knows.
const LEFT: (usize, usize) = (16, 4);

/// A store of three batches in small segments, killed.
fn killed_in_segments() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path());
    (store.beside, store.segment_max) = (false, 150);
    (1..=3).for_each(|number| write_event(&mut store, number));
    assert_eq!(store.segments.len(), 3);
    store.syncer.settle();
    dir
}

#[test]
fn a_log_that_was_cut_anywhere_within_one_boot_ends_the_chain() {
    let (dir, segment) = killed();
    let whole = std::fs::read(&segment).unwrap();
    for len in 0..whole.len() {
        let copy = copied(dir.path());
        let path = copy.path().join(segment.file_name().unwrap());
        std::fs::write(&path, &whole[..len]).unwrap();
        let (reason, left) = ends(copy.path(), BOOT);
        assert!(reason.contains("was cut") || reason.contains("is missing"), "{len}: {reason}");
        assert!(left.0.len() < 3, "what is whole is delivered all the same");
        assert!(!path.exists() && path.with_extension("damaged-1").exists(), "{len}");
    }
    // Another boot has lost what was not synced: nobody cut it.
    std::fs::write(&segment, &whole[..whole.len() - 1]).unwrap();
    let (reason, _) = ends(dir.path(), "boot-2");
    assert!(reason.contains("restarted"), "{reason}");
}

#[test]
fn a_missing_segment_ends_the_chain_whichever_it_is() {
    let dir = killed_in_segments();
    for number in 1..=3 {
        let copy = copied(dir.path());
        std::fs::remove_file(load::segment_path(copy.path(), number)).unwrap();
        let (reason, left) = ends(copy.path(), BOOT);
        assert!(reason.contains("missing"), "{number}: {reason}");
        assert_eq!(left.0.len(), 2);
    }
    goes_on(dir.path());
}

#[test]
fn the_oldest_that_is_needed_is_not_missed_once_it_has_been_cleaned_away() {
    let dir = killed_in_segments();
    let (mut store, _) = goes_on(dir.path());
    let mut batch = Batch::default();
    (1..=3).for_each(|number| batch.gone(number));
    batch.device(&lobby(), id(1), &device(9));
    store.write(&mut batch).unwrap();
    store.syncer.settle();
    assert!(!load::segment_path(dir.path(), 1).exists());
    let copy = copied(dir.path());
    goes_on(copy.path());
}

#[test]
fn where_the_log_ends_is_to_be_known() {
    let (dir, _) = killed();
    let end = dir.path().join("end");
    let bytes = std::fs::read(&end).unwrap();
    for at in 0..bytes.len() {
        let mut odd = bytes.clone();
        odd[at] ^= 1;
        std::fs::write(&end, odd).unwrap();
        let (reason, left) = ends(copied(dir.path()).path(), BOOT);
        assert!(reason.contains("says where its log ends"), "{reason}");
        assert_eq!(left.0.len(), 3);
    }
    std::fs::remove_file(&end).unwrap();
    let (reason, _) = ends(dir.path(), BOOT);
    assert!(reason.contains("says where its log ends"), "{reason}");
}

/// `fixture/` is what a build before `end` and its records left: stopped in order, events waiting.
#[test]
fn a_store_as_the_first_builds_wrote_it_goes_on() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/outbox/store/tests/fixture");
    let dir = copied(&fixture);
    assert!(!dir.path().join("end").exists());
    let found = open(dir.path(), BOOT);
    let before = held(&found.content);
    assert_eq!((before.0.len(), before.1.len()), LEFT);
    let Verdict::GoesOn(chain, mut store) = found.verdict else { panic!("{:?}", found.verdict) };
    write_event(&mut store, 1_000);
    store.syncer.settle();
    drop(store);
    let found = open(dir.path(), BOOT);
    assert!(matches!(&found.verdict, Verdict::GoesOn(again, _) if *again == chain));
    assert_eq!(found.content.events.len(), LEFT.0 + 1);
}

#[test]
fn a_directory_that_is_gone_is_a_failed_sync() {
    let (dir, _) = killed();
    let (mut store, _) = goes_on(dir.path());
    std::fs::remove_dir_all(dir.path()).unwrap();
    let mut batch = Batch::default();
    batch.gone(1);
    store.write(&mut batch).unwrap();
    store.syncer.settle();
    let error = store.write(&mut batch).unwrap_err().to_string();
    assert!(error.contains("removed or replaced"), "{error}");
}

#[test]
fn a_held_directory_knows_when_another_is_at_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let held = StateDir::hold(&path).unwrap();
    assert!(held.is_there());
    std::fs::rename(&path, dir.path().join("away")).unwrap();
    assert!(!held.is_there());
    let other = StateDir::hold(&path).unwrap();
    assert!(other.is_there() && !held.is_there());
}

/// Aim: who writes waits for no disk. Method: the other thread hangs while three segments' worth
/// is written.
#[test]
fn a_disk_that_hangs_holds_up_nobody_who_writes() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path());
    store.segment_max = 4_096;
    let hanging = store.syncer.hang();
    let mut number = 0;
    while store.bytes() < 3 * 4_096 {
        number += 1;
        write_event(&mut store, number);
    }
    assert_eq!(store.segments.len(), 1, "nobody could make another");
    while !store.hangs(Duration::ZERO) {
        std::thread::yield_now();
    }
    assert!(!store.hangs(Duration::from_secs(3_600)));
    drop(hanging);
    store.syncer.settle();
    assert!(!store.hangs(Duration::ZERO));
    write_event(&mut store, number + 1);
    assert_eq!(store.segments.len(), 2);
    store.syncer.settle();
    drop(store);
    assert_eq!(goes_on(dir.path()).1.0.len() as u64, number + 1);
}

#[test]
fn what_could_not_be_read_is_set_aside_and_never_removed() {
    let dir = killed_in_segments();
    let unreadable = load::segment_path(dir.path(), 2);
    std::fs::remove_file(&unreadable).unwrap();
    // What even root cannot read as a file.
    std::fs::create_dir(&unreadable).unwrap();
    let found = Store::look(dir.path(), StoreError::Sync("read-only".to_owned()));
    assert_eq!(found.content.events.len(), 2);
    let held = StateDir::hold(dir.path()).unwrap();
    let seen = found.seen.unwrap();
    assert!(seen.is_of(&held));
    let none = std::iter::empty();
    drop(Store::fresh(&held, SyncMode::Interval, "k7f3", &seen, none).unwrap());
    assert!(dir.path().join("log-0000000002.damaged-1").exists());
    let another = tempfile::tempdir().unwrap();
    assert!(!seen.is_of(&StateDir::hold(another.path()).unwrap()));
}

#[test]
fn the_new_keys_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = fresh(dir.path());
    let mut batch = Batch::default();
    batch.value(Key::Gateway(lobby()), &[]);
    batch.value(Key::Clearing("gsdk/annex/info".to_owned()), &[]);
    batch.value(Key::Clearing("gsdk/annex/7/state".to_owned()), &[]);
    let untold = Untold { count: 7, refused: true };
    batch.value(Key::Untold(subject(3)), &untold.bytes());
    batch.value(Key::Leftovers, &[]);
    store.write(&mut batch).unwrap();
    batch.no_value(Key::Clearing("gsdk/annex/7/state".to_owned()));
    store.write(&mut batch).unwrap();
    drop(store);
    let content = open(dir.path(), BOOT).content;
    assert_eq!(content.gateways, [lobby()]);
    assert_eq!(content.clearing, ["gsdk/annex/info"]);
    assert_eq!(content.untold, [(subject(3), untold)]);
    assert!(content.leftovers);
}
