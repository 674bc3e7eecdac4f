//! Tests of the publisher: what is said after a CONNACK, and in which order.
//!
//! May not touch a socket: a made-up broker acknowledges.

mod clearing;
mod discovery;

use std::time::Instant;

use super::*;
use crate::fleet::*;
use crate::homeassistant;
use crate::ids::{DeviceId, Moment};
use crate::outbox::{Limits, Outbox, Record};
use crate::payload::*;

/// A refusal after which the same message may be accepted.
const QUOTA_EXCEEDED: u8 = 0x97;

struct Desk {
    fleet: Fleet,
    outbox: Outbox,
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

impl Desk {
    fn new() -> Self {
        let now = Moment::from_millis(1_790_000_000_000);
        let mut fleet = Fleet::default();
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

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.fleet.step(self.now, GatewayIndex(0), input, &mut out);
        for output in out {
            match output {
                Output::State { gateway, device_id } => {
                    self.publisher.device_changed(gateway, device_id);
                }
                Output::Gateway(gateway) => self.publisher.gateway_changed(gateway),
                Output::GatewayEvent(_, event) => self.append("lobby", event.name()),
                _ => {}
            }
        }
    }

    fn append(&mut self, gateway: &str, event_type: &'static str) {
        let subject = Subject::Gateway(gateway.parse().unwrap());
        let payload = bytes::Bytes::from_static(b"{\"a\":1}");
        let (event_type, read_at) = (event_type.into(), Some(Instant::now()));
        self.outbox.append(Record { subject, event_type, payload, read_at });
    }

    fn next(&mut self) -> Option<Outgoing> {
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
        self.publisher.next(self.now, &mut self.outbox, &view)
    }

    /// A connection on which nobody else is heard.
    fn connect(&mut self, window: usize) {
        self.publisher.connected(window, &self.fleet);
        assert_eq!(self.next(), None, "first it is seen who else is there");
        self.publisher.looked(&self.fleet);
    }

    /// The broker's PUBACK with this reason code.
    fn answer(&mut self, token: u64, code: u8) -> Acknowledged {
        let result = Refusal::from_code(code);
        self.publisher.acknowledged(self.now, token, result, &mut self.outbox).unwrap()
    }

    fn ack(&mut self, token: u64, taken: bool) {
        let code = if taken { 0x00 } else { QUOTA_EXCEEDED };
        self.answer(token, code);
    }

