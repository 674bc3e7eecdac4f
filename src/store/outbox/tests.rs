//! Tests of the outbox: order per subject, bounds, and that every loss is counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::ids::{DeviceId, Moment};

const GARAGE: u32 = 1_000_000;

/// The device of the gateway `lobby`, or, from `GARAGE` on, of `garage`.
fn subject(device: u32) -> Subject {
    let gateway = if device < GARAGE { "lobby" } else { "garage" };
    Subject::Device(gateway.parse().unwrap(), DeviceId::new(device).unwrap())
}

/// An event whose payload is its number within its subject.
fn event(device: u32, number: u64) -> Event {
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    Event {
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        recorded_at: Moment::from_millis(0),
        subject: subject(device),
        event_type: "connected".into(),
        payload: Bytes::from(number.to_string()),
        read_at: Some(Instant::now()),
    }
}

fn outbox(max_events: usize) -> Outbox {
    Outbox::new(OutboxLimits { max_events, max_bytes: usize::MAX })
}

fn sent(outbox: &mut Outbox) -> Option<(Subject, u64, u64)> {
    let (event, lost) = outbox.next(|_| true)?;
    let number = std::str::from_utf8(&event.payload).unwrap().parse().unwrap();
    Some((event.subject.clone(), number, lost))
}

#[test]
fn one_event_of_a_subject_is_in_flight_at_a_time() {
    let mut outbox = outbox(10);
    for (device, number) in [(1, 1), (1, 2), (2, 1)] {
        outbox.append(event(device, number));
    }
    assert_eq!(sent(&mut outbox), Some((subject(1), 1, 0)));
    assert_eq!(sent(&mut outbox), Some((subject(2), 1, 0)));
    assert_eq!(sent(&mut outbox), None);
    assert!(outbox.acknowledge(&subject(1)).is_some());
    assert_eq!(sent(&mut outbox), Some((subject(1), 2, 0)));
    assert!(outbox.put_back(&subject(1)));
    assert_eq!(sent(&mut outbox), Some((subject(1), 2, 0)), "not taken, so the next again");
}

#[test]
fn payloads_are_compressed_while_many_wait_and_are_sent_as_they_were() {
    let mut outbox = outbox(usize::MAX);
    let json = |number: u64| {
        let number = number * 7_919;
        format!(r#"{{"name":"BioStation A2 {number}","status":"tls_connected","seq":{number}}}"#)
    };
    let payloads: Vec<Bytes> = (0..30_000).map(|number| json(number).into()).collect();
    let len: usize = payloads.iter().map(Bytes::len).sum();
    for (device, payload) in (1..).zip(&payloads) {
        outbox.append(Event { payload: payload.clone(), ..event(device, 1) });
    }
    assert_eq!(outbox.bytes(), len);
    let held: usize = outbox
        .queues
        .values()
        .flat_map(|queue| &queue.events)
        .map(|waiting| waiting.memory_len())
        .sum();
    assert!(held < PLAIN_BYTES_MAX + len / 2, "{held} of {len}");
    let stored: Vec<Bytes> = outbox
        .records()
        .filter_map(|record| match record {
            Record::Event(event) => Some(event.payload.clone()),
            _ => None,
        })
        .collect();
    assert!(stored == payloads, "a new log gets them as they were");
    for payload in &payloads {
        let (event, _) = outbox.next(|_| true).unwrap();
        assert_eq!(event.payload, payload);
        let subject = event.subject.clone();
        outbox.acknowledge(&subject).unwrap();
    }
    assert_eq!((outbox.bytes(), outbox.is_empty()), (0, true));
}

#[test]
fn an_event_that_may_not_be_sent_is_checked_once_and_again_after_its_release() {
    let mut outbox = outbox(10);
    for device in 1..=5 {
        outbox.append(event(device, 1));
    }
    let checked = std::cell::RefCell::new(Vec::new());
    let next = |outbox: &mut Outbox, held: &[u32]| {
        let event = outbox.next(|one| {
            checked.borrow_mut().push(one.clone());
            !held.iter().any(|held| *one == subject(*held))
        });
        (event.map(|(event, _)| event.subject.clone()), checked.take())
    };
    let of = |devices: &[u32]| devices.iter().copied().map(subject).collect::<Vec<_>>();
    assert_eq!(next(&mut outbox, &[1, 2, 4]), (Some(subject(3)), of(&[1, 2, 3])));
    assert_eq!(next(&mut outbox, &[1, 2, 4]), (Some(subject(5)), of(&[4, 5])));
    assert_eq!(next(&mut outbox, &[1, 2, 4]), (None, of(&[])));
    outbox.release();
    assert_eq!(next(&mut outbox, &[1, 4]), (Some(subject(2)), of(&[1, 2])));
    outbox.put_all_back();
    assert_eq!(
        next(&mut outbox, &[]),
        (Some(subject(1)), of(&[1])),
        "a new connection checks again"
    );
}

#[test]
fn a_full_outbox_drops_the_oldest_and_the_next_reports_it() {
    let mut outbox = outbox(3);
    let [first, second, third] = [1, 2, 3].map(|number| event(1, number));
    for event in [&first, &second, &third] {
        outbox.append(event.clone());
    }
    assert_eq!(outbox.append(event(2, 1)), [first]);
    assert_eq!(outbox.append(event(2, 2)), [second]);
    assert_eq!(sent(&mut outbox), Some((subject(1), 3, 2)));
    assert_eq!(outbox.dropped(), 2);
}

#[test]
fn a_subject_whose_only_event_was_dropped_reports_it_with_its_next() {
    let mut outbox = outbox(1);
    outbox.append(event(1, 1));
    outbox.append(event(2, 1));
    outbox.append(event(1, 2));
    assert_eq!(sent(&mut outbox), Some((subject(1), 2, 1)));
}

#[test]
fn a_full_outbox_remains_small_and_fast_while_the_broker_is_down() {
    let mut outbox = outbox(10);
    for number in 0..10_000 {
        for device in 1..=20 {
            outbox.append(event(device, number));
        }
    }
    assert_eq!(outbox.len(), 10);
    assert!(outbox.queues.len() <= 20);
    assert_eq!(std::iter::from_fn(|| sent(&mut outbox)).count(), 10);
}

#[test]
fn gateways_take_turns_and_each_sends_its_oldest() {
    let mut outbox = outbox(10);
    for device in [1, 2, 3, GARAGE, 4, GARAGE + 1] {
        outbox.append(event(device, 1));
    }
    let bridge = Event { subject: Subject::Bridge, ..event(5, 1) };
    outbox.append(bridge);
    let order: Vec<Subject> =
        std::iter::from_fn(|| sent(&mut outbox)).map(|(subject, ..)| subject).collect();
    let [one, two, three, four] = [1, 2, 3, 4].map(subject);
    let [garage, other] = [GARAGE, GARAGE + 1].map(subject);
    assert_eq!(order, [garage, one, Subject::Bridge, other, two, three, four]);
}

#[derive(Clone, Debug)]
enum Op {
    Append(u32),
    Send,
    Acknowledge(u32),
    PutBack(u32),
    PutAllBack,
}

fn device() -> impl Strategy<Value = u32> {
    prop_oneof![1..4u32, GARAGE..GARAGE + 2]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => device().prop_map(Op::Append),
        4 => Just(Op::Send),
        3 => device().prop_map(Op::Acknowledge),
        1 => device().prop_map(Op::PutBack),
        1 => Just(Op::PutAllBack),
    ]
}

