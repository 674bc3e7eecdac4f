//! Gateways behind a master, seen from outside: real mosquitto, a simulated master gateway with
//! mutual TLS and login, the bridge as a process.

mod certificates;
mod commands;
mod details;
mod discovered;
mod filters;
mod forgotten;
mod links;
mod logins;
mod moves;
mod pages;
mod stored;
mod tools;

use std::time::Duration;

use serde_json::Value;

use crate::commands::{ALL, rr};
use crate::harness::LOOK_EVERY;
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::master::{Master, behind};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Seen, Watcher};

/// The device gateways of most tests, by name and by ID.
const NAMED: [(&str, &str); 3] = [("north", "Gateway-North"), ("south", "gateway2"), ("east", "3")];
/// Soon lost, so that tests need not wait for 10 s.
const SOON_LOST: &str = "unknown_after = \"2s\"\naudit_interval = \"5s\"";
/// No list is read without a reason.
const NO_AUDIT: &str = "unknown_after = \"2s\"\naudit_interval = \"1h\"";

/// A broker, a watcher of all topics, a master `campus` and a bridge.
struct Campus {
    broker: Mosquitto,
    watcher: Watcher,
    master: Master,
    bridge: Bridge,
}

impl Campus {
    /// With the gateways of [`NAMED`], each with so many devices, under names of their own.
    async fn named(devices: usize) -> Self {
        Self::named_with(devices, SOON_LOST).await
    }

    /// The same, with these keys of each gateway.
    async fn named_with(devices: usize, keys: &str) -> Self {
        let master = Master::start(&NAMED.map(|(_, id)| id), devices).await;
        let gateways = NAMED.map(|(name, id)| behind(name, "campus", id, keys));
        let campus = Self::with(master, "", &gateways.concat()).await;
        for (name, _) in NAMED {
            campus.see_state(name, "online").await;
        }
        campus
    }

    /// With these keys of the master, and these lines.
    async fn with(master: Master, keys: &str, lines: &str) -> Self {
        Self::with_top(master, "", keys, lines).await
    }

    /// With this line before all tables, too.
    async fn with_top(master: Master, top: &str, keys: &str, lines: &str) -> Self {
        let broker = Mosquitto::start("").await;
        let watcher = Watcher::start(broker.port).await;
        let setup =
            Setup::new(broker.port, "").top(top).lines(ALL).lines(&master.table("campus", keys));
        let bridge = setup.lines(lines).start();
        Self { broker, watcher, master, bridge }
    }

    async fn see_state(&self, gateway: &str, state: &str) {
        self.watcher.see_text(&format!("gsdk/{gateway}/state"), state).await;
    }

    /// Waits for a message on a topic of JSON that fits.
    async fn see(&self, topic: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let like =
            |seen: &Seen| seen.topic == topic && !seen.payload.is_empty() && fits(&seen.json());
        self.watcher.see(&format!("{what} on {topic}"), like).await.json()
    }

    /// The master's info, once it fits.
    async fn see_master(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.see("gsdk/bridge/master/campus/info", what, fits).await
    }

    async fn see_event(&self, of: &str, event: &str) -> Value {
        self.see(&format!("gsdk/{of}/event/{event}"), "an event", |_| true).await
    }

    /// Waits until a topic is cleared: not before the session has lasted a minute.
    async fn see_cleared(&self, topic: &str) {
        see_cleared(&self.watcher, topic).await;
    }

    /// The answer to a request.
    async fn ask(&self, gateway: &str, command: &str, payload: &str) -> Value {
        let topic = format!("gsdk/{gateway}/request/{command}");
        let answer = rr(self.broker.port, &["-t", &topic, "-m", payload], "20").await;
        answer.unwrap_or_else(|| panic!("{command} {payload} was not answered"))
    }
}

async fn see_cleared(watcher: &Watcher, topic: &str) {
    let is_cleared = |seen: &Seen| seen.topic == topic && seen.payload.is_empty();
    let cleared = tokio::time::timeout(Duration::from_secs(90), async {
        while watcher.find(is_cleared).is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    cleared.await.unwrap_or_else(|_| panic!("{topic} is not cleared"));
}
