//! The fault matrix (docs/reliability.md): real processes, real faults, a real mosquitto.
//!
//! Measurements are printed (`--nocapture`).

mod audit;
mod chain;
pub(crate) mod clock;
mod closing;
mod disk;
mod hang;
mod history;
mod kept;
mod log;
mod retained;
mod shutdown;
mod slow;
mod still;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::bridge::Bridge;
use crate::harness::watcher::{Watcher, check_chain};

/// Between two polls.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Prints a measurement of the matrix.
#[expect(clippy::print_stdout, reason = "measurements are printed")]
fn measured(what: &str, value: impl std::fmt::Debug) {
    println!("measured: {what}: {value:.1?}");
}

/// Polls until `look` returns a value, and fails the test with `what` beyond `bound`; returns also
/// how long it took, and prints it.
async fn within<T>(
    bound: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> (T, Duration) {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            let took = started.elapsed();
            measured(what, took);
            return (found, took);
        }
        assert!(started.elapsed() < bound, "not within {bound:?}: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until a series has this value.
async fn reads(bridge: &Bridge, series: &str, value: f64, bound: Duration, what: &str) -> Duration {
    within(bound, what, async || (bridge.metric(series).await == Some(value)).then_some(())).await.1
}

/// Waits until the bridge is ready.
async fn ready(bridge: &Bridge, bound: Duration, what: &str) -> Duration {
    within(bound, what, async || (bridge.get("/readyz").await.0 == 200).then_some(())).await.1
}

/// Every device's events in the order of arrival.
fn by_device(messages: impl IntoIterator<Item = (String, Vec<u8>)>) -> BTreeMap<u64, Vec<Value>> {
    let mut events: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for (topic, payload) in messages {
        if topic.contains("/event/") && topic.matches('/').count() == 4 {
            let event: Value = serde_json::from_slice(&payload).unwrap();
            events.entry(event["device_id"].as_u64().unwrap()).or_default().push(event);
        }
    }
    events
}

/// Checks the chain of every device; returns the number of events.
fn check_all(watcher: &Watcher) -> usize {
    let messages = watcher.all().into_iter().map(|seen| (seen.topic, seen.payload.into_bytes()));
    let events = by_device(messages);
    events.values().for_each(|of_device| check_chain(of_device));
    events.values().map(Vec::len).sum()
}
