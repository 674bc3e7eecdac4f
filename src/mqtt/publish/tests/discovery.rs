//! Tests of discovery: what of it is published, and when.

use super::*;

/// One that is online.
fn setup(rows: Vec<Listed>) -> Setup {
    let mut setup = Setup::new();
    setup.publisher = publisher(true);
    setup.connect(20);
    setup.input(LinkEvent::LinkUp);
    setup.input(LinkEvent::ListRequested);
    setup.input(LinkEvent::List(rows));
    setup.published();
    setup
}

fn is_discovery(message: &str) -> bool {
    message.starts_with("homeassistant/")
}

/// All discovery that is published within so many seconds, each with the time since then.
fn discovered(setup: &mut Setup, seconds: i64) -> Vec<(i64, String)> {
    let began = setup.now;
    let mut messages = Vec::new();
    while setup.now.since(began) <= seconds * 1_000 {
        let new = setup.published().into_iter().filter(|message| is_discovery(message));
        messages.extend(new.map(|message| (setup.now.since(began), message)));
        setup.now = setup.now.plus(10);
    }
    messages
}

fn topics(messages: &[(i64, String)]) -> Vec<&str> {
    messages.iter().filter_map(|(_, message)| message.split(' ').next()).collect()
}

#[test]
fn it_waits_for_the_end_of_the_scan() {
    let mut setup = setup(vec![row(7, Status::TlsConnected)]);
    assert!(setup.publisher.is_online());
    assert_eq!(discovered(&mut setup, 20), []);
    setup.publisher.content.discovery.scan_ended(false);
    let messages = discovered(&mut setup, 10);
    let all = [
        "homeassistant/device/gsdk_bridge/config",
        "homeassistant/device/gsdk_lobby_gateway/config",
        "homeassistant/device/gsdk_lobby_7/config",
    ];
    assert_eq!(topics(&messages), all);
}

#[test]
fn it_is_paced_and_children_wait_for_their_parents() {
    let rows = (1..=100).map(|number| row(number, Status::Disconnected)).collect();
    let mut setup = setup(rows);
    setup.publisher.content.discovery.scan_ended(true);
    let messages = discovered(&mut setup, 20);
    assert_eq!(messages.len(), 102);
    assert!(
        messages[1].0 - messages[0].0 >= 2_000 && messages[2].0 - messages[1].0 >= 2_000,
        "{:?}",
        &messages[..3]
    );
    let per_second = |second: i64| messages.iter().filter(|(at, _)| at / 1_000 == second).count();
    assert!((0..20).all(|second| per_second(second) <= 20), "{messages:?}");
    assert_eq!(discovered(&mut setup, 20), [], "each once");
    assert!(setup.publisher.content.discovery.is_idle());
}

#[test]
fn a_device_that_changes_does_not_delay_those_that_are_not_published_yet() {
    let rows = (1..=30).map(|number| row(number, Status::Disconnected)).collect();
    let mut setup = setup(rows);
    setup.publisher.content.discovery.scan_ended(true);
    let before = discovered(&mut setup, 5);
    assert!((3..32).contains(&before.len()), "some devices: {before:?}");
    let details = DeviceDetails { firmware: Some("1.2.3".to_owned()), ..DeviceDetails::default() };
    setup.set_details(id(1), details);
    let after = discovered(&mut setup, 5);
    assert_eq!(before.len() + after.len(), 2 + 30 + 1);
    assert_eq!(topics(&after).last(), Some(&"homeassistant/device/gsdk_lobby_1/config"));
}

