//! Commands over MQTT from an outside client: mosquitto_rr sends them, the simulator shows their
//! effect.

mod acl;
mod audit;
mod bad_input;
mod changing;
mod contended;
mod ctl;
mod history;
mod kept;
mod own;
mod reading;
mod refused;
mod remembered;
mod steps;
mod stopping;
mod terminal;
mod unanswered;

use serde_json::Value;

use gsdk2mqtt::simulator::Simulator;

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::{bounded, patiently, unique};

/// Everything is permitted, at the rate of the tests.
pub(crate) const ALL: &str = "[commands]\nallow = [\"*\"]\nrate = \"10000/s\"\n";

/// A broker, a gateway, and a bridge that accepts requests.
struct Stack {
    broker: Mosquitto,
    simulator: Simulator,
    bridge: Bridge,
}

impl Stack {
    /// With this number of devices, all managed, and these lines of configuration.
    async fn new(devices: usize, lines: &str) -> Self {
        let broker = Mosquitto::start("").await;
        let simulator = crate::harness::simulator(devices).await;
        Self::with(broker, simulator, lines, "").await
    }

    async fn with(broker: Mosquitto, simulator: Simulator, lines: &str, gateway: &str) -> Self {
        let setup = Setup::new(broker.port, "").lines(lines);
        let bridge = setup.gateway("lobby", &simulator, gateway).start();
        let stack = Self { broker, simulator, bridge };
        stack.is_listening().await;
        stack
    }

    /// Requests are subscribed a moment after `online`.
    async fn is_listening(&self) {
        patiently("requests are answered", async {
            let request = ["-t", "gsdk/bridge/request/republish", "-n"];
            while self.rr(&request, "1").await.is_none() {}
        })
        .await;
    }

    /// The answer to a request with a response topic.
    async fn ask(&self, command: &str, payload: &str) -> Value {
        self.ask_of("lobby", command, payload).await
    }

    async fn ask_of(&self, gateway: &str, command: &str, payload: &str) -> Value {
        let topic = format!("gsdk/{gateway}/request/{command}");
        let answer = self.rr(&["-t", &topic, "-m", payload], "20").await;
        answer.unwrap_or_else(|| panic!("{command} {payload} was not answered"))
    }

    async fn rr(&self, args: &[&str], wait_s: &str) -> Option<Value> {
        rr(self.broker.port, args, wait_s).await
    }
}

/// Sends a request with mosquitto_rr, which waits for the response on a separate topic.
pub(crate) async fn rr(port: u16, args: &[&str], wait_s: &str) -> Option<Value> {
    let reply = unique("gsdk-reply/tests");
    let mut command = bounded("mosquitto_rr");
    command.args(["-V", "5", "-q", "1", "-W", wait_s, "-p", &port.to_string()]);
    if !args.contains(&"-e") {
        command.args(["-e", &reply]);
    }
    command.args(args);
    let run = tokio::task::spawn_blocking(move || {
        command.output().expect("mosquitto_rr must be installed (mosquitto-clients)")
    });
    let out = run.await.unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    (!text.trim().is_empty()).then(|| serde_json::from_str(&text).unwrap())
}

/// The code of a refusal, and its message.
fn refusal(answer: &Value) -> (&str, &str) {
    assert_eq!(answer["result"], "error", "{answer}");
    (answer["error"]["code"].as_str().unwrap(), answer["error"]["message"].as_str().unwrap())
}
