//! A real broker is killed and started again under load, and every publish is accounted for.

use std::collections::{HashMap, VecDeque};

use gsdk2mqtt::config::MqttVersion;
use gsdk2mqtt::mqtt::session::spawn;
use gsdk2mqtt::mqtt::{BrokerConnection, SessionEvent};

use super::{publish, settings};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::patiently;
use crate::harness::subscriber::Subscriber;

/// Devices, of each of which one event is under way at a time.
const KEYS: u32 = 64;
/// Times the broker is killed.
const KILLS: usize = 10;
/// Acknowledgements between two kills.
const ACKS_PER_LIFE: usize = 1000;

/// An outbox as the bridge has one: an event is sent again until it is acknowledged, and the next
/// of its device only then.
struct Outbox {
    ready: VecDeque<(u32, u32)>,
    under_way: HashMap<u64, (u32, u32)>,
    accepted: HashMap<u32, u32>,
    acked: usize,
    resent: usize,
    /// Nothing new any more, only what has gone out before.
    draining: bool,
}

impl Outbox {
    fn new() -> Self {
        let ready = (0..KEYS).map(|key| (key, 1)).collect();
        let (under_way, accepted) = (HashMap::new(), HashMap::new());
        Self { ready, under_way, accepted, acked: 0, resent: 0, draining: false }
    }

    fn fill(&mut self, connection: &mut BrokerConnection) {
        while self.under_way.len() < usize::from(connection.window()) {
            let Some((key, seq)) = self.ready.pop_front() else { return };
            let token = u64::from(key) << 32 | u64::from(seq);
            // Events of a second of the connection's end may find it closed.
            if connection.publish(token, publish(&format!("t/{key}"), &seq.to_string())).is_err() {
                self.ready.push_front((key, seq));
                return;
            }
            self.under_way.insert(token, (key, seq));
            self.accepted.insert(key, seq);
        }
    }

    fn acked(&mut self, token: u64) {
        let (key, seq) = self.under_way.remove(&token).expect("only what was published is acked");
        self.acked += 1;
        if !self.draining {
            self.ready.push_back((key, seq + 1));
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        self.ready.retain(|(key, seq)| self.accepted.get(key) == Some(seq));
    }

    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.under_way.is_empty()
    }

    fn lost(&mut self) {
        self.resent += self.under_way.len();
        self.ready.extend(self.under_way.drain().map(|(_, event)| event));
    }
}

async fn kill_under_load(protocol: MqttVersion) {
    let mut broker = Mosquitto::start("").await;
    let mut subscriber = Subscriber::start(broker.port, "t/+");
    let mut session = spawn(settings(broker.port, protocol));
    let mut outbox = Outbox::new();
    let mut connection: Option<BrokerConnection> = None;
    let (mut lives, mut goal) = (1, ACKS_PER_LIFE);
    while !(outbox.draining && outbox.is_empty()) {
        let event = patiently("an event", session.next()).await.expect("the session continues");
        match event {
            SessionEvent::Connected(connected) => {
                let back = subscriber.subscriptions.wait_for(|n| *n >= lives);
                patiently("the subscriber is back", back).await.unwrap();
                connection = Some(connected.connection);
            }
            SessionEvent::Acked(acks) => {
                assert!(connection.is_some());
                acks.iter().for_each(|ack| {
                    ack.result.expect("mosquitto refuses nothing");
                    outbox.acked(ack.token);
                });
            }
            SessionEvent::Disconnected { .. } => {
                connection = None;
                outbox.lost();
            }
            SessionEvent::Unreachable { .. }
            | SessionEvent::Message(_)
            | SessionEvent::Subscribed { .. } => {}
        }
        if let Some(connection) = &mut connection {
            outbox.fill(connection);
        }
        if lives <= KILLS && outbox.acked >= goal {
            broker.kill();
            broker.restart().await;
            lives += 1;
            goal += ACKS_PER_LIFE;
            if lives > KILLS {
                outbox.drain();
            }
        }
    }
    assert!(outbox.resent > 0, "the broker was killed under load");
    check(&outbox, &mut subscriber).await;
}

/// Every event ever given to the session was seen, and each device's in order: the same again, or
/// the next.
async fn check(outbox: &Outbox, subscriber: &mut Subscriber) {
    let mut last: HashMap<u32, u32> = HashMap::new();
    patiently("the subscriber has seen every event", async {
        while last != outbox.accepted {
            let (topic, payload) = subscriber.seen.recv().await.unwrap();
            let key = topic.strip_prefix("t/").unwrap().parse().unwrap();
            let seq = std::str::from_utf8(&payload).unwrap().parse().unwrap();
            let before = last.insert(key, seq).unwrap_or(0);
            assert!(seq == before || seq == before + 1, "device {key}: {seq} after {before}");
        }
    })
    .await;
    assert!(outbox.acked >= KILLS * ACKS_PER_LIFE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_under_load_loses_no_publish_and_no_order() {
    kill_under_load(MqttVersion::V5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_with_mqtt_3_1_1() {
    kill_under_load(MqttVersion::V311).await;
}