#[test]
fn retained_discovery_is_not_published_again_and_stale_discovery_is_removed() {
    let mut first = setup(vec![row(7, Status::TlsConnected), row(8, Status::Disconnected)]);
    first.publisher.content.discovery.scan_ended(true);
    let mut retained = Vec::new();
    for _ in 0..2_000 {
        while let Some(message) = first.next() {
            first.ack(message.token, true);
            retained.push((message.topic, message.payload));
        }
        first.now = first.now.plus(10);
    }
    retained.retain(|(topic, _)| is_discovery(topic));
    assert_eq!(retained.len(), 4);

    // Device 8 is not there any more.
    let mut second = setup(vec![row(7, Status::TlsConnected)]);
    let directory = second.directory.clone();
    for (topic, payload) in &retained {
        second.publisher.content.discovery.found(&directory, topic, payload);
    }
    let stale = retained[3].1.to_vec();
    let gone = "homeassistant/device/gsdk_attic_8/config";
    second.publisher.content.discovery.found(&directory, gone, &stale);
    assert!(second.publisher.content.discovery.removals.is_empty(), "another bridge's?");
    second.publisher.content.clear_gateway(&"attic".parse().unwrap(), []);
    second.publisher.content.set_settled();
    second.publisher.content.discovery.found(&directory, gone, &stale);
    second.publisher.content.discovery.found(&directory, gone, &stale);
    let other = String::from_utf8(stale).unwrap().replace("gsdk/bridge/state", "gsdk/other/state");
    let others = "homeassistant/device/gsdk_attic_9/config";
    second.publisher.content.discovery.found(&directory, others, other.as_bytes());
    second.publisher.content.discovery.scan_ended(true);
    let messages = discovered(&mut second, 10);
    let cleared = [format!("{gone} "), "homeassistant/device/gsdk_lobby_8/config ".to_owned()];
    assert_eq!(messages.into_iter().map(|(_, message)| message).collect::<Vec<_>>(), cleared);

    second.publisher.content.discovery.publish_again(&second.fleet);
    assert_eq!(discovered(&mut second, 10).len(), 3, "whatever the broker retains");
}

#[test]
fn a_short_interval_delays_no_device_forever() {
    let count = 300;
    let mut setup = setup((1..=count).map(|number| row(number, Status::Disconnected)).collect());
    setup.publisher.content.discovery.scan_ended(true);
    discovered(&mut setup, 30);
    let mut again = Vec::new();
    for _ in 0..3 {
        setup.publisher.content.discovery.interval_elapsed(&setup.fleet);
        again.extend(discovered(&mut setup, 10));
    }
    let last = format!("homeassistant/device/gsdk_lobby_{count}/config");
    assert!(topics(&again).contains(&last.as_str()), "{}", again.len());
}

#[test]
fn at_home_assistants_birth_states_follow_discovery() {
    let mut setup = setup(vec![row(7, Status::TlsConnected)]);
    setup.publisher.content.discovery.scan_ended(true);
    discovered(&mut setup, 10);
    setup.publisher.content.discovery.home_assistant_started(&setup.fleet);
    let mut messages = Vec::new();
    for _ in 0..1_200 {
        messages.extend(setup.published());
        setup.now = setup.now.plus(10);
    }
    let state = messages.iter().position(|message| message == "gsdk/lobby/7/state ...").unwrap();
    let last = messages.iter().rposition(|message| is_discovery(message)).unwrap();
    assert!(last < state, "{messages:?}");
    assert_eq!(messages.iter().filter(|message| is_discovery(message)).count(), 3);
    let online = messages.iter().position(|message| message == "gsdk/bridge/state online");
    assert!(online.unwrap() > last, "{messages:?}");
}

#[test]
fn a_refused_one_is_published_again_and_holds_up_nothing() {
    let mut setup = setup(vec![row(7, Status::TlsConnected)]);
    setup.publisher.content.discovery.scan_ended(true);
    let refused = setup.next().unwrap();
    assert_eq!(refused.topic, "homeassistant/device/gsdk_bridge/config");
    setup.ack(refused.token, false);
    let named: Vec<_> = setup
        .publisher
        .content
        .refusals
        .topics(|kind| kind == MessageKind::Discovery)
        .map(|(topic, _)| topic)
        .collect();
    assert_eq!(named, [refused.topic.as_str()]);
    assert_eq!(
        setup.publisher.content.refusals.topics(|kind| kind != MessageKind::Discovery).count(),
        0
    );
    let messages = discovered(&mut setup, 10);
    assert!(topics(&messages).contains(&refused.topic.as_str()), "{messages:?}");
}

#[test]
fn where_it_is_disabled_nothing_is_published_and_ours_is_removed() {
    let mut on = setup(vec![row(7, Status::TlsConnected)]);
    on.publisher.content.discovery.scan_ended(true);
    let message = on.next().unwrap();
    let mut off = Setup::online(vec![row(7, Status::TlsConnected)]);
    let directory = off.directory.clone();
    off.publisher.content.discovery.found(&directory, &message.topic, &message.payload);
    off.publisher.content.discovery.home_assistant_started(&off.fleet);
    off.publisher.content.discovery.publish_again(&off.fleet);
    off.publisher.content.discovery.scan_ended(true);
    assert!(discovered(&mut off, 10).is_empty(), "not before the session has settled");
    off.publisher.content.set_settled();
    let messages = discovered(&mut off, 10);
    assert_eq!(messages, [(0, "homeassistant/device/gsdk_bridge/config ".to_owned())]);
}
