//! All retained states are published again on every connection, at a limited rate, so that live
//! events do not wait.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{measured, ready, within};
use crate::harness::bridge::Setup;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::subscriber::Subscriber;
use gsdk2mqtt::simulator::Fault;

const DEVICES: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(180);

fn is_device_state(topic: &str) -> bool {
    topic.ends_with("/state") && topic.matches('/').count() == 3
}

/// Aim: 10,000 states do not stall live events. Method: the connection is cut with a slowed-down
/// broker, so that the publication takes long; meanwhile devices drop, and each event is timed from
/// the drop to an outside subscriber.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_states_published_again_do_not_stall_live_events() {
    let broker = Mosquitto::start("max_queued_messages 0\nmax_inflight_messages 100").await;
    let proxy = Proxy::before(broker.port).await;
    let simulator = crate::harness::simulator(DEVICES).await;
    let bridge = Setup::new(proxy.port, "").gateway("lobby", &simulator, "").start();
    ready(&bridge, PATIENCE, "10,000 devices: the first start, until ready").await;
    let mut witness = Subscriber::start(broker.port, "gsdk/#");
    // Retained messages are first; then there are none, because nothing changes.
    let mut kept = HashSet::new();
    within(PATIENCE, "10,000 devices: until all is kept", async || {
        while let Ok((topic, payload)) = witness.seen.try_recv() {
            if is_device_state(&topic) || (topic == "gsdk/bridge/state" && payload == b"online") {
                kept.insert(topic);
            }
        }
        (kept.len() == DEVICES + 1).then_some(())
    })
    .await;
    proxy.set_mode(Mode { delay: Duration::from_micros(500), ..Mode::default() });
    proxy.cut().await;
    while witness.seen.try_recv().is_ok() {}

    let ids: Vec<u32> = simulator.control().managed().iter().map(|it| it.device_id).collect();
    let (mut states, mut latencies) = (HashSet::new(), Vec::new());
    let (mut under_way, mut next): (Option<(u32, Instant)>, _) = (None, 0);
    let mut started: Option<Instant> = None;
    let publication = loop {
        let message = tokio::time::timeout(PATIENCE, witness.seen.recv()).await;
        let (topic, payload) = message.expect("the publication continues").unwrap();
        if topic == "gsdk/bridge/state" {
            match payload.as_slice() {
                b"online" => break started.expect("states first").elapsed(),
                _ => continue,
            }
        }
        if topic.ends_with("/state") {
            started.get_or_insert_with(Instant::now);
            states.insert(topic.clone());
        }
        if let Some((id, dropped)) = under_way
            && topic.starts_with(&format!("gsdk/lobby/{id}/event/"))
        {
            latencies.push(dropped.elapsed());
            under_way = None;
        }
        if started.is_some() && under_way.is_none() && states.len() < DEVICES * 9 / 10 {
            // If the device is already connected again, the next one is used.
            if simulator.control().apply_fault(&Fault::Drop { devices: ids[next].into() }) == 1 {
                under_way = Some((ids[next], Instant::now()));
            }
            next += 1;
        }
    };
    let worst = latencies.iter().max().expect("live events came");
    measured("10,000 devices: the whole publication again", publication);
    measured("10,000 devices: live events meanwhile", latencies.len());
    measured("10,000 devices: the slowest of them", worst);
    let of_devices = states.iter().filter(|topic| is_device_state(topic)).count();
    assert_eq!(of_devices, DEVICES, "online only after every state");
    assert!(latencies.len() > 20, "{latencies:?}");
    assert!(*worst < publication / 3, "{worst:?} of {publication:?}");
}
