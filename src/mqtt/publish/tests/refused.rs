//! Tests of messages that the broker refuses, or over which it closes the connection.

use super::*;
use crate::metrics::Metrics;
use crate::mqtt::publish::answers::AnswerDropped;

#[test]
fn a_refused_message_is_sent_again_later_and_a_lost_one_with_the_next_connection() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    setup.append("lobby", "corrected");
    let refused = setup.next().unwrap();
    setup.ack(refused.token, false);
    assert!(setup.next().is_none());
    setup.now = setup.publisher.wake_at().unwrap();
    let again = setup.next().unwrap();
    assert_eq!((again.topic, again.payload), (refused.topic.clone(), refused.payload));
    setup.disconnect(false);
    setup.connect(20);
    assert!(setup.published().iter().any(|message| message.starts_with(&refused.topic)));
}

#[test]
fn a_refused_state_is_emptied_named_and_sent_again_and_online_does_not_wait_for_it() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    setup.disconnect(false);
    setup.connect(20);
    let mut seen = Vec::new();
    let refuse = |setup: &mut Setup, seen: &mut Vec<String>| {
        while let Some(message) = setup.next() {
            let refused = message.topic.ends_with("/7/state") && !message.payload.is_empty();
            setup.ack(message.token, !refused);
            seen.push(format!("{} {}", message.topic, message.payload.len().min(9)));
        }
    };
    refuse(&mut setup, &mut seen);
    let place = |text: &str| seen.iter().position(|seen| seen == text).unwrap();
    assert!(place("gsdk/lobby/7/state 9") < place("gsdk/lobby/7/state 0"));
    assert!(place("gsdk/lobby/7/state 0") < place("gsdk/bridge/state 6"), "{seen:?}");
    let named: Vec<_> = setup
        .publisher
        .content
        .refusals
        .topics(|kind| kind != MessageKind::Discovery)
        .map(|(topic, _)| topic.to_owned())
        .collect();
    assert_eq!(named, ["gsdk/lobby/7/state"]);
    setup.now = setup.publisher.wake_at().unwrap();
    seen.clear();
    refuse(&mut setup, &mut seen);
    assert_eq!(seen, ["gsdk/lobby/7/state 9"], "it is empty already");
    setup.now = setup.publisher.wake_at().unwrap();
    assert_eq!(setup.published(), ["gsdk/lobby/7/state ..."]);
    assert_eq!(
        setup.publisher.content.refusals.topics(|kind| kind != MessageKind::Discovery).count(),
        0
    );
}

#[test]
fn an_event_refused_permanently_is_lost_and_reported_by_the_next_of_its_subject() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    for code in [0x90, 0x95, 0x99] {
        setup.append("lobby", "corrected");
        let refused = setup.next().unwrap();
        let rejected = setup.answer(refused.token, code).unwrap_err();
        assert_eq!(rejected.lost.unwrap().subject, Subject::Gateway("lobby".parse().unwrap()));
        assert_eq!(rejected.topic, "gsdk/lobby/event/corrected");
    }
    setup.append("lobby", "corrected");
    let next = setup.next().unwrap();
    assert_eq!(&next.payload[..], br#"{"a":1,"lost":3}"#);
}

#[test]
fn all_other_codes_are_no_loss_and_hold_up_no_other_subject() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    for code in (0x80..=0xFF).filter(|code| ![0x90, 0x95, 0x99].contains(code)) {
        setup.append("lobby", "corrected");
        let refused = setup.next().unwrap();
        assert_eq!(setup.answer(refused.token, code).unwrap_err().lost, None, "{code:#x}");
        setup.append("store", "corrected");
        let other = setup.next().unwrap();
        assert_eq!(other.topic, "gsdk/store/event/corrected");
        setup.answer(other.token, 0x10).unwrap();
        setup.now = setup.publisher.wake_at().unwrap();
        assert_eq!(setup.published(), ["gsdk/lobby/event/corrected ..."]);
    }
    assert!(setup.outbox.is_empty());
}

/// Connects, and answers all but messages on this topic, over which the broker closes.
fn closes_over(setup: &mut Setup, topic: &str) -> (Vec<String>, Option<Rejected>) {
    setup.connect(20);
    let mut messages = Vec::new();
    loop {
        let batch: Vec<_> = std::iter::from_fn(|| setup.next()).collect();
        if batch.is_empty() {
            return (messages, None);
        }
        for message in batch {
            if message.topic == topic && !message.payload.is_empty() {
                return (messages, setup.disconnect(true));
            }
            setup.ack(message.token, true);
            messages.push(message.topic);
        }
    }
}

