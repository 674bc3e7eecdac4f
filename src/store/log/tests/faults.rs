//! Logs that were damaged, removed or replaced, and disks that hang.

use std::os::unix::fs::symlink;
use std::sync::mpsc::SyncSender;

use super::*;
use crate::store::LogReader;
use crate::store::history::LogChange;

/// A log of three batches in small segments, killed.
fn killed_in_segments() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut log = with_segments_of(100, created(dir.path()));
    (1..=3).for_each(|number| write_event(&mut log, number));
    assert_eq!(log.index.segments().count(), 3);
    finish(&log);
    dir
}

#[test]
fn a_missing_segment_ends_the_chain() {
    let dir = killed_in_segments();
    for (number, events) in [(1, 2), (2, 2)] {
        let copy = copied(dir.path());
        std::fs::remove_file(segment_path(copy.path(), number)).unwrap();
        let (reason, left) = ends(copy.path());
        assert!(reason.contains("missing"), "{number}: {reason}");
        assert_eq!(left.0.len(), events);
    }
    continues(dir.path());
}

/// Aim: what cannot be read now is not taken for damaged. Method: a link to itself, since the user
/// of the test may be root, who has all permissions.
#[test]
fn a_segment_that_cannot_be_read_ends_the_start_and_stays() {
    let (dir, segment) = killed();
    let away = dir.path().join("away");
    std::fs::rename(&segment, &away).unwrap();
    symlink(&segment, &segment).unwrap();
    let error = Log::open(dir.path(), false).unwrap_err().to_string();
    assert!(error.starts_with(&format!("reading {} failed", segment.display())), "{error}");
    std::fs::rename(&away, &segment).unwrap();
    assert_eq!(continues(dir.path()).1.0.len(), 3);
    std::fs::remove_file(&segment).unwrap();
    std::fs::create_dir(&segment).unwrap();
    assert!(ends(dir.path()).0.contains("damaged"), "a folder in its place");
}

/// Aim: a start that fails changes nothing of what it could read.
#[test]
fn a_damaged_segment_before_one_that_cannot_be_read_stays() {
    let dir = killed_in_segments();
    let [damaged, away] = [1, 2].map(|number| segment_path(dir.path(), number));
    let mut bytes = std::fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    std::fs::remove_file(&away).unwrap();
    symlink(&away, &away).unwrap();
    Log::open(dir.path(), false).unwrap_err();
    assert!(damaged.exists() && LogHead::read(dir.path()).unwrap().is_some());
}

fn needs_its_second_segment(dir: &Path) {
    continues(copied(dir).path());
    std::fs::remove_file(segment_path(dir, 2)).unwrap();
    assert!(ends(dir).0.contains("missing"));
}

/// Aim: a log whose oldest segment was removed by cleaning continues, and does not when the oldest
/// of the rest is missing, also if no other segment was created since.
#[test]
fn a_segment_that_is_missing_behind_cleaned_ones_ends_the_chain() {
    let dir = killed_in_segments();
    let mut log = with_segments_of(1 << 20, continues(dir.path()).0);
    let mut batch = LogBatch::default();
    delivered(&mut batch, 1);
    write(&mut log, &mut batch);
    finish(&log);
    assert_eq!(log.index.oldest(), Some(2));
    drop(log);
    needs_its_second_segment(dir.path());
}

/// Aim: the log of a build that did not store the oldest segment continues, and stores it from its
/// next segment on.
#[test]
fn a_log_of_an_earlier_build_continues_after_it_was_cleaned() {
    let dir = tempfile::tempdir().unwrap();
    LogHead::new("k7f3".to_owned(), false, 1).write(dir.path()).unwrap();
    // The first segment is cleaned away.
    for number in 2..=3 {
        let segment = Segment::create(dir.path(), number, "k7f3").unwrap();
        let mut batch = LogBatch::default();
        batch.put(Key::NextId, &encode(&u64::from(number)));
        add_event(&mut batch, event(number.into()));
        segment.append(&mut batch).unwrap();
    }
    let (log, left) = continues(dir.path());
    assert_eq!(left.0.len(), 2);
    let mut log = with_segments_of(1, log);
    write_event(&mut log, 4);
    finish(&log);
    drop(log);
    needs_its_second_segment(dir.path());
}

