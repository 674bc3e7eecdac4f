//! A gateway as strict as a real one: late headers, one frame for each change, unsorted lists.

use gsdk2mqtt::simulator::{
    DeviceSelector, Fault, Simulator, SimulatorSettings, Storm, Strictness,
};

use crate::harness::bridge::Setup;
use crate::harness::eventually;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::{Watcher, check_chain, retained};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_strict_gateway_is_lost() {
    let broker = Mosquitto::start("max_queued_messages 0").await;
    let watcher = Watcher::start(broker.port).await;
    let settings =
        SimulatorSettings { strictness: Strictness::REAL, ..SimulatorSettings::fast(20) };
    let simulator = Simulator::start(settings).await.unwrap();
    let control = simulator.control();
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let connected = || {
        let managed = control.managed();
        let all = managed.len() == 20 && managed.iter().all(|one| matches!(one.status, 1 | 2));
        all.then_some(())
    };
    eventually("all devices are connected", connected).await;
    control.storm(Storm::of(2_000)).await.unwrap();
    eventually("the storm has arrived", || {
        let all = watcher.all();
        let events = all.iter().filter(|seen| seen.topic.contains("/event/")).count();
        (events >= 2_000).then_some(())
    })
    .await;
    control.apply_fault(&Fault::CutConnections);
    control.apply_fault(&Fault::Drop { devices: DeviceSelector::default() });
    eventually("all devices are connected again", connected).await;
    eventually("the broker has what the gateway lists", || {
        let retained = retained(broker.port);
        let is_right = |id: u32| {
            let state = retained.get(&format!("gsdk/lobby/{id}/state"))?;
            let state: serde_json::Value = serde_json::from_str(state).unwrap();
            (state["connected"] == true).then_some(())
        };
        control.managed().into_iter().try_for_each(|one| is_right(one.device_id))
    })
    .await;
    for device in control.devices() {
        check_chain(&watcher.events_of(device.id));
    }
    let corrections = bridge.metric("gsdk_corrections_total{gateway=\"lobby\"}").await;
    assert_eq!(corrections, Some(0.0));
}
