//! Tests of the publisher: what is published after a CONNACK, and in which order.

mod clearing;
mod discovery;

use std::time::Instant;

use bytes::Bytes;

use super::message::Acknowledged;
use super::*;
use crate::fleet::*;
use crate::homeassistant;
use crate::ids::{DeviceId, Moment, SteadyClock};
use crate::mqtt::{Publish, Refusal, Rejection, Topics};
use crate::payload::*;
use crate::store::{Event, Limits, Outbox};

/// A refusal after which the same message may be accepted.
const QUOTA_EXCEEDED: u8 = 0x97;

/// A message that the publisher sends.
#[derive(Debug, PartialEq)]
struct Sent {
    token: u64,
    topic: String,
    payload: Bytes,
}

struct Setup {
    fleet: Fleet,
    outbox: Outbox,
    appended: u64,
    publisher: Publisher,
    directory: Directory,
    links: Vec<LinkFacts>,
    now: Moment,
}

fn id(number: u32) -> DeviceId {
    DeviceId::new(number).unwrap()
}

fn row(number: u32, status: Status) -> Listed {
    let info = DeviceInfo {
        device_type: DeviceType::from_code(0x0D),
        ip: None,
        port: 51211,
        mode: Mode::ServerToDevice,
        ssl: false,
        auto_reconnect: true,
    };
    Listed { device_id: id(number), status, info }
}

fn discovery(enabled: bool) -> DiscoverySettings {
    let discovery = homeassistant::Discovery::new("gsdk", "1", homeassistant::Controls::default());
    DiscoverySettings { enabled, prefix: "homeassistant".to_owned(), discovery }
}

impl Setup {
    fn new() -> Self {
        let now = Moment::from_millis(1_790_000_000_000);
        let mut fleet = Fleet::new(SteadyClock::new(Instant::now(), now));
        let settings = GatewaySettings {
            audit_interval_ms: 60_000,
            unknown_after_ms: 10_000,
            forget_after_ms: None,
        };
        fleet.add_gateway(now, settings, &[]);
        let entry = GatewayEntry {
            name: "lobby".parse().unwrap(),
            address: "a:4000".to_owned(),
            area: None,
            devices: Default::default(),
        };
        Self {
            fleet,
            outbox: Outbox::new(Limits { max_events: 1_000, max_bytes: 1 << 20 }),
            appended: 0,
            publisher: Publisher::new(Topics::new("gsdk", "bridge"), 1, discovery(false)),
            directory: Directory {
                bridge: "bridge".to_owned(),
                instance_id: "i1".to_owned(),
                chain: "c1".to_owned(),
                gateways: vec![entry],
            },
            links: vec![LinkFacts::default()],
            now,
        }
    }

    fn input(&mut self, input: LinkEvent) {
        let mut out = Vec::new();
        self.fleet.step(self.now, GatewayIndex(0), input, &mut out);
        for output in out {
            match output {
                Output::State { gateway, device_id } => {
                    self.publisher.content().states().device_changed(gateway, device_id);
                }
                Output::Gateway(gateway) => self.publisher.content().gateway_changed(gateway),
                Output::GatewayEvent(_, event) => self.append("lobby", event.name()),
                _ => {}
            }
        }
    }

    fn append(&mut self, gateway: &str, event_type: &'static str) {
        let subject = Subject::Gateway(gateway.parse().unwrap());
        let payload = Bytes::from_static(b"{\"a\":1}");
        self.appended += 1;
        self.outbox.append(Event {
            id: self.appended,
            recorded_at: Moment::from_millis(0),
            subject,
            event_type: event_type.into(),
            payload,
            read_at: Some(Instant::now()),
        });
    }

