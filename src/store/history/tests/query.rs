//! Tests of queries: pages, filters, limits, gaps, and reading in parallel with the writer.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::{Value, json};

use super::{FIRST_ID, Fixture, HOUR_MS, KEEP_ALL, NOW, apply, device, event};
use crate::config::HistoryConfig;
use crate::ids::DeviceId;
use crate::store::Position;
use crate::store::history::query;
use crate::store::history::*;

fn all() -> EventFilter {
    let deadline = Duration::from_secs(60);
    EventFilter { limit: 100, max_bytes: usize::MAX, deadline, ..EventFilter::default() }
}

fn page(fixture: &Fixture, filter: &EventFilter) -> Page {
    page_before(fixture, filter, u64::MAX)
}

/// Where no event has had this ID or a higher one.
fn page_before(fixture: &Fixture, filter: &EventFilter, next_id: u64) -> Page {
    query::page(&fixture.path(), filter, next_id).unwrap()
}

fn ids(page: &Page) -> Vec<u64> {
    let id = |event: &serde_json::value::RawValue| {
        serde_json::from_str::<Value>(event.get()).unwrap()["id"].as_u64().unwrap()
    };
    page.events.iter().map(|event| id(event)).collect()
}

fn position(offset: u64) -> Position {
    Position { segment: 0, offset }
}

/// Events of these devices, one a minute.
fn record(database: &mut Database, first: u64, devices: impl IntoIterator<Item = u32>) {
    let at = |id: u64| NOW.plus(i64::try_from((id - FIRST_ID) * 60_000).unwrap());
    let changes: Vec<_> = (first..)
        .zip(devices)
        .map(|(id, number)| LogChange::Recorded(event(id, at(id), device(number))))
        .collect();
    apply(database, &changes, position(first)).unwrap();
}

#[test]
fn an_event_is_as_published_with_its_delivery() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    record(&mut database, FIRST_ID, [1, 1, 1]);
    let marks = [
        LogChange::Delivered(FIRST_ID),
        LogChange::Dropped(FIRST_ID + 1),
        LogChange::Lost { id: FIRST_ID + 2, lost: 1 },
    ];
    apply(&mut database, &marks, position(9)).unwrap();
    let page = page(&fixture, &all());
    let texts: Vec<_> = page.events.iter().map(|event| event.get().to_owned()).collect();
    let published = |id| format!(r#"{{"event_type":"disconnected","number":{id}"#);
    assert_eq!(
        texts,
        [
            format!(r#"{},"id":{FIRST_ID},"delivered":true}}"#, published(FIRST_ID)),
            format!(
                r#"{},"id":{1},"delivered":false,"dropped":true}}"#,
                published(FIRST_ID + 1),
                FIRST_ID + 1
            ),
            format!(
                r#"{},"lost":1,"id":{1},"delivered":false}}"#,
                published(FIRST_ID + 2),
                FIRST_ID + 2
            ),
        ]
    );
    assert_eq!((page.next, page.more, &page.gap), (FIRST_ID + 2, false, &None));
}

#[test]
fn pages_give_each_event_once_whatever_limits_them() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    record(&mut database, FIRST_ID, std::iter::repeat_n(1, 700));
    for filter in [EventFilter { limit: 33, ..all() }, EventFilter { max_bytes: 1_000, ..all() }] {
        let (mut seen, mut after_id) = (Vec::new(), None);
        loop {
            let page = page(&fixture, &EventFilter { after_id, ..filter.clone() });
            assert!(!page.events.is_empty());
            seen.extend(ids(&page));
            after_id = Some(page.next);
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, (FIRST_ID..FIRST_ID + 700).collect::<Vec<_>>());
        record(&mut database, FIRST_ID + 700, [1]);
        let next = page(&fixture, &EventFilter { after_id, ..filter });
        assert_eq!(ids(&next), [FIRST_ID + 700], "what was recorded since");
        drop(database);
        std::fs::remove_file(fixture.path()).unwrap();
        database = fixture.open(KEEP_ALL);
        record(&mut database, FIRST_ID, std::iter::repeat_n(1, 700));
    }
    let one = page(&fixture, &EventFilter { max_bytes: 0, ..all() });
    assert_eq!((one.events.len(), one.more), (1, true), "one event is always returned");
}

