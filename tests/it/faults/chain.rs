//! The event chain while bridge, broker and gateway are killed in any combination, under load.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::history;
use super::{by_device, measured, ready, within};
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::gateway::{Gateway, order};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::subscriber::Subscriber;
use crate::harness::watcher::{check_chain, retained};
use crate::harness::{patiently, seeded};

/// The default number of kills.
const KILLS: usize = 20;
/// The longest wait between two attempts of the bridge to reach a broker that drops it is 30 s.
const BACK_WITHIN: Duration = Duration::from_secs(90);

const BRIDGE: u8 = 1;
const BROKER: u8 = 2;
const GATEWAY: u8 = 4;
/// What is killed together; single ones are more frequent.
const TOGETHER: [u8; 10] = [
    BRIDGE,
    BRIDGE,
    BROKER,
    GATEWAY,
    GATEWAY,
    BRIDGE | BROKER,
    BRIDGE | GATEWAY,
    BRIDGE | GATEWAY,
    BROKER | GATEWAY,
    BRIDGE | BROKER | GATEWAY,
];

/// Everything of one trial.
struct Trial {
    broker: Mosquitto,
    proxy: Proxy,
    gateway: Gateway,
    bridge: Bridge,
    witness: Subscriber,
    lives: usize,
    /// The received events so far, by device.
    events: BTreeMap<u64, Vec<Value>>,
}

impl Trial {
    async fn begin() -> Self {
        let broker = Mosquitto::start("persistence true\nautosave_interval 1").await;
        let proxy = Proxy::before(broker.port).await;
        let mut witness = Subscriber::start(broker.port, "gsdk/#");
        patiently("the witness is there", witness.subscriptions.wait_for(|n| *n >= 1))
            .await
            .unwrap();
        let gateway = Gateway::start(40).await;
        let bridge = Setup::new(proxy.port, "")
            .gateway_at("lobby", gateway.address(), &gateway.ca_file(), "")
            .start();
        ready(&bridge, BACK_WITHIN, "the first start, until ready").await;
        Self { broker, proxy, gateway, bridge, witness, lives: 1, events: BTreeMap::new() }
    }

    async fn kill(&mut self, which: u8, pause: Duration) {
        if which & BROKER != 0 {
            self.proxy.set_mode(Mode { refuses: true, ..Mode::default() });
            self.broker.kill();
        }
        if which & GATEWAY != 0 {
            self.gateway.kill();
        }
        if which & BRIDGE != 0 {
            self.bridge.kill();
        }
        tokio::time::sleep(pause).await;
        if which & GATEWAY != 0 {
            self.gateway.restart();
        }
        if which & BRIDGE != 0 {
            self.bridge.restart();
        }
        if which & BROKER != 0 {
            self.broker.restart().await;
            self.lives += 1;
            let back = self.witness.subscriptions.wait_for(|lives| *lives >= self.lives);
            patiently("the witness is back", back).await.unwrap();
            self.proxy.set_mode(Mode::default());
        }
    }

    /// Waits until the retained states equal the gateway's list.
    async fn ends_as_listed(&self) {
        within(BACK_WITHIN, "after the last kill, until kept is what is listed", async || {
            let statuses = self.gateway.statuses().await;
            let kept = retained(self.broker.port);
            let state = |id: u32| -> Option<Value> {
                serde_json::from_str(kept.get(&format!("gsdk/lobby/{id}/state"))?).ok()
            };
            let agrees = |(&id, &status): (&u32, &i64)| {
                state(id).is_some_and(|state| state["status_code"] == status)
            };
            (statuses.len() == 40 && statuses.iter().all(agrees)).then_some(())
        })
        .await;
    }

