//! Tests of discovery: what of it is said when.
//!
//! May not touch a socket.

use super::*;

/// One that is online and knows what the broker keeps.
fn desk(rows: Vec<Listed>) -> Desk {
    let mut desk = Desk::new();
    desk.publisher = Publisher::new(Topics::new("gsdk", "bridge"), 1, discovery(true));
    desk.connect(20);
    desk.input(LinkEvent::LinkUp);
    desk.input(LinkEvent::ListRequested);
    desk.input(LinkEvent::List(rows));
    desk.said();
    desk
}

fn is_discovery(message: &str) -> bool {
    message.starts_with("homeassistant/")
}

/// All discovery that is said within so many seconds; each with the time since then.
fn discovered(desk: &mut Desk, seconds: i64) -> Vec<(i64, String)> {
    let began = desk.now;
    let mut said = Vec::new();
    while desk.now.since(began) <= seconds * 1_000 {
        let new = desk.said().into_iter().filter(|message| is_discovery(message));
        said.extend(new.map(|message| (desk.now.since(began), message)));
        desk.now = desk.now.plus(10);
    }
    said
}

fn topics(said: &[(i64, String)]) -> Vec<&str> {
    said.iter().filter_map(|(_, message)| message.split(' ').next()).collect()
}

#[test]
fn it_waits_until_the_brokers_memory_is_read_but_not_for_ever() {
    let mut desk = desk(vec![row(7, Status::TlsConnected)]);
    assert!(desk.publisher.is_online());
    assert_eq!(discovered(&mut desk, 9), []);
    let said = discovered(&mut desk, 10);
    let all = [
        "homeassistant/device/gsdk_bridge/config",
        "homeassistant/device/gsdk_lobby_gateway/config",
        "homeassistant/device/gsdk_lobby_7/config",
    ];
    assert_eq!(topics(&said), all);
}

#[test]
fn it_is_paced_and_children_wait_for_their_parents() {
    let rows = (1..=100).map(|number| row(number, Status::Disconnected)).collect();
    let mut desk = desk(rows);
    desk.publisher.discovery_memory_read();
    let said = discovered(&mut desk, 20);
    assert_eq!(said.len(), 102);
    assert!(said[1].0 - said[0].0 >= 2_000 && said[2].0 - said[1].0 >= 2_000, "{:?}", &said[..3]);
    let per_second = |second: i64| said.iter().filter(|(at, _)| at / 1_000 == second).count();
    assert!((0..20).all(|second| per_second(second) <= 20), "{said:?}");
    assert_eq!(discovered(&mut desk, 20), [], "each once");
    assert!(desk.publisher.discovery_is_idle());
}

#[test]
fn what_the_broker_keeps_is_not_said_again_and_what_is_no_more_is_cleared() {
    let mut first = desk(vec![row(7, Status::TlsConnected), row(8, Status::Disconnected)]);
    first.publisher.discovery_memory_read();
    let mut kept = Vec::new();
    for _ in 0..2_000 {
        while let Some(message) = first.next() {
            first.ack(message.token, true);
            kept.push((message.topic, message.payload));
        }
        first.now = first.now.plus(10);
    }
    kept.retain(|(topic, _)| is_discovery(topic));
    assert_eq!(kept.len(), 4);

    // Device 8 is not there any more.
    let mut second = desk(vec![row(7, Status::TlsConnected)]);
    let directory = second.directory.clone();
    for (topic, payload) in &kept {
        assert!(!second.publisher.discovery_found(&directory, topic, payload));
    }
    let stale = kept[3].1.to_vec();
    let gone = "homeassistant/device/gsdk_attic_8/config";
    assert!(!second.publisher.discovery_found(&directory, gone, &stale), "another bridge's?");
    second.publisher.gateway_gone(&"attic".parse().unwrap(), [], &mut second.outbox);
    second.publisher.settled();
    assert!(second.publisher.discovery_found(&directory, gone, &stale));
    assert!(!second.publisher.discovery_found(&directory, gone, &stale), "found once");
    let other = String::from_utf8(stale).unwrap().replace("gsdk/bridge/state", "gsdk/other/state");
    let others = "homeassistant/device/gsdk_attic_9/config";
    assert!(!second.publisher.discovery_found(&directory, others, other.as_bytes()));
    second.publisher.discovery_memory_read();
    let said = discovered(&mut second, 10);
    let cleared = [format!("{gone} "), "homeassistant/device/gsdk_lobby_8/config ".to_owned()];
    assert_eq!(said.into_iter().map(|(_, message)| message).collect::<Vec<_>>(), cleared);

    second.publisher.discovery_again(&second.fleet);
    assert_eq!(discovered(&mut second, 10).len(), 3, "whatever the broker keeps");
}

#[test]
fn at_home_assistants_birth_states_follow_discovery() {
    let mut desk = desk(vec![row(7, Status::TlsConnected)]);
    desk.publisher.discovery_memory_read();
    discovered(&mut desk, 10);
    desk.publisher.home_assistant_born(&desk.fleet);
    let mut said = Vec::new();
    for _ in 0..1_200 {
        said.extend(desk.said());
        desk.now = desk.now.plus(10);
    }
    let state = said.iter().position(|message| message == "gsdk/lobby/7/state ...").unwrap();
    let last = said.iter().rposition(|message| is_discovery(message)).unwrap();
    assert!(last < state, "{said:?}");
    assert_eq!(said.iter().filter(|message| is_discovery(message)).count(), 3);
    let online = said.iter().position(|message| message == "gsdk/bridge/state online");
    assert!(online.unwrap() > last, "{said:?}");
}

#[test]
fn a_refused_one_is_said_again_and_holds_up_nothing() {
    let mut desk = desk(vec![row(7, Status::TlsConnected)]);
    desk.publisher.discovery_memory_read();
    let refused = desk.next().unwrap();
    assert_eq!(refused.topic, "homeassistant/device/gsdk_bridge/config");
    desk.ack(refused.token, false);
    let named: Vec<_> = desk.publisher.discovery_refused().map(|(topic, _)| topic).collect();
    assert_eq!(named, [refused.topic.as_str()]);
    assert_eq!(desk.publisher.refused().count(), 0);
    let said = discovered(&mut desk, 10);
    assert!(topics(&said).contains(&refused.topic.as_str()), "{said:?}");
}

#[test]
fn switched_off_nothing_is_said_and_ours_is_cleared() {
    let mut on = desk(vec![row(7, Status::TlsConnected)]);
    on.publisher.discovery_memory_read();
    let message = on.next().unwrap();
    let mut off = Desk::online(vec![row(7, Status::TlsConnected)]);
    let directory = off.directory.clone();
    assert!(off.publisher.discovery_found(&directory, &message.topic, &message.payload));
    off.publisher.home_assistant_born(&off.fleet);
    off.publisher.discovery_again(&off.fleet);
    off.publisher.discovery_memory_read();
    assert!(discovered(&mut off, 10).is_empty(), "not before the session has settled");
    off.publisher.settled();
    let said = discovered(&mut off, 10);
    assert_eq!(said, [(0, "homeassistant/device/gsdk_bridge/config ".to_owned())]);
}
