//! Tests of retained states and infos, and of topics that are cleared.

use super::*;

#[test]
fn the_window_is_never_exceeded_and_states_are_read_when_sent() {
    let mut setup = Setup::online((1..=50).map(|at| row(at, Status::TlsConnected)).collect());
    setup.disconnect(false);
    setup.connect(20);
    let sent: Vec<_> = std::iter::from_fn(|| setup.next()).collect();
    assert_eq!(sent.len(), 20);
    let status = Status::Disconnected;
    let (timestamp_s, received) = (1_790_000_000, Instant::now());
    setup.input(LinkEvent::Status(StreamedStatus {
        device_id: id(50),
        status,
        timestamp_s,
        received,
    }));
    for message in sent {
        setup.ack(message.token, true);
    }
    let mut last = None;
    while let Some(message) = setup.next() {
        setup.ack(message.token, true);
        if message.topic == "gsdk/lobby/50/state" {
            assert!(last.is_none(), "published once");
            last = Some(message.payload);
        }
    }
    let last: serde_json::Value = serde_json::from_slice(&last.unwrap()).unwrap();
    assert_eq!(last["connected"], false, "the latest wins");
}

#[test]
fn infos_are_published_at_most_every_ten_seconds_and_not_twice_the_same() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    setup.now = setup.now.plus(60_000);
    setup.published();
    setup.publisher.content.infos().changed(InfoOf::Gateway(GatewayIndex(0)));
    assert_eq!(setup.published(), Vec::<String>::new(), "nothing has changed in it");
    setup.links[0].package = Some("connect".to_owned());
    setup.publisher.content.infos().changed(InfoOf::Gateway(GatewayIndex(0)));
    assert_eq!(setup.published(), Vec::<String>::new(), "it was compared just now");
    setup.now = setup.now.plus(10_000);
    assert_eq!(setup.published(), ["gsdk/lobby/info ..."]);
    setup.links[0].package = Some("gsdk.connect".to_owned());
    setup.publisher.content.infos().changed(InfoOf::Gateway(GatewayIndex(0)));
    assert_eq!(setup.published(), Vec::<String>::new());
    assert_eq!(setup.publisher.wake_at(), Some(setup.now.plus(10_000)));
}

#[test]
fn an_info_follows_the_gateways_state_at_once() {
    let mut setup = Setup::new();
    setup.connect(20);
    setup.now = setup.now.plus(60_000);
    setup.published();
    setup.input(LinkEvent::LinkUp);
    assert_eq!(setup.published(), ["gsdk/lobby/state offline", "gsdk/lobby/info ..."], "syncing");
    setup.now = setup.now.plus(1_000);
    setup.input(LinkEvent::ListRequested);
    setup.input(LinkEvent::List(vec![row(7, Status::TlsConnected)]));
    let messages = setup.published();
    let place = |text: &str| messages.iter().position(|message| message == text);
    assert!(place("gsdk/lobby/state online").is_some(), "{messages:?}");
    assert!(place("gsdk/lobby/state online") < place("gsdk/lobby/info ..."), "{messages:?}");
}

#[test]
fn topics_of_an_unconfigured_gateway_are_cleared_until_the_broker_has_accepted_that() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    let annex = "annex".parse().unwrap();
    setup.publisher.content.clear_gateway(&annex, [id(9)]);
    let topics = ["gsdk/annex/9/state", "gsdk/annex/state", "gsdk/annex/info"];
    let clearing = |setup: &mut Setup| {
        setup.publisher.content.clearing.queue.topics().cloned().collect::<Vec<_>>()
    };
    assert_eq!(clearing(&mut setup), topics);
    let stored = |setup: &mut Setup| setup.publisher.content.clearing.take_changes();
    assert_eq!(stored(&mut setup), topics.map(|topic| (topic.to_owned(), true)));
    assert!(setup.next().is_none(), "nothing is cleared before the session has settled");
    setup.publisher.content.set_settled();
    let (first, second) = (setup.next().unwrap(), setup.next().unwrap());
    assert_eq!((first.topic.as_str(), &first.payload[..]), (topics[0], &b""[..]));
    setup.ack(first.token, false);
    setup.ack(second.token, true);
    let mut left = clearing(&mut setup);
    left.sort_unstable();
    assert_eq!(left, ["gsdk/annex/9/state", "gsdk/annex/info"], "refused, and not sent yet");
    assert_eq!(stored(&mut setup), [("gsdk/annex/state".to_owned(), false)]);
    setup.disconnect(false);
    assert_eq!(clearing(&mut setup).len(), 2);
    setup.connect(20);
    assert!(
        setup.published().iter().all(|message| !message.starts_with("gsdk/annex/")),
        "a new session"
    );
    setup.publisher.content.set_settled();
    let messages = setup.published();
    let cleared = messages.iter().filter(|message| message.starts_with("gsdk/annex/")).count();
    assert_eq!(cleared, 2, "{messages:?}");
    assert!(clearing(&mut setup).is_empty());
    assert_eq!(stored(&mut setup).len(), 2);
}

#[test]
fn a_topic_that_is_in_use_again_is_not_cleared() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    let mine = ["gsdk/lobby/state", "gsdk/lobby/info", "gsdk/lobby/7/state"];
    let gone = ["gsdk/lobby/8/state", "gsdk/annex/state", "elsewhere/lobby/7/state"];
    let topics = mine.iter().chain(&gone).map(|&topic| topic.to_owned());
    topics.for_each(|topic| setup.publisher.content.clearing.queue.push(topic));
    setup.publisher.content.set_settled();
    assert_eq!(setup.published(), gone.map(|topic| format!("{topic} ")));
    assert!(setup.publisher.content.clearing.queue.is_empty());
}