    fn next(&mut self) -> Option<Sent> {
        let info = BridgeInfo {
            bridge: "bridge".to_owned(),
            instance_id: "i1".to_owned(),
            chain: "c1".to_owned(),
            version: "0",
            commit: "c",
            started_at: self.now,
            connected_at: Some(self.now),
            base_topic: "gsdk".to_owned(),
            gateways: vec!["lobby".parse().unwrap()],
            commands_allowed: vec![],
            outbox: OutboxInfo::default(),
        };
        let (fleet, directory, links) = (&self.fleet, &self.directory, &self.links[..]);
        let view = View { fleet, directory, links, bridge: &info };
        let (token, Publish { topic, payload, .. }) =
            self.publisher.next(self.now, &mut self.outbox, &view)?;
        Some(Sent { token, topic, payload })
    }

    /// A connection on which nobody else is heard.
    fn connect(&mut self, window: usize) {
        self.publisher.connected(window, &self.fleet);
        assert_eq!(self.next(), None, "first it is seen who else is there");
        self.publisher.start_full_publish(&self.fleet);
    }

    /// The connection ends.
    fn disconnect(&mut self, closed_by_broker: bool) -> Option<Rejected> {
        self.publisher.disconnected(closed_by_broker, &self.directory, &mut self.outbox)
    }

    /// The broker's PUBACK with this reason code.
    fn answer(&mut self, token: u64, code: u8) -> Acknowledged {
        let result = Refusal::from_code(code);
        let (directory, outbox) = (&self.directory, &mut self.outbox);
        self.publisher.acknowledged(self.now, token, result, directory, outbox).unwrap()
    }

    fn ack(&mut self, token: u64, taken: bool) {
        let code = if taken { 0x00 } else { QUOTA_EXCEEDED };
        self.answer(token, code);
    }

    /// Everything there is to say, acknowledged one by one.
    fn published(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(message) = self.next() {
            self.ack(message.token, true);
            let json = message.payload.starts_with(b"{");
            let text = if json { "..." } else { std::str::from_utf8(&message.payload).unwrap() };
            said.push(format!("{} {text}", message.topic));
        }
        said
    }

    fn online(rows: Vec<Listed>) -> Self {
        let mut setup = Self::new();
        setup.connect(20);
        setup.input(LinkEvent::LinkUp);
        setup.input(LinkEvent::ListRequested);
        setup.input(LinkEvent::List(rows));
        setup.published();
        setup
    }
}

#[test]
fn who_leaves_before_it_knows_that_it_is_alone_says_nothing_of_the_gateways() {
    let mut setup = Setup::new();
    setup.publisher.content().gateway_changed(GatewayIndex(0));
    setup.publisher.connected(20, &setup.fleet);
    setup.publisher.shut_down();
    assert_eq!(
        setup.published(),
        ["gsdk/bridge/state offline"],
        "another bridge says online to that"
    );
    assert!(setup.publisher.is_shut_down());
}

#[test]
fn online_follows_the_full_state_and_waits_for_the_gateway() {
    let mut setup = Setup::new();
    setup.connect(20);
    let said = setup.published();
    assert_eq!(said, ["gsdk/lobby/state offline", "gsdk/lobby/info ...", "gsdk/bridge/info ..."]);
    assert!(!setup.publisher.is_online(), "the gateway has not been heard");

    setup.input(LinkEvent::LinkUp);
    setup.input(LinkEvent::ListRequested);
    setup.input(LinkEvent::List(vec![row(7, Status::TlsConnected), row(8, Status::Disconnected)]));
    let said = setup.published();
    let topics = [
        "gsdk/lobby/7/state ...",
        "gsdk/lobby/8/state ...",
        "gsdk/lobby/state online",
        "gsdk/bridge/state online",
        "gsdk/lobby/info ...",
        "gsdk/lobby/event/reachable ...",
    ];
    assert_eq!(said, topics);
    assert!(setup.publisher.take_requests_wanted());
}

#[test]
fn online_waits_for_the_acknowledgements() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    setup.disconnect(false);
    setup.connect(20);
    let mut tokens = Vec::new();
    while let Some(message) = setup.next() {
        assert!(!message.topic.ends_with("bridge/state"), "{message:?}");
        tokens.push(message.token);
    }
    for token in tokens {
        setup.ack(token, true);
    }
    assert_eq!(setup.published(), ["gsdk/bridge/state online"]);
}

