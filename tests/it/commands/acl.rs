//! The broker's access list as printed in the docs, with a real mosquitto.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::{ALL, rr};
use crate::harness::bridge::Setup;
use crate::harness::master::Master;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::{bounded, eventually, patiently};
use gsdk2mqtt::simulator::Fault;

const ACL: &str = include_str!("../../../deploy/mosquitto/acl");

/// A client that subscribes to everything, and the topics that it receives.
struct Spy {
    child: Child,
    topics: Arc<Mutex<Vec<String>>>,
}

impl Spy {
    fn start(port: u16, user: &str) -> Self {
        let mut child = client(Command::new("mosquitto_sub"), port, user)
            .args(["-t", "#", "-F", "%t"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let topics: Arc<Mutex<Vec<String>>> = Arc::default();
        let (lines, into) = (BufReader::new(child.stdout.take().unwrap()), Arc::clone(&topics));
        std::thread::spawn(move || {
            lines.lines().map_while(Result::ok).for_each(|line| into.lock().unwrap().push(line));
        });
        Self { child, topics }
    }

    fn received(&self, like: impl Fn(&str) -> bool) -> bool {
        self.topics.lock().unwrap().iter().any(|topic| like(topic))
    }

    async fn receives(&self, topic: &str) {
        eventually(&format!("{topic} is received"), || self.received(|t| t == topic).then_some(()))
            .await;
    }
}

impl Drop for Spy {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn client(mut command: Command, port: u16, user: &str) -> Command {
    command.args(["-V", "5", "-q", "1", "-p", &port.to_string()]);
    if !user.is_empty() {
        command.args(["-u", user]);
    }
    command
}

/// The broker's error for a message; empty if it accepts the message.
fn refusal(port: u16, user: &str, topic: &str) -> String {
    let mut client = client(bounded("mosquitto_pub"), port, user);
    let out = client.args(["-t", topic, "-m", "{}"]).output().unwrap();
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// The user may request the devices of the gateway, and read the response there.
async fn is_answered(port: u16, user: &str, gateway: &str, on: &str) {
    let topic = format!("gsdk/{gateway}/request/devices");
    let ask = ["-t", &topic, "-u", user, "-e", on, "-n"];
    let answer = patiently(&format!("{user} is answered"), async {
        loop {
            if let Some(answer) = rr(port, &ask, "1").await {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(answer["result"], "ok", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_can_look_on_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("acl"), ACL).unwrap();
    let broker = Mosquitto::start_in(dir, "acl_file {dir}/acl\nallow_anonymous true").await;
    let simulator = crate::harness::simulator(3).await;
    let setup = Setup::new(broker.port, "username = \"gsdk2mqtt\"").lines(ALL);
    let bridge = setup.gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let (dashboard, commander) =
        (Spy::start(broker.port, "dashboard"), Spy::start(broker.port, "commander"));
    for spy in [&dashboard, &commander] {
        spy.receives("gsdk/lobby/state").await;
    }
    is_answered(broker.port, "commander", "lobby", "gsdk-reply/commander/1").await;
    commander.receives("gsdk-reply/commander/1").await;
    // A response to another client, and one to all clients with requests.
    assert_eq!(refusal(broker.port, "gsdk2mqtt", "gsdk-reply/other/1"), "");
    assert_eq!(refusal(broker.port, "commander", "gsdk/lobby/request/pending"), "");
    commander.receives("gsdk/lobby/response/pending").await;

    for topic in [
        "gsdk/lobby/request/disconnect_all",
        "gsdk/lobby/request/devices",
        "gsdk/bridge/request/republish",
        "gsdk/lobby/state",
        "gsdk/lobby/7/state",
        "gsdk/bridge/state",
        "gsdk/lobby/7/event/disconnected",
        "gsdk-reply/commander/1",
    ] {
        for user in ["dashboard", ""] {
            let refused = refusal(broker.port, user, topic);
            assert!(refused.contains("Not authorized"), "{user} {topic}: {refused}");
        }
    }
    // A client of the lobby can command nothing else, and forge nothing either.
    for topic in [
        "gsdk/annex/request/devices",
        "gsdk/bridge/request/forget",
        "gsdk/lobby/state",
        "gsdk/lobby/7/state",
        "gsdk/lobby/response/devices",
        "gsdk-reply/commander/1",
    ] {
        let refused = refusal(broker.port, "commander", topic);
        assert!(refused.contains("Not authorized"), "{topic}: {refused}");
    }
    assert_eq!(simulator.control().calls().get("DisconnectAll"), None);

    // A client that reads the history of all gateways can read and request nothing else.
    let auditor = Spy::start(broker.port, "auditor");
    let ask = "gsdk/bridge/request/history";
    let asked = ["-t", ask, "-u", "auditor", "-e", "gsdk-reply/auditor/1", "-n"];
    patiently("the auditor is answered", async {
        while rr(broker.port, &asked, "1").await.is_none()
            || !auditor.received(|topic| topic == "gsdk-reply/auditor/1")
        {}
    })
    .await;
    for user in ["dashboard", "nodered", ""] {
        let refused = refusal(broker.port, user, ask);
        assert!(refused.contains("Not authorized"), "{user}: {refused}");
    }
    for topic in ["gsdk/bridge/request/republish", "gsdk/lobby/request/history", "gsdk/lobby/state"]
    {
        let refused = refusal(broker.port, "auditor", topic);
        assert!(refused.contains("Not authorized"), "{topic}: {refused}");
    }
    assert!(!auditor.received(|topic| !topic.starts_with("gsdk-reply/auditor/")));

    // After they received these messages, they have received all earlier ones.
    let device = simulator.control().managed()[0].device_id;
    simulator.control().apply_fault(&Fault::Drop { devices: device.into() });
    dashboard.receives(&format!("gsdk/lobby/{device}/event/disconnected")).await;
    let secret = ["reply", "/response/", "/request/"];
    assert!(!dashboard.received(|topic| secret.iter().any(|level| topic.contains(level))));
    assert!(!commander.received(|topic| topic.contains("other") || topic.contains("/request/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discovered_gateway_has_permissions_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("acl"), ACL).unwrap();
    let broker = Mosquitto::start_in(dir, "acl_file {dir}/acl\nallow_anonymous true").await;
    let master = Master::start(&["North", "South"], 2).await;
    let setup = Setup::new(broker.port, "username = \"gsdk2mqtt\"").lines(ALL);
    let bridge = setup.lines(&master.table("campus", "")).start();
    bridge.is_ready().await;
    let (dashboard, commander) =
        (Spy::start(broker.port, "dashboard"), Spy::start(broker.port, "commander"));
    for topic in ["gsdk/campus_north/state", "gsdk/campus_south/state"] {
        dashboard.receives(topic).await;
        commander.receives(topic).await;
    }
    dashboard.receives("gsdk/bridge/master/campus/info").await;
    is_answered(broker.port, "commander", "campus_north", "gsdk-reply/commander/1").await;
    commander.receives("gsdk-reply/commander/1").await;
    for (user, topic) in [
        ("commander", "gsdk/campus_south/request/devices"),
        ("commander", "gsdk/campus_north/state"),
        ("dashboard", "gsdk/campus_north/request/devices"),
        ("nodered", "gsdk/campus_north/request/devices"),
    ] {
        let refused = refusal(broker.port, user, topic);
        assert!(refused.contains("Not authorized"), "{user} {topic}: {refused}");
    }
    let device = master.devices[0][0];
    master.fault(&Fault::power(device, false));
    dashboard.receives(&format!("gsdk/campus_north/{device}/event/disconnected")).await;
    assert!(!dashboard.received(|topic| topic.contains("/response/")));
}

/// Every topic that the included flow reads or writes; a broker reports no error for forbidden
/// reads.
#[tokio::test(flavor = "multi_thread")]
async fn node_red_has_the_permissions_of_its_flow() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("acl"), ACL).unwrap();
    let broker = Mosquitto::start_in(dir, "acl_file {dir}/acl\nallow_anonymous true").await;
    let simulator = crate::harness::simulator(1).await;
    let setup = Setup::new(broker.port, "username = \"gsdk2mqtt\"").lines(ALL);
    let bridge = setup.gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let device = simulator.control().managed()[0].device_id;
    let nodered = Spy::start(broker.port, "nodered");
    for topic in ["gsdk/bridge/state", "gsdk/lobby/state", &format!("gsdk/lobby/{device}/state")] {
        nodered.receives(topic).await;
    }
    simulator.control().apply_fault(&Fault::Drop { devices: device.into() });
    nodered.receives(&format!("gsdk/lobby/{device}/event/disconnected")).await;
    is_answered(broker.port, "nodered", "lobby", "gsdk-reply/nodered").await;
    for topic in ["building/alert", "building/morning", "building/answer"] {
        assert_eq!(refusal(broker.port, "nodered", topic), "", "{topic}");
    }
    for topic in ["gsdk/lobby/request/disconnect", "gsdk/lobby/state", "gsdk-reply/nodered"] {
        let refused = refusal(broker.port, "nodered", topic);
        assert!(refused.contains("Not authorized"), "{topic}: {refused}");
    }
}

#[test]
fn the_list_is_printed_in_the_docs_as_it_is() {
    assert!(include_str!("../../../docs/commands.md").contains(ACL));
}
