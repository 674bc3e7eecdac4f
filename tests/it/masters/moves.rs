//! Devices and gateways that move.

use gsdk2mqtt::simulator::{Fault, Simulator};
use serde_json::Value;

use super::{Campus, SOON_LOST};
use crate::harness::bridge::Setup;
use crate::harness::eventually;
use crate::harness::master::{Master, behind};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Watcher, check_chain};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_moves_ends_at_the_old_gateway_and_begins_at_the_new_one() {
    let campus = Campus::named(4).await;
    campus.bridge.is_ready().await;
    let device = campus.master.devices[1][0];
    let (old, new) = (format!("gsdk/south/{device}/state"), format!("gsdk/north/{device}/state"));
    campus.see(&old, "connected", |state| state["connected"] == true).await;
    campus.watcher.clear();
    let devices = serde_json::json!([device]);
    let fault = |fault: Value| serde_json::from_value::<Fault>(fault).unwrap();
    campus.master.fault(&fault(serde_json::json!({ "do": "remove_device", "devices": devices })));
    let payload = format!(r#"{{"device_ids":[{device}]}}"#);
    campus.ask("south", "async/remove", &payload).await;
    campus.master.fault(&fault(serde_json::json!({
        "do": "add_device", "id": device, "type": "bioentry_w2", "ip": "192.168.0.77",
    })));
    campus.master.fault(&Fault::Manage);
    let state = campus.see(&new, "connected", |state| state["connected"] == true).await;
    assert_eq!(state["seq"], 0, "it is a new device: {state}");
    let event = format!("gsdk/south/{device}/event/disconnected");
    campus.see(&event, "the last event", |_| true).await;
    campus.see_cleared(&old).await;
    // Its statuses belong to the new gateway from now on.
    campus.watcher.clear();
    campus.master.fault(&Fault::power(device, false));
    let event = format!("gsdk/north/{device}/event/disconnected");
    campus.see(&event, "an event", |_| true).await;
    assert!(
        campus
            .watcher
            .find(|seen| seen.topic.starts_with("gsdk/south/") && seen.topic.contains("event"))
            .is_none()
    );
}

/// The same gateway, first at an address of its own and then behind a master.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_moves_behind_a_master_keeps_chain_and_entities() {
    let (broker, direct) = (Mosquitto::start("").await, crate::harness::simulator(5).await);
    let watcher = Watcher::start(broker.port).await;
    let master = Master::start(&["Gateway-North"], 5).await;
    let ha = "[home_assistant]\nenabled = true\n";
    let setup = Setup::new(broker.port, "").lines(ha).gateway("north", &direct, SOON_LOST);
    let mut bridge = setup.start();
    let device = master.devices[0][0];
    let power = |simulator: &Simulator, on| {
        assert_eq!(simulator.control().apply_fault(&Fault::power(device, on)), 1);
    };
    watcher.see_text("gsdk/north/state", "online").await;
    power(&direct, false);
    eventually("the first event", || watcher.events_of(device).first().cloned()).await;
    let discovery = format!("homeassistant/device/gsdk_north_{device}/config");
    let before = watcher.see("discovery", |seen| seen.topic == discovery).await;
    bridge.terminate().await;
    let table = behind("north", "campus", "Gateway-North", SOON_LOST);
    bridge.configure(|text| {
        let head = text.split_once("[gateways.north]").unwrap().0.to_owned();
        format!("{head}{}{table}", master.table("campus", ""))
    });
    bridge.restart();
    let like = |seen: &crate::harness::watcher::Seen| {
        seen.topic == "gsdk/north/info" && seen.payload.contains("\"gateway_id\":\"Gateway-North\"")
    };
    watcher.see("behind the master", like).await;
    bridge.is_ready().await;
    power(&master.simulator, false);
    power(&master.simulator, true);
    // Back by a resync, then down and up by the stream.
    let events = eventually("four events", || {
        let events = watcher.events_of(device);
        (events.len() >= 4).then_some(events)
    })
    .await;
    check_chain(&events);
    let after = watcher.all().into_iter().rfind(|seen| seen.topic == discovery).unwrap();
    assert_eq!(after.payload, before.payload, "the entities are the same");
}