/// Aim: a kill in a write tears the end of the log also when the next segment is there already.
#[test]
fn a_torn_tail_is_cut_although_the_next_segment_was_created() {
    let (dir, segment) = killed();
    let file = File::options().write(true).open(&segment).unwrap();
    file.set_len(file.metadata().unwrap().len() - 3).unwrap();
    for opening in [None, Some(20), Some(0)] {
        let copy = copied(dir.path());
        drop(Segment::create(copy.path(), 2, "k7f3").unwrap());
        if let Some(len) = opening {
            let next = File::options().write(true).open(segment_path(copy.path(), 2)).unwrap();
            next.set_len(len).unwrap();
        }
        let (mut log, left) = continues(copy.path());
        assert_eq!(left.0.len(), 2);
        write_event(&mut log, 4);
        drop(log);
        assert_eq!(continues(copy.path()).1.0.len(), 3);
    }
}

#[test]
fn ids_are_never_used_again_after_their_events_were_removed() {
    let dir = killed_in_segments();
    let mut log = with_segments_of(100, continues(dir.path()).0);
    let mut batch = LogBatch::default();
    (1..=3).for_each(|number| delivered(&mut batch, number));
    put_device(&mut batch, 1, &device(9));
    write(&mut log, &mut batch);
    finish(&log);
    assert!(!segment_path(dir.path(), 3).exists());
    drop(log);
    assert_eq!(open(dir.path()).0.next_id, 4);
}

#[test]
fn a_segment_that_the_history_has_not_read_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = with_segments_of(100, created(dir.path()));
    for number in 1..=9 {
        let mut batch = LogBatch::default();
        add_event(&mut batch, event(number));
        put_device(&mut batch, 1, &device(number));
        log.write(&mut batch, false).unwrap();
        delivered(&mut batch, number);
        log.write(&mut batch, false).unwrap();
        log.clean(0).unwrap();
    }
    assert_eq!(log.index.oldest(), Some(1));
    log.clean(4).unwrap();
    assert_eq!(log.index.oldest(), Some(4));
}

#[test]
fn the_tail_reads_every_event_once_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = with_segments_of(150, created(dir.path()));
    let mut tail = LogReader::new(dir.path().to_owned(), Position::default(), None);
    assert!(!tail.skip_missing().unwrap());
    let mut ids = Vec::new();
    let mut read = |tail: &mut LogReader, current| {
        loop {
            let mut changes = Vec::new();
            tail.read(current, &mut changes).unwrap();
            if changes.is_empty() {
                return;
            }
            ids.extend(changes.into_iter().filter_map(|change| match change {
                LogChange::Recorded(event) => Some(event.id),
                _ => None,
            }));
        }
    };
    for number in 1..=20 {
        let mut batch = LogBatch::default();
        add_event(&mut batch, event(number));
        log.write(&mut batch, false).unwrap();
        if number % 3 == 0 {
            read(&mut tail, log.current());
        }
    }
    read(&mut tail, log.current());
    assert_eq!(ids, (1..=20).collect::<Vec<_>>());
    assert!(tail.position().segment > 3);
}

#[test]
fn a_log_of_a_later_version_is_not_touched() {
    let (dir, _) = killed();
    let head = serde_json::json!({"format": 9, "chain": "k7f3", "and": "more"});
    std::fs::write(dir.path().join("head"), json_frame(&head).unwrap()).unwrap();
    let before = std::fs::read_dir(dir.path()).unwrap().count();
    let error = Log::open(dir.path(), false).unwrap_err().to_string();
    assert!(error.contains("later version") && error.contains("format 9"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), before);
}

#[test]
fn a_store_of_a_build_before_version_2_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["head", "end", "log-0000000001"] {
        std::fs::write(dir.path().join(name), name).unwrap();
    }
    let state_dir = StateDir::lock(dir.path()).unwrap();
    let aside = state_dir.set_aside_earlier().unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(aside.join("log-0000000001")).unwrap(), "log-0000000001");
    assert!(!dir.path().join("head").exists());
    assert_eq!(state_dir.set_aside_earlier().unwrap(), None);
}

#[test]
fn a_removed_directory_is_a_failed_sync() {
    let (dir, _) = killed();
    let (mut log, _) = continues(dir.path());
    std::fs::remove_dir_all(dir.path()).unwrap();
    let mut batch = LogBatch::default();
    delivered(&mut batch, 1);
    log.write(&mut batch, true).unwrap();
    log.request_sync();
    finish(&log);
    let error = log.write(&mut batch, true).unwrap_err().to_string();
    assert!(error.contains("removed or replaced"), "{error}");
}

#[test]
fn a_locked_directory_detects_another_one_at_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let held = StateDir::lock(&path).unwrap();
    assert!(held.is_in_place());
    std::fs::rename(&path, dir.path().join("away")).unwrap();
    assert!(!held.is_in_place());
    let other = StateDir::lock(&path).unwrap();
    assert!(other.is_in_place() && !held.is_in_place());
}

