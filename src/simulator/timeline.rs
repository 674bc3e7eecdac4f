//! A scenario's steps, carried out in time.
//!
//! May not decide what a fault does. Faults of devices are planned into the gateways' own time, so
//! that they come at exactly their moment; the others are a matter of connections and come when
//! the machine gets to them.

use std::time::Duration;

use super::control::Control;
use super::hub::Hub;
use super::scenario::Step;

/// Seconds as milliseconds; what is negative or no number is 0.
fn millis(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds)
        .map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// Plans the faults of devices among `steps`.
pub(crate) fn plan(hub: &Hub, steps: &[Step], seed: u64) {
    for (number, step) in steps.iter().enumerate().filter(|(_, step)| step.fault.is_of_devices()) {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
        let every = step.every_s.map(millis);
        hub.plan(step.fault.clone(), millis(step.at_s), every, step.times, seed);
    }
}

/// Carries out one step of connections or calls, as often as it says.
pub(crate) async fn play(control: Control, step: Step) {
    let mut due = tokio::time::Instant::now() + Duration::from_millis(millis(step.at_s));
    let mut left = step.times;
    loop {
        tokio::time::sleep_until(due).await;
        if let Err(error) = control.order(&step.fault).await {
            tracing::warn!(%error, "a scenario's step did nothing");
        }
        left = left.map(|left| left.saturating_sub(1));
        match step.every_s {
            Some(every) if left != Some(0) => due += Duration::from_millis(millis(every).max(1)),
            Some(_) | None => return,
        }
    }
}
