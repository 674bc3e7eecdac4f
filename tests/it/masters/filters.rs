//! The accept filter of a gateway whose master stores another one: no change may take away what
//! another client has entered at the gateway itself.

use std::collections::BTreeSet;

use gsdk2mqtt::gsdk::{AcceptFilter, GatewayClient};
use gsdk2mqtt::ids::DeviceId;
use gsdk2mqtt::simulator::{Fault, SimulatorSettings};
use serde_json::{Value, json};
use tonic::Code;

use super::{Campus, SOON_LOST};
use crate::harness::master::{Master, behind};

/// An entry that another client makes at the gateway itself.
const OTHER: u32 = 540_092_689;

fn id(number: u32) -> DeviceId {
    DeviceId::new(number).unwrap()
}

fn filter(ids: &[u32]) -> AcceptFilter {
    AcceptFilter { device_ids: ids.iter().map(|&it| id(it)).collect(), ..AcceptFilter::default() }
}

/// A master whose `...DB` calls change a connected gateway too, or do not. Its gateway has the
/// entry [`OTHER`].
async fn master(stored_is_applied: bool) -> (Master, GatewayClient) {
    let master = Master::idle(&["Gateway-North"], 10, |mut settings| {
        settings.master.as_mut().unwrap().stored_is_applied = stored_is_applied;
        SimulatorSettings { managed: false, ..settings }
    })
    .await;
    let other = master.client("Gateway-North").await;
    other.set_accept_filter(&filter(&[OTHER])).await.unwrap();
    (master, other)
}

async fn campus(master: Master, devices: &str) -> Campus {
    let lines = behind("north", "campus", "Gateway-North", SOON_LOST);
    let campus = Campus::with(master, "", &format!("{lines}{devices}")).await;
    campus.see_state("north", "online").await;
    campus.bridge.is_ready().await;
    campus
}

fn numbers(filter: &AcceptFilter) -> Vec<u32> {
    filter.device_ids.iter().map(|id| id.get()).collect()
}