#[test]
fn the_newest_can_be_first_and_pages_end_at_their_limit() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    // More than a window.
    let count = 20_000;
    record(&mut database, FIRST_ID, std::iter::repeat_n(1, count));
    let last = FIRST_ID + count as u64 - 1;
    let newest = EventFilter { order: Order::NewestFirst, limit: 7_000, ..all() };
    let (mut seen, mut before_id) = (Vec::new(), None);
    loop {
        let page = page(&fixture, &EventFilter { before_id, ..newest.clone() });
        seen.extend(ids(&page));
        before_id = Some(page.next);
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, (FIRST_ID..=last).rev().collect::<Vec<_>>());
    // No time: a page ends with its first window, and the next continues there.
    let hurried = EventFilter {
        device_ids: [DeviceId::new(2).unwrap()].into(),
        deadline: Duration::ZERO,
        ..newest
    };
    let (mut pages, mut before_id) = (0, None);
    loop {
        let page = page(&fixture, &EventFilter { before_id, ..hurried.clone() });
        assert!(page.events.is_empty());
        pages += 1;
        if !page.more {
            break;
        }
        assert!(before_id.is_none_or(|before| page.next < before));
        before_id = Some(page.next);
    }
    assert!(pages > 1, "one page read everything");
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let (after_id, before_id) = (Some(FIRST_ID + 3), Some(FIRST_ID + 6));
        let between = page(&fixture, &EventFilter { after_id, before_id, order, ..all() });
        let mut found = ids(&between);
        found.sort_unstable();
        assert_eq!(found, [FIRST_ID + 4, FIRST_ID + 5]);
        assert!(!between.more);
    }
    assert_eq!(query::newest_id(&fixture.path()).unwrap(), last);
}

#[test]
fn filters_select_gateways_devices_types_and_times() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    record(&mut database, FIRST_ID, [1, 2, 3, 1, 2, 3]);
    let annex = Event {
        event_type: "unreachable".into(),
        ..event(
            FIRST_ID + 6,
            NOW.plus(HOUR_MS),
            crate::payload::Subject::Gateway("annex".parse().unwrap()),
        )
    };
    let bridge = event(FIRST_ID + 7, NOW.plus(HOUR_MS), crate::payload::Subject::Bridge);
    apply(&mut database, &[LogChange::Recorded(annex), LogChange::Recorded(bridge)], position(9))
        .unwrap();
    let offsets = |filter: EventFilter| -> Vec<u64> {
        ids(&page(&fixture, &filter)).into_iter().map(|id| id - FIRST_ID).collect()
    };
    let id = |id| DeviceId::new(id).unwrap();
    let gateways = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    let lobby: Vec<crate::ids::GatewayName> = gateways(&["lobby"]);
    assert_eq!(offsets(all()), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(offsets(EventFilter { gateways: lobby.clone(), ..all() }), [0, 1, 2, 3, 4, 5]);
    assert_eq!(offsets(EventFilter { gateways: gateways(&["lobby", "annex"]), ..all() }).len(), 7);
    let one = EventFilter { device_ids: [id(2)].into(), ..all() };
    assert_eq!(offsets(one.clone()), [1, 4]);
    assert_eq!(offsets(EventFilter { gateways: lobby, ..one }), [1, 4]);
    assert_eq!(offsets(EventFilter { device_ids: [id(2), id(3)].into(), ..all() }), [1, 2, 4, 5]);
    let types = ["unreachable", "stranger"].map(|name| name.parse().unwrap()).into();
    assert_eq!(offsets(EventFilter { event_types: types, ..all() }), [6]);
    let (from, to) = (Some(NOW.plus(60_000)), Some(NOW.plus(180_000)));
    assert_eq!(offsets(EventFilter { from, to, ..all() }), [1, 2], "half-open");
    assert_eq!(offsets(EventFilter { from: to, ..all() }), [3, 4, 5, 6, 7]);
    assert_eq!(offsets(EventFilter { to: from, ..all() }), [0]);
    assert_eq!(offsets(EventFilter { after_id: Some(FIRST_ID + 6), ..all() }), [7]);
}