    /// Checks every device's chain in all received events so far.
    fn check_so_far(&mut self) {
        let mut messages = Vec::new();
        while let Ok(message) = self.witness.seen.try_recv() {
            let reported = |word: &str| message.0.ends_with(word);
            assert!(!reported("/event/chain_reset") && !reported("/event/store_failed"));
            messages.push(message);
        }
        for (id, news) in by_device(messages) {
            let events = self.events.entry(id).or_default();
            let known = events.len().saturating_sub(1);
            events.extend(news);
            assert_eq!(events[0]["seq"], 1, "nor the first");
            check_chain(&events[known..]);
        }
    }

    /// Checks all, after the last event of each device has the `seq` of its state: the state may be
    /// earlier.
    async fn check(&mut self) -> BTreeMap<String, usize> {
        let whole = async {
            loop {
                self.check_so_far();
                let kept = retained(self.broker.port);
                let is_last = |(id, events): (&u64, &Vec<Value>)| {
                    let state = &kept[&format!("gsdk/lobby/{id}/state")];
                    let state: Value = serde_json::from_str(state).unwrap();
                    events.last().unwrap()["seq"] == state["seq"]
                };
                if self.events.iter().all(is_last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        patiently("the last event of each device is its state's: nothing was left out", whole)
            .await;
        let mut counts = BTreeMap::new();
        for events in self.events.values() {
            let mut before = None;
            for event in events {
                let again = before == Some(&event["event_id"]);
                let source = event["source"].as_str().unwrap();
                let kind = if again { "sent again".to_owned() } else { source.to_owned() };
                *counts.entry(kind).or_default() += 1;
                before = Some(&event["event_id"]);
            }
        }
        assert_eq!(self.bridge.metric("gsdk_store_ok").await, Some(1.0));
        counts
    }
}

impl Trial {
    /// The history has every received event, once and marked as delivered.
    async fn check_history(&self) {
        let seen: BTreeSet<String> = self.events.values().flatten().map(event_id).collect();
        within(BACK_WITHIN, "until the history has every event, delivered", async || {
            let recorded = history::events(&self.bridge.state_dir());
            let ids: Vec<String> = recorded.iter().map(|row| event_id(&row.event)).collect();
            let unique: BTreeSet<String> = ids.iter().cloned().collect();
            assert_eq!(ids.len(), unique.len(), "once");
            let delivered = recorded.iter().filter(|row| row.delivered);
            let delivered: BTreeSet<String> = delivered.map(|row| event_id(&row.event)).collect();
            seen.is_subset(&delivered).then_some(())
        })
        .await;
    }
}

fn event_id(event: &Value) -> String {
    event["event_id"].as_str().unwrap().to_owned()
}

/// Aim: no instant and no combination of kills breaks the chain. Method: a storm during the whole
/// test; the next kill follows at once or after a delay, so that starts, first lists,
/// full publications and the storm itself are hit.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_any_combination_under_load_the_chain_is_unbroken() {
    let kills = std::env::var("FAULT_KILLS").ok().map_or(KILLS, |kills| kills.parse().unwrap());
    let mut random = seeded();
    let mut trial = Trial::begin().await;
    let control = trial.gateway.control_port();
    let load = tokio::spawn(async move {
        let storm = r#"{"do":"storm","changes":400,"per_second":400,"pattern":"random"}"#;
        loop {
            // A gateway that is not running accepts no faults.
            if order(control, storm).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    for number in 1..=kills {
        tokio::time::sleep(Duration::from_millis(random.u64(..1_000))).await;
        let which = random.choice(TOGETHER).unwrap();
        trial.kill(which, Duration::from_millis(random.u64(..300))).await;
        trial.check_so_far();
        if number % 4 == 0 {
            let what = format!("after kill {number} (of {which:03b}), until ready");
            ready(&trial.bridge, BACK_WITHIN, &what).await;
        }
    }
    load.abort();
    let _ = load.await;
    trial.ends_as_listed().await;
    let counts = trial.check().await;
    trial.check_history().await;
    measured("events by source", &counts);
    assert!(counts["stream"] > 20 * kills && counts.contains_key("resync"), "{counts:?}");
}