#[test]
fn the_window_is_never_exceeded_and_states_are_read_when_sent() {
    let mut setup = Setup::online((1..=50).map(|at| row(at, Status::TlsConnected)).collect());
    setup.disconnect(false);
    setup.connect(20);
    let sent: Vec<_> = std::iter::from_fn(|| setup.next()).collect();
    assert_eq!(sent.len(), 20);
    let status = Status::Disconnected;
    let (timestamp_s, received) = (1_790_000_000, Instant::now());
    setup.input(LinkEvent::Status { device_id: id(50), status, timestamp_s, received });
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
fn a_late_last_will_is_answered_with_online_unless_leaving() {
    let mut setup = Setup::online(vec![]);
    setup.publisher.publish_online_again();
    assert_eq!(setup.published(), ["gsdk/bridge/state online"]);
    setup.publisher.shut_down();
    assert!(!setup.publisher.is_shut_down());
    setup.publisher.publish_online_again();
    assert_eq!(setup.published(), ["gsdk/lobby/state offline", "gsdk/bridge/state offline"]);
    assert!(setup.publisher.is_shut_down());
}

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
    assert!(setup.published().iter().any(|said| said.starts_with(&refused.topic)));
}

#[test]
fn infos_are_said_at_most_every_ten_seconds_and_not_twice_the_same() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    setup.now = setup.now.plus(60_000);
    setup.published();
    setup.publisher.content().states().info_changed(GatewayIndex(0));
    assert_eq!(setup.published(), Vec::<String>::new(), "nothing has changed in it");
    setup.links[0].package = Some("connect".to_owned());
    setup.publisher.content().states().info_changed(GatewayIndex(0));
    assert_eq!(setup.published(), ["gsdk/lobby/info ..."]);
    setup.links[0].package = Some("gsdk.connect".to_owned());
    setup.publisher.content().states().info_changed(GatewayIndex(0));
    assert_eq!(setup.published(), Vec::<String>::new());
    assert_eq!(setup.publisher.wake_at(), Some(setup.now.plus(10_000)));
}

#[test]
fn an_info_follows_the_gateways_state_at_once_and_never_goes_before_it() {
    let mut setup = Setup::new();
    setup.connect(20);
    setup.now = setup.now.plus(60_000);
    setup.published();
    setup.input(LinkEvent::LinkUp);
    assert_eq!(setup.published(), ["gsdk/lobby/state offline", "gsdk/lobby/info ..."], "syncing");
    setup.now = setup.now.plus(1_000);
    setup.input(LinkEvent::ListRequested);
    setup.input(LinkEvent::List(vec![row(7, Status::TlsConnected)]));
    let said = setup.published();
    let place = |text: &str| said.iter().position(|said| said == text);
    assert!(place("gsdk/lobby/state online").is_some(), "{said:?}");
    assert!(place("gsdk/lobby/state online") < place("gsdk/lobby/info ..."), "{said:?}");
}

#[test]
fn nothing_is_due_while_nothing_can_be_sent() {
    let mut setup = Setup::new();
    assert_eq!(setup.publisher.wake_at(), None, "no connection");
    setup.connect(1);
    let sent = setup.next().unwrap();
    assert_eq!(setup.publisher.wake_at(), None, "the window is full, and the infos have to wait");
    setup.ack(sent.token, true);
    assert!(setup.publisher.wake_at().is_some());
    setup.publisher.shut_down();
    assert_eq!(setup.publisher.wake_at(), None, "leaving says no infos");
}

#[test]
fn online_does_not_wait_for_the_outbox() {
    let mut setup = Setup::online((1..=5).map(|at| row(at, Status::TlsConnected)).collect());
    setup.disconnect(false);
    for _ in 0..500 {
        setup.append("lobby", "corrected");
        setup.append("store", "corrected");
    }
    setup.connect(20);
    let said = setup.published();
    let place = |text: &str| said.iter().position(|said| said == text).unwrap();
    assert!(place("gsdk/lobby/state online") < 50, "{}", place("gsdk/lobby/state online"));
    assert!(place("gsdk/bridge/state online") < 50);
    assert!(said.len() > 1_000);
}

