//! What the configuration wants is there at every new link, and nothing is taken away.

use gsdk2mqtt::simulator::{Settings, Simulator};

use crate::harness::bridge::Setup;
use crate::harness::eventually;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::watcher::Watcher;

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_forgot_is_given_everything_again() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let settings = Settings { managed: false, ..Settings::fast(10) };
    let simulator = Simulator::start(settings).await.unwrap();
    let control = simulator.control();
    let mut lines = String::from("[gateways.lobby.devices]\n");
    for device in control.building() {
        let (id, ip) = (device.id, device.ip);
        let dials = device.mode == gsdk2mqtt::simulator::Mode::DeviceToServer;
        lines += &if dials {
            format!("{id} = {{ connect = \"accept\" }}\n")
        } else {
            format!("{id} = {{ connect = \"async\", ip = \"{ip}\", ssl = {} }}\n", device.ssl)
        };
    }
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, &lines).start();
    let all_connected = || {
        let managed = control.managed();
        let connected = managed.iter().filter(|device| matches!(device.status, 1 | 2)).count();
        (connected == 10).then_some(())
    };
    eventually("every device is connected", all_connected).await;
    let restored = |seen: &crate::harness::watcher::Seen| seen.topic.ends_with("/event/restored");
    for what in ["async_connections", "accept_filter"] {
        watcher.see(what, |seen| restored(seen) && seen.json()["what"] == what).await;
    }
    let device = control.building()[0].id;
    let topic = format!("gsdk/lobby/{device}/state");
    let connected = |seen: &crate::harness::watcher::Seen| {
        seen.topic == topic && seen.json()["connected"] == true
    };
    let state = watcher.see("connected", connected).await.json();
    assert_eq!(state["kept"], "config");

    let calls = control.calls().get("AddAsyncConnection").copied();
    control.restart(std::time::Duration::from_millis(100)).await;
    assert!(control.managed().is_empty(), "a gateway forgets");
    eventually("every device is connected again", all_connected).await;
    assert_eq!(control.calls().get("AddAsyncConnection").copied(), calls.map(|count| count + 1));
    drop(bridge);
}