#[test]
fn an_event_over_which_the_broker_closes_is_found_and_no_other_is_lost() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    setup.disconnect(false);
    for _ in 0..3 {
        setup.append("store", "corrected");
        setup.append("lobby", "corrected");
        setup.append("annex", "corrected");
    }
    let mut cuts = 0;
    let rejected = loop {
        let (_, rejected) = closes_over(&mut setup, "gsdk/lobby/event/corrected");
        cuts += 1;
        assert!(cuts < 10, "never found");
        if let Some(rejected) = rejected {
            break rejected;
        }
    };
    assert_eq!(rejected.refusal, Refusal::ClosesConnection);
    assert!((3..=5).contains(&cuts), "{cuts}");
    assert_eq!(rejected.lost.unwrap().subject, Subject::Gateway("lobby".parse().unwrap()));
    assert_eq!(setup.outbox.dropped(), 1);
    let (messages, _) = closes_over(&mut setup, "nothing");
    assert_eq!(messages.iter().filter(|topic| *topic == "gsdk/lobby/event/corrected").count(), 2);
    assert!(setup.outbox.is_empty());
}

/// Connects until the broker does not close the connection; returns how often it did.
fn closed_over(setup: &mut Setup, topic: &str) -> usize {
    for times in 0..20 {
        closes_over(setup, topic);
        if setup.publisher.is_connected() {
            assert!(setup.publisher.is_online());
            return times;
        }
    }
    panic!("closed on every connection");
}

#[test]
fn further_events_of_its_subject_cost_one_connection_every_five_minutes_at_most() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    setup.disconnect(false);
    for number in 0..60 {
        setup.append(if number < 30 { "lobby" } else { "store" }, "corrected");
    }
    let topic = "gsdk/lobby/event/corrected";
    assert_eq!(closed_over(&mut setup, topic), 4, "three until it is found, one over the next");
    assert_eq!((setup.outbox.len(), setup.outbox.dropped()), (28, 2), "all others are delivered");
    for lost in [3, 4] {
        let due = setup.publisher.wake_at().unwrap();
        assert_eq!(due.since(setup.now), 5 * 60_000);
        setup.now = due;
        setup.append("store", "corrected");
        let other = setup.next().unwrap();
        assert_eq!(setup.next(), None, "until nothing else is in flight");
        setup.ack(other.token, true);
        assert_eq!(setup.next().unwrap().topic, topic);
        assert!(setup.disconnect(true).is_some());
        assert_eq!((closed_over(&mut setup, topic), setup.outbox.dropped()), (0, lost));
    }
    setup.now = setup.publisher.wake_at().unwrap();
    assert_eq!(setup.published().len(), 26);
    assert!(setup.outbox.is_empty(), "once one is accepted, no other waits");
}

#[test]
fn the_reasons_that_metrics_have_from_the_start_are_those_that_are_counted() {
    let codes = (0x80..=u8::MAX).map(Refusal::Code).chain([Refusal::ClosesConnection]);
    let dropped = [AnswerDropped::NotConnected, AnswerDropped::QueueFull];
    let counted: Vec<&str> =
        codes.map(Refusal::as_str).chain(dropped.map(AnswerDropped::as_str)).collect();
    let text = Metrics::new("1", "c").unwrap().text().unwrap();
    let series = text.split("gsdk_mqtt_publish_failures_total{reason=\"").skip(1);
    let reasons: Vec<&str> = series.map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(reasons.len() > 10, "{text}");
    assert!(reasons.iter().all(|reason| counted.contains(reason)), "{reasons:?}");
}

#[test]
fn a_state_over_which_the_broker_closes_is_set_aside_and_emptied_before_online() {
    let rows = vec![row(7, Status::TlsConnected), row(8, Status::TlsConnected)];
    let mut setup = Setup::online(rows);
    setup.disconnect(false);
    let state = "gsdk/lobby/7/state";
    let found = (0..10).find_map(|_| closes_over(&mut setup, state).1);
    assert_eq!(found.map(|rejected| rejected.topic).as_deref(), Some(state));
    let (messages, _) = closes_over(&mut setup, state);
    let place = |text: &str| messages.iter().position(|message| message == text).unwrap();
    assert!(place(state) < place("gsdk/bridge/state"), "emptied: {messages:?}");
    let named: Vec<_> =
        setup.publisher.content.refusals.topics(|kind| kind != MessageKind::Discovery).collect();
    assert_eq!(named, [(state, Refusal::ClosesConnection)]);
}

#[test]
fn a_message_that_an_ended_connection_did_not_take_is_no_suspect() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    setup.disconnect(false);
    for _ in 0..10 {
        setup.connect(20);
        while let Some(message) = setup.next() {
            if message.topic == "gsdk/lobby/7/state" {
                setup.publisher.not_sent(message.token);
                break;
            }
            setup.ack(message.token, true);
        }
        assert!(setup.disconnect(true).is_none());
    }
}