#[test]
fn times_are_found_although_the_clock_was_set_back() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    // Three hours on, then an hour back.
    for (first, hour) in [(0, 0), (500, 3), (1_000, 2)] {
        let changes: Vec<_> = (FIRST_ID + first..FIRST_ID + first + 500)
            .map(|id| LogChange::Recorded(event(id, NOW.plus(hour * HOUR_MS), device(1))))
            .collect();
        apply(&mut database, &changes, position(first)).unwrap();
    }
    let (from, to) = (Some(NOW.plus(2 * HOUR_MS)), Some(NOW.plus(2 * HOUR_MS + 1)));
    let found = ids(&page(&fixture, &EventFilter { from, to, limit: 1_000, ..all() }));
    assert_eq!(found, (FIRST_ID + 1_000..FIRST_ID + 1_500).collect::<Vec<_>>());
}

#[test]
fn events_removed_by_retention_are_a_gap() {
    let fixture = Fixture::new();
    let keep = std::time::Duration::from_secs(3_600);
    let mut database = fixture.open(HistoryConfig { keep, ..KEEP_ALL });
    record(&mut database, FIRST_ID, std::iter::repeat_n(1, 600));
    let gap = |filter: EventFilter| page(&fixture, &filter).gap;
    let from = |minutes| Some(NOW.plus(minutes * 60_000));
    assert_eq!(gap(EventFilter { from: from(-99), ..all() }), None, "there was nothing earlier");
    assert_eq!(gap(EventFilter { after_id: Some(0), ..all() }), None);
    assert!(
        gap(EventFilter { after_id: Some(7), ..all() }).is_some(),
        "of an earlier state directory"
    );
    while database.trim(Some(NOW.plus(5 * HOUR_MS))).unwrap() {}
    let first = ids(&page(&fixture, &all()))[0];
    assert!(first > FIRST_ID);
    let minutes = i64::try_from(first - FIRST_ID).unwrap();
    let oldest_at = Some(NOW.plus(minutes * 60_000));
    let removed = Some(EventGap { oldest_at, missing: Vec::new() });
    assert_eq!(gap(EventFilter { after_id: Some(0), ..all() }), removed);
    assert_eq!(gap(EventFilter { after_id: Some(first - 2), ..all() }), removed);
    assert_eq!(gap(EventFilter { after_id: Some(first - 1), ..all() }), None);
    assert_eq!(gap(EventFilter { from: from(minutes - 1), ..all() }), removed);
    assert_eq!(gap(EventFilter { from: from(minutes), ..all() }), None);
}

#[test]
fn events_that_were_not_written_are_a_gap_between_their_neighbours() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    record(&mut database, FIRST_ID, [1, 1]);
    // Since the newest event.
    let (from, to) = (NOW.plus(60_000), NOW.plus(180_000));
    database.mark_gap(to, position(5), false).unwrap();
    assert_eq!(database.position().unwrap(), position(5));
    record(&mut database, FIRST_ID + 50, [1, 1]);
    let missing = json!({"missing": [{ "from": from, "to": to }]});
    let gap = |filter: EventFilter| serde_json::to_value(page(&fixture, &filter).gap).unwrap();
    assert_eq!(gap(all()), missing);
    assert_eq!(gap(EventFilter { limit: 2, ..all() }), Value::Null, "it is on the next page");
    assert_eq!(gap(EventFilter { after_id: Some(FIRST_ID + 1), limit: 1, ..all() }), missing);
    assert_eq!(gap(EventFilter { after_id: Some(FIRST_ID + 50), ..all() }), Value::Null);
    assert_eq!(gap(EventFilter { to: Some(from), ..all() }), Value::Null);
    assert_eq!(gap(EventFilter { from: Some(to.plus(1)), ..all() }), Value::Null);
}

