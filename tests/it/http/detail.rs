//! The pages of one gateway and of one device, for a client without script.

use gsdk2mqtt::simulator::Fault;

use super::ask;
use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::{LOOK_EVERY, patiently, simulator};

#[tokio::test(flavor = "multi_thread")]
async fn each_gateway_and_device_has_a_page() {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(2).await);
    let ids: Vec<u32> = gateway.control().devices().iter().map(|device| device.id).collect();
    let names = format!("[gateways.lobby.devices]\n{} = {{ name = \"<i>Door</i>\" }}\n", ids[0]);
    let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "unknown_after = \"1s\"");
    let bridge = bridge.lines(&names).start();
    bridge.is_ready().await;
    let (_, list) = ask(&bridge, "GET", "/").await;
    let path = format!("/devices/lobby/{}", ids[0]);
    assert!(list.contains(&format!("href=\"{}\"", &path[1..])), "{list}");
    assert!(list.contains("href=\"gateways/lobby\""), "{list}");

    gateway.control().apply_fault(&Fault::Drop { devices: ids[0].into() });
    let page = patiently("the events of its reconnection are on the device's page", async {
        loop {
            let (head, page) = ask(&bridge, "GET", &path).await;
            assert!(head.starts_with("http/1.0 200"), "{head}");
            if page.contains("→ tcp_connected · after ") && page.contains("class=\"state up\"") {
                return page;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    assert!(page.contains("<h1>&lt;i&gt;Door&lt;/i&gt;</h1>"), "{page}");
    assert!(page.contains(&format!("<code>gsdk/lobby/{}/state</code>", ids[0])), "{page}");
    assert!(page.contains("href=\"../../page.css\"") && page.contains("href=\"../../\""), "{page}");
    for wrong in ["://", "style=", "undefined", "NaN", "for 0 s", "None."] {
        assert!(!page.contains(wrong), "{wrong} in {page}");
    }
    let csv = page.split("href=\"../../").find(|part| part.starts_with("api/v1/events")).unwrap();
    let csv = csv.split('"').next().unwrap().replace("&amp;", "&");
    let (head, csv) = ask(&bridge, "GET", &format!("/{csv}")).await;
    assert!(head.contains("text/csv") && csv.contains(",disconnected,"), "{head} {csv}");

    let (_, page) = ask(&bridge, "GET", "/gateways/lobby").await;
    assert!(page.contains("class=\"state up\"") && page.contains("2 of 2 connected"), "{page}");
    assert!(page.contains("<code>gsdk/lobby/info</code>"), "{page}");
    assert!(page.contains("reachable"), "its own events: {page}");
    assert!(page.contains("src=\"../page.js\""), "{page}");
    for missing in ["/gateways/annex", "/gateways/X", "/devices/lobby/7", "/devices/annex/7"] {
        assert!(ask(&bridge, "GET", missing).await.0.starts_with("http/1.0 404"), "{missing}");
    }

    gateway.control().stop_listening();
    gateway.control().apply_fault(&Fault::CutConnections);
    patiently("what is not known comes first", async {
        loop {
            let (_, page) = ask(&bridge, "GET", "/").await;
            let known = page.find("the state of its 2 devices is unknown");
            if known.is_some_and(|at| at < page.find("class=\"counts\"").unwrap()) {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    let (_, page) = ask(&bridge, "GET", &path).await;
    assert!(page.contains("class=\"state unknown\"") && page.contains("It was "), "{page}");
    let (_, page) = ask(&bridge, "GET", "/gateways/lobby").await;
    assert!(page.contains("class=\"state down\"") && page.contains("2 devices, unknown"), "{page}");
}
