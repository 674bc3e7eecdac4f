//! What the pages show of the history: availability and the last events.

use gsdk2mqtt::simulator::Fault;

use super::{Watching, ask};
use crate::faults::clock::{library, with_clock};
use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::{LOOK_EVERY, patiently, simulator};

/// A page once it has this text.
async fn page_with(bridge: &Bridge, path: &str, text: &str) -> String {
    patiently(text, async {
        loop {
            let (head, page) = ask(bridge, "GET", path).await;
            assert!(head.starts_with("http/1.0 200"), "{head}");
            if page.contains(text) {
                return page;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await
}

/// What the cells of the first bar say.
fn cells(page: &str) -> Vec<&str> {
    let bar = page.split("<svg").find(|part| part.contains("role=\"img\"")).unwrap();
    let titles = bar.split("<title>").skip(1);
    titles.map(|title| title.split("</title>").next().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bars_are_of_the_chosen_period_and_survive_a_restart() {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(1).await);
    let id = gateway.control().devices()[0].id;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    gateway.control().apply_fault(&Fault::Drop { devices: id.into() });
    let door = format!("/devices/lobby/{id}?range=24h");
    // Its end is recorded too: a kill during an outage may leave nothing of it observed.
    page_with(&bridge, &door, "→ tcp_connected · after ").await;
    let page = page_with(&bridge, &door, "; 1 outage, the longest ").await;
    assert!(page.contains("<h2 id=\"availability\">Availability, last 24 hours"), "{page}");
    let links: Vec<_> = page.split("href=\"../../").filter(|part| part.contains("CSV")).collect();
    for (link, column) in links.iter().zip([",availability,", ",event_type,"]) {
        let link = link.split('"').next().unwrap().replace("&amp;", "&");
        let (head, csv) = ask(&bridge, "GET", &format!("/{link}")).await;
        assert!(head.contains("text/csv") && csv.contains(column), "{link}: {head} {csv}");
    }

    bridge.kill();
    bridge.restart();
    bridge.is_ready().await;
    let page = page_with(&bridge, &door, "; 1 outage, the longest ").await;
    assert!(page.contains("not observed") && !page.contains("NaN"), "{page}");
    let page = page_with(&bridge, "/", "<title>20").await;
    assert_eq!(cells(&page).len(), 24, "{page}");
    let now = *cells(&page).last().unwrap();
    assert!(now.contains(": connected ") || cells(&page)[22].contains(": connected "), "{now}");
    for (range, count) in [("7d", 7), ("30d", 30), ("90d", 90)] {
        let (_, page) = ask(&bridge, "GET", &format!("/?range={range}")).await;
        let cells = cells(&page);
        assert_eq!(cells.len(), count, "{page}");
        assert!(cells[0].ends_with(": not expected"), "before it was first seen: {}", cells[0]);
        assert!(cells[count - 1].contains("not connected"), "{}", cells[count - 1]);
        let (_, page) = ask(&bridge, "GET", &format!("/gateways/lobby?range={range}")).await;
        assert!(page.contains(": connected "), "{page}");
    }
    for wrong in ["/?range=1y", "/gateways/lobby?range=", &format!("/devices/lobby/{id}?range=0")] {
        let (head, _) = ask(&bridge, "GET", wrong).await;
        assert!(head.starts_with("http/1.0 400"), "{wrong}: {head}");
    }
}

/// Method: the bridge is restarted; then a folder takes the place of the database.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_events_survive_a_restart_and_a_page_without_them_says_why() {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(2).await);
    let id = gateway.control().devices()[0].id;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").start();
    bridge.is_ready().await;
    gateway.control().apply_fault(&Fault::power(id, false));
    let event = "tcp_connected → disconnected";
    page_with(&bridge, "/", event).await;
    assert!(bridge.end().await.success());
    bridge.restart();
    bridge.is_ready().await;
    for path in ["/".to_owned(), format!("/devices/lobby/{id}"), "/gateways/lobby".to_owned()] {
        page_with(&bridge, &path, event).await;
    }

    for suffix in ["", "-wal", "-shm"] {
        _ = std::fs::remove_file(bridge.state_dir().join(format!("history.db{suffix}")));
    }
    _ = std::fs::create_dir(bridge.state_dir().join("history.db"));
    let page = page_with(&bridge, "/", "history.db cannot be read now").await;
    assert!(page.contains("1 of 2 connected") && page.contains("<tr id="), "{page}");
    let mut watching = Watching::start(&bridge).await;
    watching.sees_nothing_new().await;
    gateway.control().apply_fault(&Fault::power(id, true));
    watching.sees_on_page(&bridge, &["2 of 2 connected", "history.db cannot be read now"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_listed_by_gateway_and_a_lost_one_comes_first() {
    let broker = Mosquitto::start("").await;
    let (lobby, annex) = (simulator(2).await, simulator(2).await);
    let setup = Setup::new(broker.port, "").gateway("lobby", &lobby, "");
    let bridge = setup.gateway("annex", &annex, "unknown_after = \"1s\"").start();
    bridge.is_ready().await;
    let page = page_with(&bridge, "/", "<tbody data-gateway=\"lobby\">").await;
    let groups: Vec<_> = page.split("<tbody").skip(1).collect();
    assert_eq!(groups.len(), 2, "{page}");
    for (group, name) in groups.iter().zip(["annex", "lobby"]) {
        assert!(group.contains(&format!("<a href=\"gateways/{name}\">")), "{name}: {group}");
        assert_eq!(group.matches("<tr id=").count(), 2, "{name}: {group}");
    }
    let door = lobby.control().devices()[0].id;
    lobby.control().apply_fault(&Fault::power(door, false));
    annex.control().stop_listening();
    annex.control().apply_fault(&Fault::CutConnections);
    page_with(&bridge, "/", "the state of its 2 devices is unknown").await;
    let page = page_with(&bridge, "/", "<h2>Not connected").await;
    assert!(page.contains("<title>(1) bridge"), "{page}");
    let down = format!("<a class=\"name\" href=\"devices/lobby/{door}\"");
    let order = ["Not known or not right", "class=\"counts\"", &down, "<h2>Gateways", "<tbody"];
    let places: Vec<_> = order.iter().map(|text| page.find(text).expect(text)).collect();
    assert!(places.is_sorted(), "{places:?} in {page}");
}

/// Method: the bridge is restarted with a clock that is eight days ahead.
#[tokio::test(flavor = "multi_thread")]
async fn devices_that_have_been_down_for_more_than_seven_days_are_folded() {
    let (broker, gateway) = (Mosquitto::start("").await, simulator(3).await);
    let folder = tempfile::tempdir().unwrap();
    let offset = folder.path().join("offset");
    std::fs::write(&offset, "+0").unwrap();
    let setup = Setup::new(broker.port, "");
    let mut bridge = with_clock(setup, &gateway, &library(), &offset).start();
    bridge.is_ready().await;
    let ids: Vec<u32> = gateway.control().devices().iter().map(|device| device.id).collect();
    let door = |id: u32| format!("<a class=\"name\" href=\"devices/lobby/{id}\"");
    gateway.control().apply_fault(&Fault::power(ids[0], false));
    let page = page_with(&bridge, "/", "<h2>Not connected").await;
    assert!(!page.contains("<details id=\"long\""), "{page}");
    assert!(bridge.end().await.success());

    std::fs::write(&offset, "+8d").unwrap();
    bridge.restart();
    bridge.is_ready().await;
    gateway.control().apply_fault(&Fault::power(ids[1], false));
    let page = page_with(&bridge, "/", "<title>(2) bridge").await;
    let (recent, folded) = page.split_once("<details id=\"long\">").expect(&page);
    let folded = folded.split_once("</details>").unwrap().0;
    assert!(recent.contains(&door(ids[1])) && !recent.contains(&door(ids[0])), "{page}");
    assert!(folded.contains("<summary>For more than 7 days: 1</summary>"), "{folded}");
    assert!(folded.contains(&door(ids[0])) && !folded.contains(&door(ids[1])), "{folded}");
}
