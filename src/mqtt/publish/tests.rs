//! Tests of the publisher: what is published after a CONNACK, and in which order.

mod discovery;
mod refused;
mod retained;

use std::time::Instant;

use bytes::Bytes;

use super::message::Accepted;
use super::*;
use crate::fleet::*;
use crate::homeassistant::{Discovery, Options};
use crate::ids::{DeviceId, Moment, SteadyClock};
use crate::mqtt::{Publish, Refusal};
use crate::payload::*;
use crate::store::{Event, Outbox, OutboxLimits};
use crate::topics::Topics;

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

fn publisher(publishes_discovery: bool) -> Publisher {
    let topics = Topics::new("gsdk", "bridge");
    let prefix = "homeassistant".to_owned();
    let discovery = Discovery::new(topics.clone(), prefix, "1", Options::default());
    Publisher::new(topics, discovery, publishes_discovery)
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
            master: None,
            area: None,
            devices: Default::default(),
        };
        Self {
            fleet,
            outbox: Outbox::new(OutboxLimits { max_events: 1_000, max_bytes: 1 << 20 }),
            appended: 0,
            publisher: publisher(false),
            directory: Directory {
                info: BridgeInfo { bridge: "bridge".to_owned(), ..BridgeInfo::default() },
                gateways: [(GatewayIndex(0), entry)].into(),
                ..Directory::default()
            },
            links: vec![LinkFacts::default()],
            now,
        }
    }

    fn input(&mut self, input: LinkEvent) {
        let mut out = Vec::new();
        self.fleet.step(self.now, GatewayIndex(0), input, &mut out);
        self.apply(out);
    }

    fn set_details(&mut self, device_id: DeviceId, details: DeviceDetails) {
        let mut out = Vec::new();
        let (now, out_of) = (self.now, &mut out);
        let change = |gateway: &mut Gateway| gateway.set_details(now, device_id, details, out_of);
        self.fleet.change(GatewayIndex(0), change);
        self.apply(out);
    }

    fn apply(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::StateChanged { gateway, device_id } => {
                    self.publisher.content.states.device_changed(gateway, device_id);
                }
                Output::GatewayChanged(gateway) => {
                    self.publisher.content.gateway_changed(gateway);
                }
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
        self.directory.info.connected_at = Some(self.now);
        let (fleet, directory, links) = (&self.fleet, &self.directory, &self.links[..]);
        let view = View { fleet, directory, links };
        let (token, Publish { topic, payload, .. }) =
            self.publisher.next(self.now, &mut self.outbox, &view)?;
        Some(Sent { token, topic, payload })
    }

    /// A connection without another instance.
    fn connect(&mut self, window: usize) {
        self.publisher.connected(window, &self.fleet);
        assert_eq!(self.next(), None, "first another instance is looked for");
        self.publisher.start_full_publish(&self.fleet);
    }

    /// The connection ends.
    fn disconnect(&mut self, closed_by_broker: bool) -> Option<Rejected> {
        self.publisher.disconnected(self.now, closed_by_broker, &mut self.outbox)
    }

    /// The broker's PUBACK with this reason code.
    fn answer(&mut self, token: u64, code: u8) -> Result<Accepted, Rejected> {
        let result = Refusal::from_code(code);
        self.publisher.acknowledged(self.now, token, result, &mut self.outbox).unwrap()
    }

    fn ack(&mut self, token: u64, accepted: bool) {
        let code = if accepted { 0x00 } else { QUOTA_EXCEEDED };
        _ = self.answer(token, code);
    }

    /// Everything that is published, acknowledged one by one.
    fn published(&mut self) -> Vec<String> {
        let mut messages = Vec::new();
        while let Some(message) = self.next() {
            self.ack(message.token, true);
            let json = message.payload.starts_with(b"{");
            let text = if json { "..." } else { std::str::from_utf8(&message.payload).unwrap() };
            messages.push(format!("{} {text}", message.topic));
        }
        messages
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
fn a_shutdown_during_the_check_for_duplicates_publishes_nothing_of_the_gateways() {
    let mut setup = Setup::new();
    setup.publisher.content.gateway_changed(GatewayIndex(0));
    setup.publisher.connected(20, &setup.fleet);
    setup.publisher.shut_down(setup.now, &setup.fleet);
    assert_eq!(
        setup.published(),
        ["gsdk/bridge/state offline"],
        "another instance publishes online then"
    );
    assert!(setup.publisher.is_shut_down());
}

#[test]
fn online_follows_the_full_state_and_waits_for_the_gateway() {
    let mut setup = Setup::new();
    setup.connect(20);
    let messages = setup.published();
    assert_eq!(
        messages,
        ["gsdk/lobby/state offline", "gsdk/lobby/info ...", "gsdk/bridge/info ..."]
    );
    assert!(!setup.publisher.is_online(), "the gateway is not decided");

    setup.input(LinkEvent::LinkUp);
    setup.input(LinkEvent::ListRequested);
    setup.input(LinkEvent::List(vec![row(7, Status::TlsConnected), row(8, Status::Disconnected)]));
    let messages = setup.published();
    let topics = [
        "gsdk/lobby/7/state ...",
        "gsdk/lobby/8/state ...",
        "gsdk/lobby/state online",
        "gsdk/bridge/state online",
        "gsdk/lobby/info ...",
        "gsdk/lobby/event/reachable ...",
    ];
    assert_eq!(messages, topics);
    assert!(setup.publisher.is_online());
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
fn a_late_last_will_is_answered_with_online_unless_shutting_down() {
    let mut setup = Setup::online(vec![]);
    setup.publisher.publish_online_again();
    assert_eq!(setup.published(), ["gsdk/bridge/state online"]);
    setup.publisher.shut_down(setup.now, &setup.fleet);
    assert!(!setup.publisher.is_shut_down());
    setup.publisher.publish_online_again();
    let last = ["gsdk/lobby/state offline", "gsdk/lobby/info ...", "gsdk/bridge/state offline"];
    assert_eq!(setup.published(), last);
    assert!(setup.publisher.is_shut_down());
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
    setup.publisher.shut_down(setup.now, &setup.fleet);
    assert_eq!(setup.publisher.wake_at(), None, "no infos");
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
    let messages = setup.published();
    let place = |text: &str| messages.iter().position(|message| message == text).unwrap();
    assert!(place("gsdk/lobby/state online") < 50, "{}", place("gsdk/lobby/state online"));
    assert!(place("gsdk/bridge/state online") < 50);
    assert!(messages.len() > 1_000);
}

#[test]
fn all_changed_publishes_everything_again() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    setup.publisher.all_changed(&setup.fleet);
    let mut messages = setup.published();
    messages.sort();
    let all = [
        "gsdk/bridge/info ...",
        "gsdk/bridge/state online",
        "gsdk/lobby/7/state ...",
        "gsdk/lobby/info ...",
        "gsdk/lobby/state online",
    ];
    assert_eq!(messages, all);
}
