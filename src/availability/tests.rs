//! Tests of buckets and figures: zones, and that parts add up to the whole.

mod kept;
mod year;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::ids::{DeviceId, Moment};
use crate::store::history::{Span, SpanState, Timeline};

const HOUR_MS: i64 = 3_600_000;

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn at(text: &str) -> Moment {
    Moment::from_millis(text.parse::<Timestamp>().unwrap().as_millisecond())
}

fn timeline(first_seen_at: Moment, spans: Vec<Span>) -> Timeline {
    Timeline {
        gateway: "lobby".parse().unwrap(),
        device_id: DeviceId::new(7),
        name: "Front door".to_owned(),
        first_seen_at,
        spans,
        otherwise: SpanState::Unknown,
    }
}

fn span(from: i64, to: impl Into<Option<i64>>, state: SpanState) -> Span {
    let to = to.into().map(Moment::from_millis);
    Span { from: Moment::from_millis(from), to, state }
}

/// Hours of each bucket, and its name.
fn hours(from: &str, to: &str, zone_name: &str, size: BucketSize) -> Vec<(f64, String)> {
    let all = buckets((at(from), at(to)), &zone(zone_name), size, usize::MAX);
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let hours =
        |bucket: Bucket| (bucket.end.since(bucket.start) as f64 / HOUR_MS as f64, bucket.label);
    all.into_iter().map(hours).collect()
}

