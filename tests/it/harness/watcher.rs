//! An outside client: a real mosquitto_sub that prints every message.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::{bounded, eventually, unique};

/// A message as the client received it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) retained: bool,
}

impl Seen {
    /// The payload as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.payload).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Whether this is an event of this device.
    pub(crate) fn is_event_of(&self, device: u32) -> bool {
        self.topic.contains(&format!("/{device}/event/"))
    }
}

/// A subscriber to everything.
pub(crate) struct Watcher {
    child: Child,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Watcher {
    /// Subscribes to `#` with QoS 1; retained messages are first.
    pub(crate) async fn start(port: u16) -> Self {
        let id = unique("watcher");
        let mut child = Command::new("mosquitto_sub")
            .args(["-V", "5", "-q", "1", "-t", "#", "-F", "%r %t %p", "-i", &id])
            .args(["-x", "3600", "-c", "-p", &port.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub must be installed (apt-get install mosquitto-clients)");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (lines, into) = (BufReader::new(child.stdout.take().unwrap()), Arc::clone(&seen));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut parts = line.splitn(3, ' ');
                let mut part = || parts.next().unwrap_or_default().to_owned();
                let (retained, topic, payload) = (part() == "1", part(), part());
                into.lock().unwrap().push(Seen { topic, payload, retained });
            }
        });
        let watcher = Self { child, seen };
        watcher.has_all(port).await;
        watcher
    }

    /// Waits until it is subscribed and has what the broker has accepted so far: a broker
    /// delivers in the order of arrival, so a message of our own comes after it.
    pub(crate) async fn has_all(&self, port: u16) {
        let probe = unique("probe");
        eventually("the watcher has all messages", || {
            publish(port, &["-t", &probe, "-m", "x"]);
            self.find(|seen| seen.topic == probe).map(drop)
        })
        .await;
    }

    /// All received messages.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Discards the received messages.
    pub(crate) fn clear(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// The first message like this so far.
    pub(crate) fn find(&self, like: impl Fn(&Seen) -> bool) -> Option<Seen> {
        self.seen.lock().unwrap().iter().find(|seen| like(seen)).cloned()
    }

    /// Waits for a message like this.
    pub(crate) async fn see(&self, what: &str, like: impl Fn(&Seen) -> bool) -> Seen {
        let tail = || {
            let all = self.all();
            let from = all.len().saturating_sub(8);
            all[from..].iter().map(|seen| format!("{seen:?}\n")).collect::<String>()
        };
        let found = tokio::time::timeout(super::PATIENCE, async {
            loop {
                if let Some(found) = self.find(&like) {
                    return found;
                }
                tokio::time::sleep(super::LOOK_EVERY).await;
            }
        });
        found.await.unwrap_or_else(|_| panic!("never seen: {what}; the last were\n{}", tail()))
    }

    /// Waits for this payload on this topic.
    pub(crate) async fn see_text(&self, topic: &str, payload: &str) {
        let what = format!("{payload} on {topic}");
        self.see(&what, |seen| seen.topic == topic && seen.payload == payload).await;
    }

    /// The position of the first message on this topic with this payload.
    pub(crate) fn place(&self, topic: &str, payload: &str) -> Option<usize> {
        self.all().iter().position(|seen| seen.topic == topic && seen.payload == payload)
    }

    /// A device's events, in the order of arrival.
    pub(crate) fn events_of(&self, device: u32) -> Vec<Value> {
        self.all().iter().filter(|seen| seen.is_event_of(device)).map(Seen::json).collect()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Publishes with mosquitto_pub, QoS 1.
pub(crate) fn publish(port: u16, args: &[&str]) {
    let mut command = bounded("mosquitto_pub");
    command.args(["-q", "1", "-p", &port.to_string()]).args(args).stderr(Stdio::null());
    // Some tests stop the broker: the caller checks the result.
    let _ = command.status().expect("mosquitto_pub must be installed");
}

/// The retained messages by topic, read by a separate client.
pub(crate) fn retained(port: u16) -> BTreeMap<String, String> {
    let out = bounded("mosquitto_sub")
        .args(["-V", "5", "-t", "#", "--retained-only", "-W", "1", "-F", "%t %p"])
        .args(["-p", &port.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(topic, payload)| (topic.to_owned(), payload.to_owned())).collect()
}

/// Checks that a device's events form an unbroken chain.
pub(crate) fn check_chain(events: &[Value]) {
    for pair in events.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        if before["event_id"] == after["event_id"] {
            assert_eq!(before, after, "the same on redelivery");
            continue;
        }
        assert_eq!(before["chain"], after["chain"]);
        let next = before["seq"].as_u64().unwrap() + 1;
        assert_eq!(after["seq"].as_u64(), Some(next), "after {before} came {after}");
        assert_eq!(before["status"], after["previous"], "after {before} came {after}");
    }
}