    /// Everything there is to say, acknowledged one by one.
    fn said(&mut self) -> Vec<String> {
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
        let mut desk = Self::new();
        desk.connect(20);
        desk.input(Input::LinkUp);
        desk.input(Input::ListAsked);
        desk.input(Input::List(rows));
        desk.said();
        desk
    }
}

#[test]
fn who_leaves_before_it_knows_that_it_is_alone_says_nothing_of_the_gateways() {
    let mut desk = Desk::new();
    desk.publisher.gateway_changed(GatewayIndex(0));
    desk.publisher.connected(20, &desk.fleet);
    desk.publisher.leave();
    assert_eq!(desk.said(), ["gsdk/bridge/state offline"], "another bridge says online to that");
    assert!(desk.publisher.has_left());
}

#[test]
fn online_follows_the_full_state_and_waits_for_the_gateway() {
    let mut desk = Desk::new();
    desk.connect(20);
    let said = desk.said();
    assert_eq!(said, ["gsdk/lobby/state offline", "gsdk/lobby/info ...", "gsdk/bridge/info ..."]);
    assert!(!desk.publisher.is_online(), "the gateway has not been heard");

    desk.input(Input::LinkUp);
    desk.input(Input::ListAsked);
    desk.input(Input::List(vec![row(7, Status::TlsConnected), row(8, Status::Disconnected)]));
    let said = desk.said();
    let topics = [
        "gsdk/lobby/7/state ...",
        "gsdk/lobby/8/state ...",
        "gsdk/lobby/state online",
        "gsdk/bridge/state online",
        "gsdk/lobby/event/reachable ...",
    ];
    assert_eq!(said, topics);
    assert!(desk.publisher.take_requests_wanted());
}

#[test]
fn online_waits_for_the_acknowledgements() {
    let mut desk = Desk::online(vec![row(7, Status::TlsConnected)]);
    desk.publisher.disconnected(false, &mut desk.outbox);
    desk.connect(20);
    let mut tokens = Vec::new();
    while let Some(message) = desk.next() {
        assert!(!message.topic.ends_with("bridge/state"), "{message:?}");
        tokens.push(message.token);
    }
    for token in tokens {
        desk.ack(token, true);
    }
    assert_eq!(desk.said(), ["gsdk/bridge/state online"]);
}

#[test]
fn the_window_is_never_exceeded_and_states_are_read_when_sent() {
    let mut desk = Desk::online((1..=50).map(|at| row(at, Status::TlsConnected)).collect());
    desk.publisher.disconnected(false, &mut desk.outbox);
    desk.connect(20);
    let sent: Vec<_> = std::iter::from_fn(|| desk.next()).collect();
    assert_eq!(sent.len(), 20);
    let status = Status::Disconnected;
    let (timestamp, received_at) = (desk.now, desk.now);
    desk.input(Input::Status { device_id: id(50), status, timestamp, received_at });
    for message in sent {
        desk.ack(message.token, true);
    }
    let mut last = None;
    while let Some(message) = desk.next() {
        desk.ack(message.token, true);
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
    let mut desk = Desk::online(vec![]);
    desk.publisher.state_again();
    assert_eq!(desk.said(), ["gsdk/bridge/state online"]);
    desk.publisher.leave();
    assert!(!desk.publisher.has_left());
    desk.publisher.state_again();
    assert_eq!(desk.said(), ["gsdk/lobby/state offline", "gsdk/bridge/state offline"]);
    assert!(desk.publisher.has_left());
}

#[test]
fn a_refused_message_is_sent_again_later_and_a_lost_one_with_the_next_connection() {
    let mut desk = Desk::online(vec![row(7, Status::TlsConnected)]);
    desk.append("lobby", "corrected");
    let refused = desk.next().unwrap();
    desk.ack(refused.token, false);
    assert!(desk.next().is_none());
    desk.now = desk.publisher.wake_at().unwrap();
    let again = desk.next().unwrap();
    assert_eq!((again.topic, again.payload), (refused.topic.clone(), refused.payload));
    desk.publisher.disconnected(false, &mut desk.outbox);
    desk.connect(20);
    assert!(desk.said().iter().any(|said| said.starts_with(&refused.topic)));
}

#[test]
fn infos_are_said_at_most_every_ten_seconds_and_not_twice_the_same() {
    let mut desk = Desk::online(vec![row(7, Status::TlsConnected)]);
    desk.now = desk.now.plus(60_000);
    desk.said();
    desk.publisher.info_changed(GatewayIndex(0));
    assert_eq!(desk.said(), Vec::<String>::new(), "nothing has changed in it");
    desk.links[0].package = Some("connect".to_owned());
    desk.publisher.info_changed(GatewayIndex(0));
    assert_eq!(desk.said(), ["gsdk/lobby/info ..."]);
    desk.links[0].package = Some("gsdk.connect".to_owned());
    desk.publisher.info_changed(GatewayIndex(0));
    assert_eq!(desk.said(), Vec::<String>::new());
    assert_eq!(desk.publisher.wake_at(), Some(desk.now.plus(10_000)));
}

#[test]
fn nothing_is_due_while_nothing_can_be_sent() {
    let mut desk = Desk::new();
    assert_eq!(desk.publisher.wake_at(), None, "no connection");
    desk.connect(1);
    let sent = desk.next().unwrap();
    assert_eq!(desk.publisher.wake_at(), None, "the window is full, and the infos have to wait");
    desk.ack(sent.token, true);
    assert!(desk.publisher.wake_at().is_some());
    desk.publisher.leave();
    assert_eq!(desk.publisher.wake_at(), None, "leaving says no infos");
}

#[test]
fn online_does_not_wait_for_the_outbox() {
    let mut desk = Desk::online((1..=5).map(|at| row(at, Status::TlsConnected)).collect());
    desk.publisher.disconnected(false, &mut desk.outbox);
    for _ in 0..500 {
        desk.append("lobby", "corrected");
        desk.append("store", "corrected");
    }
    desk.connect(20);
    let said = desk.said();
    let place = |text: &str| said.iter().position(|said| said == text).unwrap();
    assert!(place("gsdk/lobby/state online") < 50, "{}", place("gsdk/lobby/state online"));
    assert!(place("gsdk/bridge/state online") < 50);
    assert!(said.len() > 1_000);
}

#[test]
fn a_refused_state_holds_online_back() {
    let mut desk = Desk::online(vec![row(7, Status::TlsConnected)]);
    desk.publisher.disconnected(false, &mut desk.outbox);
    desk.connect(20);
    for _ in 0..3 {
        while let Some(message) = desk.next() {
            assert_ne!(message.topic, "gsdk/bridge/state", "it was refused");
            desk.ack(message.token, !message.topic.ends_with("/7/state"));
        }
        assert_eq!(desk.publisher.states_refused(), 1);
        desk.now = desk.publisher.wake_at().unwrap();
    }
    let said = desk.said();
    assert!(said.iter().any(|said| said.starts_with("gsdk/lobby/7/state")));
    assert_eq!(said.last().unwrap(), "gsdk/bridge/state online");
}

#[test]
fn everything_again_is_everything() {
    let mut desk = Desk::online(vec![row(7, Status::TlsConnected)]);
    desk.publisher.all_changed(&desk.fleet);
    let mut said = desk.said();
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