#[test]
fn a_file_of_an_earlier_log_that_cannot_be_removed_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    // No file, so that it cannot be removed as one.
    std::fs::create_dir(segment_path(dir.path(), 1)).unwrap();
    let mut log = created(dir.path());
    write_event(&mut log, 1);
    finish(&log);
    drop(log);
    let mut history = LogReader::new(dir.path().to_owned(), Position::default(), None);
    history.skip_missing().unwrap();
    assert_eq!(history.position().segment, 2, "nor by the history");
    assert_eq!(continues(dir.path()).1.0.len(), 1);
}

/// The worker hangs from now on, until the result is dropped.
fn hang(log: &Log) -> SyncSender<()> {
    let ((hangs, hanging), (release, released)) = (sync_channel(1), sync_channel(0));
    assert!(log.worker.request(move || {
        _ = hangs.send(());
        _ = released.recv();
        Ok(())
    }));
    hanging.recv().unwrap();
    release
}

/// Aim: a write waits for no disk. Method: the worker hangs while three segments' worth is written.
#[test]
fn a_write_does_not_wait_while_the_disk_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = created(dir.path());
    log.segment_max = 4_096;
    let hanging = hang(&log);
    let mut number = 0;
    while log.index.bytes() < 3 * 4_096 {
        number += 1;
        write_event(&mut log, number);
    }
    assert_eq!(log.index.segments().count(), 1, "the worker has not created another");
    assert!(log.hangs(Duration::ZERO) && !log.hangs(Duration::from_secs(3_600)));
    drop(hanging);
    finish(&log);
    assert!(!log.hangs(Duration::ZERO));
    write_event(&mut log, number + 1);
    assert_eq!(log.index.segments().count(), 2);
    finish(&log);
    drop(log);
    assert_eq!(continues(dir.path()).1.0.len() as u64, number + 1);
}

/// Aim: the log is cleaned only from its oldest end, also if a removal is refused. Method: the
/// worker hangs and its queue is full while two segments can be removed; a third one can later.
#[test]
fn a_segment_whose_removal_is_refused_stays_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = with_segments_of(100, created(dir.path()));
    (1..=3).for_each(|number| write_event(&mut log, number));
    log.starting = false;
    let hanging = hang(&log);
    while log.worker.request(|| Ok(())) {}
    let mut batch = LogBatch::default();
    (1..=2).for_each(|number| delivered(&mut batch, number));
    write(&mut log, &mut batch);
    assert_eq!(log.index.oldest(), Some(1));
    drop(hanging);
    while !log.worker.request(|| Ok(())) {
        std::thread::yield_now();
    }
    finish(&log);
    log.starting = true;
    (4..=5).for_each(|number| write_event(&mut log, number));
    delivered(&mut batch, 3);
    write(&mut log, &mut batch);
    finish(&log);
    assert!(log.index.oldest() > Some(3));
    drop(log);
    assert_eq!(continues(dir.path()).1.0.into_keys().collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn a_value_with_the_same_checksum_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = created(dir.path());
    let (value, other) = (b"plumless", b"buckeroo");
    assert_eq!(crc32fast::hash(value), crc32fast::hash(other));
    let mut batch = LogBatch::default();
    batch.put(Key::StaleScan, value);
    log.write(&mut batch, true).unwrap();
    assert!(log.has(&Key::StaleScan, value) && !log.has(&Key::StaleScan, other));
}

#[test]
fn keys_without_a_device_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = created(dir.path());
    let mut batch = LogBatch::default();
    batch.put(Key::Gateway(lobby()), &[]);
    batch.put(Key::Clearing("gsdk/annex/info".to_owned()), &[]);
    batch.put(Key::Clearing("gsdk/annex/7/state".to_owned()), &[]);
    batch.put(Key::UnreportedLoss(subject(3)), &encode(&(7_u64, true)));
    batch.put(Key::StaleScan, &[]);
    log.write(&mut batch, true).unwrap();
    batch.remove(Key::Clearing("gsdk/annex/7/state".to_owned()));
    log.write(&mut batch, true).unwrap();
    drop(log);
    let content = open(dir.path()).0;
    let keys = [
        Key::Gateway(lobby()),
        Key::Clearing("gsdk/annex/info".to_owned()),
        Key::UnreportedLoss(subject(3)),
        Key::StaleScan,
    ];
    assert!(keys.iter().all(|key| content.values.contains_key(key)));
    assert_eq!(content.values.len(), keys.len() + 1, "and the next ID");
    assert_eq!(decode(&content.values[&keys[2]]), Some((7_u64, true)));
}
