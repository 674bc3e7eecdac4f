//! What is left of the past once `keep_availability` has removed its rows.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::*;
use crate::config::HistoryConfig;
use crate::store::history::{Database, FILE_NAME};

const DAY_MS: i64 = 24 * HOUR_MS;
const KEEP: Duration = Duration::from_secs(30 * 86_400);
const NOW: Moment = Moment::from_millis(1_796_000_000_000);

const fn days_ago(days: i64) -> Moment {
    NOW.plus(-days * DAY_MS)
}

/// The rows of the gateways in the last 60 days.
fn gateways(path: &Path) -> Vec<AvailabilityRow> {
    let request = AvailabilityRequest {
        of_gateways: true,
        gateways: BTreeSet::new(),
        device_ids: BTreeSet::new(),
        after: None,
        period: (days_ago(60), NOW),
        zone: TimeZone::UTC,
        bucket: BucketSize::Total,
        limit: usize::MAX,
        deadline: Duration::MAX,
        now: NOW,
    };
    answer(path, &request, NOW).unwrap().availability
}

/// Aim: a gateway whose rows are removed does not become connected. The first gateway was observed
/// for half of the time, the second one is not configured any more, the third one was lost.
#[test]
fn a_gateway_is_not_observed_before_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let keep = HistoryConfig { keep: Duration::MAX, max_bytes: u64::MAX, keep_availability: KEEP };
    let mut database = Database::open(&path, keep, NOW).unwrap();
    let [first, stopped, removed, lost] = [60, 31, 40, 35].map(|days| days_ago(days).millis());
    let (back, now) = (days_ago(20).millis(), NOW.millis());
    let sql = format!(
        "UPDATE observation SET proven_at = {now}, spans_since = {first};
         INSERT INTO gateways VALUES ('a', {first}), ('b', {first}), ('c', {first});
         INSERT INTO unobserved VALUES ('a', {first}, {stopped}, 'bridge_stopped'),
           ('b', {removed}, NULL, 'not_configured'), ('c', {lost}, {back}, 'gateway_lost');"
    );
    Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
    let days = |row: &AvailabilityRow| {
        let Figures { connected_ms, disconnected_ms, unobserved_ms, absent_ms, .. } = row.figures;
        [connected_ms, disconnected_ms, unobserved_ms, absent_ms].map(|ms| ms / DAY_MS)
    };
    let before = gateways(&path);
    assert_eq!(days(&before[0]), [31, 0, 29, 0]);
    assert_eq!(days(&before[1]), [20, 0, 0, 40]);
    assert_eq!(days(&before[2]), [45, 15, 0, 0]);
    database.spans().trim(NOW).unwrap();
    let after = gateways(&path);
    assert_eq!(days(&after[0]), [30, 0, 30, 0]);
    assert_eq!(after[0].figures.observed, Some(0.5));
    assert_eq!(days(&after[1]), [0, 0, 20, 40], "that it is removed is kept");
    assert_eq!(after[1].removed_at, before[1].removed_at);
    assert_eq!(days(&after[2]), [20, 10, 30, 0], "outages without the time between them");
}