#[test]
fn a_refused_state_is_emptied_named_and_tried_again_and_online_does_not_wait_for_it() {
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
    let named: Vec<_> = setup.publisher.refused(false).map(|(topic, _)| topic.to_owned()).collect();
    assert_eq!(named, ["gsdk/lobby/7/state"]);
    setup.now = setup.publisher.wake_at().unwrap();
    seen.clear();
    refuse(&mut setup, &mut seen);
    assert_eq!(seen, ["gsdk/lobby/7/state 9"], "it is empty already");
    setup.now = setup.publisher.wake_at().unwrap();
    assert_eq!(setup.published(), ["gsdk/lobby/7/state ..."]);
    assert_eq!(setup.publisher.refused(false).count(), 0);
}

#[test]
fn an_event_refused_for_good_is_lost_and_told_by_the_next_of_its_subject() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    for code in [0x90, 0x95, 0x99] {
        setup.append("lobby", "corrected");
        let refused = setup.next().unwrap();
        let rejected = setup.answer(refused.token, code).rejected.unwrap();
        assert_eq!(rejected.lost, Some(Subject::Gateway("lobby".parse().unwrap())));
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
        assert_eq!(setup.answer(refused.token, code).rejected.unwrap().lost, None, "{code:#x}");
        setup.append("store", "corrected");
        let other = setup.next().unwrap();
        assert_eq!(other.topic, "gsdk/store/event/corrected");
        setup.answer(other.token, 0x10);
        setup.now = setup.publisher.wake_at().unwrap();
        assert_eq!(setup.published(), ["gsdk/lobby/event/corrected ..."]);
    }
    assert!(setup.outbox.is_empty());
}

/// Connects, and answers all but messages on this topic, over which the broker closes.
fn closes_over(setup: &mut Setup, topic: &str) -> (Vec<String>, Option<Rejected>) {
    setup.connect(20);
    let mut said = Vec::new();
    loop {
        let batch: Vec<_> = std::iter::from_fn(|| setup.next()).collect();
        if batch.is_empty() {
            return (said, None);
        }
        for message in batch {
            if message.topic == topic && !message.payload.is_empty() {
                return (said, setup.disconnect(true));
            }
            setup.ack(message.token, true);
            said.push(message.topic);
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
    assert_eq!(rejected.rejection, Rejection::ClosesConnection);
    assert!((3..=5).contains(&cuts), "{cuts}");
    assert_eq!(rejected.lost, Some(Subject::Gateway("lobby".parse().unwrap())));
    assert_eq!(setup.outbox.dropped(), 1);
    let (said, _) = closes_over(&mut setup, "nothing");
    assert_eq!(said.iter().filter(|topic| *topic == "gsdk/lobby/event/corrected").count(), 2);
    assert!(setup.outbox.is_empty());
}

#[test]
fn a_state_over_which_the_broker_closes_is_set_aside_and_emptied_before_online() {
    let rows = vec![row(7, Status::TlsConnected), row(8, Status::TlsConnected)];
    let mut setup = Setup::online(rows);
    setup.disconnect(false);
    let state = "gsdk/lobby/7/state";
    let found = (0..10).find_map(|_| closes_over(&mut setup, state).1);
    assert_eq!(found.map(|rejected| rejected.topic).as_deref(), Some(state));
    let (said, _) = closes_over(&mut setup, state);
    let place = |text: &str| said.iter().position(|said| said == text).unwrap();
    assert!(place(state) < place("gsdk/bridge/state"), "emptied: {said:?}");
    let named: Vec<_> = setup.publisher.refused(false).collect();
    assert_eq!(named, [(state, Rejection::ClosesConnection)]);
}

#[test]
fn everything_again_is_everything() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    setup.publisher.all_changed(&setup.fleet);
    let mut said = setup.published();
    said.sort();
    let all = [
        "gsdk/bridge/info ...",
        "gsdk/bridge/state online",
        "gsdk/lobby/7/state ...",
        "gsdk/lobby/info ...",
        "gsdk/lobby/state online",
    ];
    assert_eq!(said, all);
}