#[test]
fn a_replaced_history_reports_the_missing_past() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path(), "damaged".repeat(200)).unwrap();
    let mut database = Database::open(&fixture.path(), KEEP_ALL, NOW).unwrap();
    record(&mut database, FIRST_ID, [1]);
    let gap = |filter: EventFilter| page(&fixture, &filter).gap;
    assert!(gap(EventFilter { from: Some(NOW.plus(-1)), ..all() }).is_some());
    assert!(gap(EventFilter { after_id: Some(0), ..all() }).is_some());
    assert_eq!(gap(EventFilter { from: Some(NOW), ..all() }), None);
    assert_eq!(gap(EventFilter { after_id: Some(FIRST_ID - 1), ..all() }), None);
}

/// Aim: a client with an ID of a state directory that was lost while the clock was ahead gets the
/// events, and one with an ID that may come from this one gets none again.
#[test]
fn an_id_that_this_state_directory_has_not_given_is_a_gap() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    let foreign = EventFilter { after_id: Some(FIRST_ID + 1_000_000), ..all() };
    let empty = page_before(&fixture, &foreign, FIRST_ID);
    assert!(empty.next < FIRST_ID, "the next page has the first event: {empty:?}");
    record(&mut database, FIRST_ID, [1, 1, 1]);
    let gap = Some(EventGap { oldest_at: Some(NOW), missing: Vec::new() });
    let next = EventFilter { after_id: Some(empty.next), ..all() };
    for filter in [&foreign, &next] {
        let page = page_before(&fixture, filter, FIRST_ID + 3);
        assert_eq!((ids(&page).len(), page.next, &page.gap), (3, FIRST_ID + 2, &gap));
    }
    let page = page_before(&fixture, &EventFilter { limit: 2, ..foreign.clone() }, FIRST_ID + 3);
    assert_eq!((ids(&page).len(), page.next, page.more), (2, FIRST_ID + 1, true));
    // The history is behind the log, as after its database was lost.
    let ahead = EventFilter { after_id: Some(FIRST_ID + 9), ..all() };
    let page = page_before(&fixture, &ahead, FIRST_ID + 10);
    assert_eq!((ids(&page).len(), page.next, &page.gap), (0, FIRST_ID + 9, &None));
    // The database is of another state directory, whose events are all read.
    let last = EventFilter { after_id: Some(FIRST_ID + 2), ..all() };
    assert!(ids(&page_before(&fixture, &last, 7)).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_work_beside_the_writer_and_report_a_missing_database() {
    let fixture = Fixture::new();
    let reader = Reader::new(fixture.path());
    let error = reader.query(all()).await.unwrap_err();
    assert!(matches!(error, Error::Database(_)), "{error}");
    let mut database = fixture.open(KEEP_ALL);
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let reader = reader.clone();
            tokio::spawn(async move {
                let (mut seen, mut after_id) = (0, None);
                while seen < 2_000 {
                    let filter = EventFilter { after_id, limit: 50, ..all() };
                    let page = reader.query(filter).await.unwrap();
                    seen += page.events.len();
                    after_id = Some(page.next);
                    tokio::task::yield_now().await;
                }
                seen
            })
        })
        .collect();
    let writer = tokio::task::spawn_blocking(move || {
        for batch in 0..40 {
            record(&mut database, FIRST_ID + batch * 50, std::iter::repeat_n(1, 50));
        }
    });
    writer.await.unwrap();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 2_000, "each event once");
    }
}

/// As on a read-only file system. Method: SQLite needs `history.db-shm`, and cannot create it.
#[test]
fn a_copy_beside_which_nothing_can_be_written_is_read() {
    let fixture = Fixture::new();
    let mut database = fixture.open(KEEP_ALL);
    record(&mut database, FIRST_ID, [1, 2]);
    drop(database);
    let copy = fixture.dir.path().join("50%20 #1?");
    fs::create_dir(&copy).unwrap();
    symlink(copy.join("missing/file"), copy.join("history.db-shm")).unwrap();
    fs::copy(fixture.path(), copy.join(FILE_NAME)).unwrap();
    let read = || query::page(&copy.join(FILE_NAME), &all(), u64::MAX);
    assert_eq!(ids(&read().unwrap()), [FIRST_ID, FIRST_ID + 1]);
    // The newest events may be in it alone.
    fs::write(copy.join("history.db-wal"), "x").unwrap();
    let error = read().unwrap_err().to_string();
    assert!(error.contains("copy it with the files beside it"), "{error}");
}