/// The gateway's filter, and the one that its master stores.
async fn filters(other: &GatewayClient) -> (AcceptFilter, AcceptFilter) {
    let stored = other.stored().unwrap().accept_filter().await.unwrap();
    (other.accept_filter().await.unwrap(), stored)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_takes_nothing_else_away_and_answers_with_what_the_gateway_has() {
    for stored_is_applied in [true, false] {
        let (master, other) = master(stored_is_applied).await;
        let campus = campus(master, "").await;
        let ask = async |command: &str, payload: &str| -> Value {
            let answer = campus.ask("north", command, payload).await;
            assert_eq!(answer["result"], "ok", "{stored_is_applied} {command}: {answer}");
            let (now, _) = filters(&other).await;
            assert_eq!(answer["data"]["device_ids"], json!(now.device_ids), "{command}");
            assert_eq!(answer["data"]["allow_all"], json!(now.allow_all), "{command}");
            answer
        };
        ask("accept_filter/add", r#"{"device_ids":[4242,4243]}"#).await;
        let (now, stored) = filters(&other).await;
        assert_eq!(numbers(&now), [4242, 4243, OTHER], "{stored_is_applied}");
        assert_eq!(now, stored, "stored is all that the gateway must not lose by this");
        // Another client adds one, and one that is not stored is removed.
        other.set_accept_filter(&filter(&[77, 4242, 4243, OTHER])).await.unwrap();
        ask("accept_filter/remove", r#"{"device_ids":[4243]}"#).await;
        assert_eq!(numbers(&filters(&other).await.0), [77, 4242, OTHER], "{stored_is_applied}");
        ask("accept_filter/allow_all", r#"{"enabled":true}"#).await;
        let (now, stored) = filters(&other).await;
        assert_eq!((numbers(&now), now.allow_all), (vec![77, 4242, OTHER], true));
        assert!(stored.allow_all);
        ask("accept_filter/allow_all", r#"{"enabled":false}"#).await;
        let (now, stored) = filters(&other).await;
        assert_eq!((numbers(&now), now.allow_all), (vec![77, 4242, OTHER], false));
        assert!(!stored.allow_all);
        // The whole filter is replaced only by a request for that.
        ask("accept_filter/set", r#"{"device_ids":[4242]}"#).await;
        assert_eq!(filters(&other).await, (filter(&[4242]), filter(&[4242])));
        // Nothing is stored or written that is there.
        let calls = |method| campus.master.calls(method);
        let before = (calls("SetAcceptFilter"), calls("SetAcceptFilterDB"));
        ask("accept_filter/add", r#"{"device_ids":[4242]}"#).await;
        assert_eq!((calls("SetAcceptFilter"), calls("SetAcceptFilterDB")), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_device_and_a_change_of_mode_leave_the_other_entries() {
    for stored_is_applied in [true, false] {
        let (master, other) = master(stored_is_applied).await;
        let devices = "[gateways.north.devices]\n4242 = { connect = \"accept\" }\n";
        let campus = campus(master, devices).await;
        campus.see_event("north", "restored").await;
        assert_eq!(numbers(&filters(&other).await.0), [4242, OTHER], "{stored_is_applied}");
        let sites = campus.master.simulator.control().devices();
        let site = sites
            .iter()
            .find(|site| !site.ssl && site.mode == gsdk2mqtt::simulator::DialMode::ServerToDevice);
        let (device, ip) = site.map(|site| (site.id, site.ip)).unwrap();
        let connect = format!(r#"{{"ip":"{ip}"}}"#);
        assert_eq!(campus.ask("north", "connect", &connect).await["result"], "ok");
        let payload = format!(r#"{{"device_ids":[{device}],"mode":"device_to_server"}}"#);
        let answer = campus.ask("north", "mode/set", &payload).await;
        assert_eq!(answer["result"], "ok", "{answer}");
        let expected: BTreeSet<DeviceId> = [device, 4242, OTHER].map(id).into();
        assert_eq!(filters(&other).await.0.device_ids, expected, "{stored_is_applied}");
        let payload = format!(r#"{{"device_ids":[{device}],"mode":"server_to_device"}}"#);
        let answer = campus.ask("north", "mode/set", &payload).await;
        assert_eq!(answer["result"], "ok", "{answer}");
        assert_eq!(numbers(&filters(&other).await.0), [4242, OTHER], "{stored_is_applied}");
    }
}

/// The answer says where the change is, whichever of the two calls fails.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_change_is_reported_as_such() {
    for stored_is_applied in [true, false] {
        let (master, other) = master(stored_is_applied).await;
        let campus = campus(master, "").await;
        campus.master.fault(&Fault::fail("SetAcceptFilterDB", Code::Internal, "no space"));
        let add = r#"{"device_ids":[4242]}"#;
        let answer = campus.ask("north", "accept_filter/add", add).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("unless it is repeated the master may undo it"), "{answer}");
        let (now, stored) = filters(&other).await;
        assert_eq!((numbers(&now), numbers(&stored)), (vec![4242, OTHER], vec![]));
        // Repeated, it is stored.
        campus.master.fault(&Fault::Heal);
        assert_eq!(campus.ask("north", "accept_filter/add", add).await["result"], "ok");
        assert_eq!(numbers(&filters(&other).await.1), [4242, OTHER]);
        campus.master.fault(&Fault::fail("SetAcceptFilter", Code::Internal, "no space"));
        let answer = campus.ask("north", "accept_filter/remove", add).await;
        let (now, stored) = filters(&other).await;
        assert_eq!(numbers(&stored), [OTHER]);
        if stored_is_applied {
            // The other call is not needed.
            assert_eq!((&answer["result"], numbers(&now)), (&json!("ok"), vec![OTHER]));
        } else {
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains("the master has stored the change"), "{answer}");
            assert_eq!(numbers(&now), [4242, OTHER]);
            campus.master.fault(&Fault::Heal);
            assert_eq!(campus.ask("north", "accept_filter/remove", add).await["result"], "ok");
            assert_eq!(numbers(&filters(&other).await.0), [OTHER]);
        }
        // Neither: nothing is changed.
        campus.master.fault(&Fault::fail("SetAcceptFilter", Code::Internal, "no space"));
        campus.master.fault(&Fault::fail("SetAcceptFilterDB", Code::Internal, "no space"));
        let answer = campus.ask("north", "accept_filter/add", add).await;
        assert_eq!(answer["error"]["code"], "internal", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(!message.contains("the gateway has the change"), "{answer}");
        assert_eq!(filters(&other).await, (filter(&[OTHER]), filter(&[OTHER])));
    }
}
