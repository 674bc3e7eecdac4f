//! The broker's access list as printed in the docs, with a real mosquitto.

use std::process::{Command, Stdio};

use super::{ALL, rr};
use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::patiently;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_can_look_on_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let acl = include_str!("../../../deploy/mosquitto/acl");
    std::fs::write(dir.path().join("acl"), acl).unwrap();
    let broker = Mosquitto::start_in(dir, "acl_file {dir}/acl\nallow_anonymous true").await;
    let simulator = crate::harness::simulator(3).await;
    let setup = Setup::new(broker.port, "username = \"gsdk2mqtt\"").lines(ALL);
    let bridge = setup.gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let port = broker.port.to_string();
    let by = |program: &str, user: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(["-V", "5", "-q", "1", "-u", user, "-p", &port]).args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let spy = by("mosquitto_sub", "dashboard", &["-t", "#", "-W", "6", "-F", "%t"]);
    let spy = { spy }.spawn().unwrap();
    let mine = ["-u", "commander", "-e", "gsdk-reply/commander/1", "-n"];
    let ask = [&["-t", "gsdk/lobby/request/devices"][..], &mine].concat();
    let answer = patiently("the commander is answered", async {
        loop {
            if let Some(answer) = rr(broker.port, &ask, "1").await {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(answer["result"], "ok", "{answer}");
    for topic in ["gsdk/lobby/request/disconnect_all", "gsdk/lobby/state", "gsdk-reply/commander/1"]
    {
        let out = by("mosquitto_pub", "dashboard", &["-t", topic, "-m", "{}"]).output().unwrap();
        assert!(text(&out.stderr).contains("Not authorized"), "{topic}: {out:?}");
    }
    let elsewhere = ["-t", "gsdk/annex/request/devices", "-n"];
    let out = by("mosquitto_pub", "commander", &elsewhere).output().unwrap();
    assert!(text(&out.stderr).contains("Not authorized"), "{out:?}");
    assert_eq!(simulator.control().calls().get("DisconnectAll"), None);
    let spied = tokio::task::spawn_blocking(|| spy.wait_with_output().unwrap()).await.unwrap();
    let spied = text(&spied.stdout);
    assert!(spied.lines().any(|topic| topic == "gsdk/lobby/state"), "{spied}");
    let answers = |topic: &str| topic.contains("reply") || topic.contains("/response/");
    assert!(!spied.lines().any(answers), "{spied}");
}