#[test]
fn days_and_months_begin_at_local_midnight() {
    let berlin =
        |size| hours("2026-09-30T22:00:00Z", "2026-11-30T23:00:00Z", "Europe/Berlin", size);
    let months = berlin(BucketSize::Month);
    assert_eq!(months, [(745.0, "2026-10".to_owned()), (720.0, "2026-11".to_owned())]);
    let days = berlin(BucketSize::Day);
    assert_eq!(days.len(), 61);
    assert_eq!(days[24], (25.0, "2026-10-25".to_owned()));
    assert_eq!(berlin(BucketSize::Hour).len(), 745 + 720);
    assert_eq!(berlin(BucketSize::Total), [(1_465.0, "2026-10-01 to 2026-11-30".to_owned())]);
    // Both hours from 02:00 to 03:00 have a name of their own.
    let twice =
        hours("2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z", "Europe/Berlin", BucketSize::Hour);
    let names: Vec<&str> = twice.iter().map(|(_, label)| &**label).collect();
    assert_eq!(names, ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]);
    let kathmandu =
        hours("2026-11-29T12:00:00Z", "2026-11-30T18:15:00Z", "Asia/Kathmandu", BucketSize::Day);
    let expected = [(6.25, "2026-11-29".to_owned()), (24.0, "2026-11-30".to_owned())];
    assert_eq!(kathmandu, expected);
    let full =
        hours("2026-11-29T12:00:00Z", "2026-11-29T14:00:00Z", "Asia/Kathmandu", BucketSize::Hour);
    let parts: Vec<f64> = full.iter().map(|(hours, _)| *hours).collect();
    assert_eq!(parts, [0.25, 1.0, 0.75]);
    // The clock goes from 23:59 to 1:00: the day begins at 1:00.
    let beirut =
        hours("2026-03-27T22:00:00Z", "2026-03-29T21:00:00Z", "Asia/Beirut", BucketSize::Day);
    assert_eq!(beirut, [(24.0, "2026-03-28".to_owned()), (23.0, "2026-03-29".to_owned())]);
    let johns = hours(
        "2026-11-01T02:30:00Z",
        "2026-12-01T03:30:00Z",
        "America/St_Johns",
        BucketSize::Month,
    );
    assert_eq!(johns, [(721.0, "2026-11".to_owned())]);
    // A day that does not exist there.
    let apia =
        hours("2011-12-29T10:00:00Z", "2011-12-31T10:00:00Z", "Pacific/Apia", BucketSize::Day);
    let expected = [(24.0, "2011-12-29".to_owned()), (24.0, "2011-12-31".to_owned())];
    assert_eq!(apia, expected);
    assert_eq!(hours("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "UTC", BucketSize::Total), []);
}

#[test]
fn a_period_has_the_name_of_its_dates() {
    let berlin = zone("Europe/Berlin");
    let name = |from: &str, to: &str| period((at(from), at(to)), &berlin);
    assert_eq!(name("2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z"), "2026-11");
    assert_eq!(name("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"), "2026-10-25");
    assert_eq!(name("2026-10-24T22:00:00Z", "2026-10-26T23:00:00Z"), "2026-10-25 to 2026-10-26");
    let times = name("2026-10-24T22:00:00Z", "2026-10-25T23:00:01Z");
    assert_eq!(times, "2026-10-25 00:00:00 to 2026-10-26 00:00:01");
}

#[test]
fn an_outage_is_one_unbroken_time() {
    use SpanState::{Absent, Connected, Disconnected};
    let spans = vec![
        span(1_000, 2_000, Connected),
        span(2_000, 2_500, Disconnected),
        span(2_500, 3_000, Connected),
        span(3_000, 4_500, Disconnected),
        // Not observed from 4.5 s to 5 s.
        span(5_000, 6_000, Disconnected),
        span(6_000, 7_000, Connected),
        span(7_000, None, Absent),
    ];
    let (start, end) = (Moment::from_millis(0), Moment::from_millis(10_000));
    let timeline = timeline(Moment::from_millis(1_000), spans);
    let tiles = Tiles::new(&timeline, (start, end), Moment::from_millis(7_500));
    let figures = tiles.figures(start, end);
    let expected = Figures {
        period_ms: 10_000,
        connected_ms: 2_500,
        disconnected_ms: 3_000,
        unobserved_ms: 500,
        absent_ms: 4_000,
        availability: Some(2_500.0 / 5_500.0),
        observed: Some(5_500.0 / 6_000.0),
        outages: 3,
        longest_outage_ms: Some(1_500),
        longest_outage_at: Some(Moment::from_millis(3_000)),
        longest_outage_at_least: true,
    };
    assert_eq!(figures, expected);
    assert_eq!(tiles.removed_at(), Some(Moment::from_millis(7_000)));
    // The same outage, cut at the bucket's end: what follows is known.
    let cut = tiles.figures(start, Moment::from_millis(4_000));
    assert_eq!((cut.longest_outage_ms, cut.longest_outage_at_least), (Some(1_000), false));
    let share = Some(0.986_503_856_041_131_1);
    let exact = Figures { availability: share, ..figures };
    let read: Figures = serde_json::from_str(&serde_json::to_string(&exact).unwrap()).unwrap();
    assert_eq!(read, exact, "a report of a bridge's answer has the same digits");
    let json = serde_json::to_value(figures).unwrap();
    assert_eq!(json["connected_s"], 2.5);
    assert_eq!(json["period_s"], 10);
    assert_eq!(json["longest_outage_at"], "1970-01-01T00:00:03.000Z");
    assert_eq!(serde_json::from_value::<Figures>(json).unwrap(), figures);
}

#[test]
fn time_without_data_has_no_availability() {
    let (start, end) = (Moment::from_millis(0), Moment::from_millis(1_000));
    let unseen = timeline(Moment::from_millis(5_000), Vec::new());
    let absent = Tiles::new(&unseen, (start, end), end).figures(start, end);
    assert_eq!((absent.availability, absent.observed, absent.absent_ms), (None, None, 1_000));
    let stopped = timeline(Moment::from_millis(-5_000), Vec::new());
    let unobserved = Tiles::new(&stopped, (start, end), end).figures(start, end);
    assert_eq!((unobserved.availability, unobserved.observed), (None, Some(0.0)));
    // A row that lasts is true only as far as it is proven.
    let open = timeline(start, vec![span(0, None, SpanState::Connected)]);
    let figures = Tiles::new(&open, (start, end), Moment::from_millis(400)).figures(start, end);
    assert_eq!((figures.connected_ms, figures.unobserved_ms), (400, 600));
    assert_eq!((figures.availability, figures.observed), (Some(1.0), Some(0.4)));
}

proptest! {
    /// Whatever was recorded, the buckets of each size add up to the whole, to the millisecond.
    #[test]
    fn parts_add_up(
        lengths in prop::collection::vec((0..4_usize, 1..40_000_000_i64), 0..80),
        first_seen in 0..20_000_000_i64,
        from in 0..40_000_000_i64,
        proven in 0..2_000_000_000_i64,
        zone_name in prop::sample::select(vec![
            "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Asia/Beirut", "Pacific/Apia",
            "Australia/Lord_Howe", "UTC",
        ]),
        month in prop::sample::select(vec!["2026-03-20", "2026-10-20", "2011-12-20"]),
    ) {
        let states = [
            SpanState::Connected, SpanState::Disconnected, SpanState::Unknown, SpanState::Absent,
        ];
        let base = at(&format!("{month}T00:00:00Z")).millis();
        let (mut spans, mut reached) = (Vec::new(), base + first_seen);
        for (state, length) in lengths {
            // Every fifth millisecond a hole.
            let hole = if length % 5 == 0 { length / 3 } else { 0 };
            spans.push(span(reached + hole, reached + hole + length, states[state]));
            reached += hole + length;
        }
        let timeline = timeline(Moment::from_millis(base + first_seen), spans);
        let (start, end) = (base + from, reached.max(base + from) + 10_000_000);
        let (start, end) = (Moment::from_millis(start), Moment::from_millis(end));
        let tiles = Tiles::new(&timeline, (start, end), Moment::from_millis(base + proven));
        let whole = tiles.figures(start, end);
        let zone = zone(zone_name);
        for size in [BucketSize::Total, BucketSize::Month, BucketSize::Day, BucketSize::Hour] {
            let parts = buckets((start, end), &zone, size, usize::MAX);
            prop_assert_eq!(parts.first().unwrap().start, start);
            prop_assert_eq!(parts.last().unwrap().end, end);
            prop_assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            let figures: Vec<Figures> =
                parts.iter().map(|part| tiles.figures(part.start, part.end)).collect();
            for part in &figures {
                let sum = part.connected_ms + part.disconnected_ms + part.unobserved_ms
                    + part.absent_ms;
                prop_assert_eq!(sum, part.period_ms);
            }
            let sum = Figures::sum(figures.iter());
            let times = |it: &Figures| {
                (it.period_ms, it.connected_ms, it.disconnected_ms, it.unobserved_ms, it.absent_ms)
            };
            prop_assert_eq!(times(&sum), times(&whole));
            prop_assert_eq!(sum.availability, whole.availability);
        }
    }
}