proptest! {
    #[test]
    fn every_event_is_sent_in_order_or_reported_as_lost(
        ops in prop::collection::vec(op(), 1..300),
        max_events in 1..20usize,
    ) {
        let mut outbox = outbox(max_events);
        let mut made: BTreeMap<u32, u64> = BTreeMap::new();
        let mut acknowledged: BTreeMap<Subject, u64> = BTreeMap::new();
        let mut in_flight: BTreeMap<Subject, (u64, u64)> = BTreeMap::new();
        let send = |outbox: &mut Outbox,
                    acknowledged: &BTreeMap<Subject, u64>,
                    in_flight: &mut BTreeMap<Subject, (u64, u64)>| {
            let Some((subject, number, lost)) = sent(outbox) else { return false };
            let before = acknowledged.get(&subject).copied().unwrap_or(0);
            assert_eq!(number, before + lost + 1, "in order, the missing reported");
            assert!(in_flight.insert(subject, (number, lost)).is_none());
            true
        };
        for op in ops {
            match op {
                Op::Append(device) => {
                    let number = made.entry(device).or_default();
                    *number += 1;
                    outbox.append(event(device, *number));
                }
                Op::Send => _ = send(&mut outbox, &acknowledged, &mut in_flight),
                Op::Acknowledge(device) => {
                    let sent = in_flight.remove(&subject(device));
                    let acknowledged_now = outbox.acknowledge(&subject(device)).is_some();
                    prop_assert_eq!(acknowledged_now, sent.is_some());
                    if let Some((number, _)) = sent {
                        acknowledged.insert(subject(device), number);
                    }
                }
                Op::PutBack(device) => if in_flight.remove(&subject(device)).is_some() {
                    prop_assert!(outbox.put_back(&subject(device)));
                },
                Op::PutAllBack => {
                    in_flight.clear();
                    outbox.put_all_back();
                }
            }
            prop_assert!(outbox.len() <= max_events.max(in_flight.len() + 1));
        }
        outbox.put_all_back();
        in_flight.clear();
        while send(&mut outbox, &acknowledged, &mut in_flight) {
            let (subject, (number, _)) = in_flight.pop_first().unwrap();
            outbox.acknowledge(&subject);
            acknowledged.insert(subject, number);
        }
        prop_assert!(outbox.is_empty());
        prop_assert_eq!(outbox.bytes(), 0);
    }
}
