//! The command line and Home Assistant with a master.

use super::{Campus, SOON_LOST, see_cleared};
use crate::harness::bounded;
use crate::harness::bridge::{PROGRAM, Setup};
use crate::harness::master::{Master, behind};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::Watcher;

#[tokio::test(flavor = "multi_thread")]
async fn ctl_goes_through_the_master_of_the_configuration() {
    let campus = Campus::named(3).await;
    let ctl = |words: &[&str]| {
        let mut command = bounded(PROGRAM);
        command.arg("ctl").arg("--config").arg(campus.bridge.config_file());
        let out = command.args(["--json", "--gateway", "south"]).args(words).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()
    };
    let answer = ctl(&["devices"]);
    assert_eq!(answer["data"]["devices"].as_array().unwrap().len(), 3, "{answer}");
    assert_eq!(ctl(&["pending"])["result"], "ok");

    campus.bridge.configure(|text| {
        let gateways = text.find("[gateways").unwrap();
        let masters = text.find("[masters").unwrap();
        assert!(masters < gateways, "{text}");
        text[..gateways].to_owned()
    });
    for words in [&[][..], &["--gateway", "annex"]] {
        let mut command = bounded(PROGRAM);
        command.args(["ctl", "devices", "--config"]).arg(campus.bridge.config_file()).args(words);
        let out = command.output().unwrap();
        let stderr = String::from_utf8(out.stderr).unwrap();
        assert!(stderr.contains("one behind a master needs a table"), "{words:?}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_is_a_sensor_of_the_bridge_and_its_topic_goes_with_it() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let (master, gateway) = (Master::start(&["a"], 1).await, crate::harness::simulator(1).await);
    let ha = "[home_assistant]\nenabled = true\n";
    let setup = Setup::new(broker.port, "").lines(ha).gateway("lobby", &gateway, "");
    let lines = master.table("campus", "") + &behind("north", "campus", "a", SOON_LOST);
    let mut bridge = setup.lines(&lines).start();
    let topic = "homeassistant/device/gsdk_bridge/config";
    let discovery = watcher.see("the bridge", |seen| seen.topic == topic).await.json();
    let sensor = &discovery["components"]["master_campus"];
    assert_eq!(sensor["platform"], "binary_sensor", "{discovery}");
    assert_eq!(sensor["unique_id"], "gsdk_bridge_master_campus");
    let info = "gsdk/bridge/master/campus/info";
    assert_eq!(sensor["state_topic"], info);
    watcher.see_text("gsdk/north/state", "online").await;
    // Without the master in the configuration its topics are cleared, a minute later.
    bridge.terminate().await;
    bridge.configure(|text| text.split_once("[masters.campus]").unwrap().0.to_owned());
    watcher.clear();
    bridge.restart();
    bridge.is_ready().await;
    let discovery = watcher.see("the bridge", |seen| seen.topic == topic).await.json();
    let sensor = &discovery["components"]["master_campus"];
    assert_eq!(*sensor, serde_json::json!({ "platform": "binary_sensor" }), "removed");
    see_cleared(&watcher, info).await;
}
