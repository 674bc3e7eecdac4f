//! Runs a storm, and counts its changes exactly for each subscription.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::gateway::SimulatedGateway;
use super::parameters::{Pattern, Storm};
use super::queue::SubscriptionReport;
use super::world::World;

/// Changes reported under one lock; between two batches other work gets the lock.
const BATCH_SIZE: u64 = 256;

/// The result of a storm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StormReport {
    /// Reported changes: the requested number, unless devices were lost meanwhile.
    pub changes: u64,
    pub duration_s: f64,
    /// Each subscription's counts at the end, since the beginning.
    pub subscriptions: Vec<SubscriptionReport>,
}

/// A storm needs managed devices that are connected or available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway manages no devices: connect some, or start it with all managed")]
pub struct NothingManaged;

/// Reports the changes. At the end, without a report, the devices whose last status was
/// `DISCONNECTED` lose their connection: asynchronous ones wait for their next try, others
/// leave the list. An even number of changes a device leaves all as it was.
pub(crate) async fn run(world: &World, storm: Storm) -> Result<StormReport, NothingManaged> {
    let before = world.subscriptions();
    let started = Instant::now();
    let ids = world.with_all(|gateway, _| gateway.flippable()).into_iter().enumerate();
    let mut devices: Vec<(usize, u32)> =
        ids.flat_map(|(index, ids)| ids.into_iter().map(move |id| (index, id))).collect();
    if devices.is_empty() {
        return Err(NothingManaged);
    }
    if storm.pattern == Pattern::Flapping {
        devices.truncate(devices.len().div_ceil(20));
    }
    let changes = report_changes(world, storm, &devices, started).await;
    world.apply(|gateways, now, _| {
        for (index, id) in devices {
            if let Some(gateway) = gateways.get_mut(index) {
                gateway.finish_storm(now, id);
            }
        }
    });
    let subscriptions = since(&before, world.subscriptions());
    Ok(StormReport { changes, duration_s: started.elapsed().as_secs_f64(), subscriptions })
}

async fn report_changes(
    world: &World,
    storm: Storm,
    devices: &[(usize, u32)],
    started: Instant,
) -> u64 {
    let mut rng = fastrand::Rng::with_seed(storm.seed);
    let mut in_turn = devices.iter().cycle();
    let mut next = || match storm.pattern {
        Pattern::Random => rng.choice(devices),
        Pattern::InTurn | Pattern::Flapping | Pattern::Repeat => in_turn.next(),
    };
    let change = match storm.pattern {
        Pattern::Repeat => SimulatedGateway::repeat_status,
        Pattern::InTurn | Pattern::Flapping | Pattern::Random => SimulatedGateway::flip,
    };
    let (mut planned, mut reported) = (0, 0);
    while planned < storm.changes {
        let mut count = BATCH_SIZE.min(storm.changes - planned);
        if let Some(rate) = storm.per_second {
            let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let allowed = elapsed_ms.saturating_mul(rate.get().into()) / 1_000 + 1;
            count = count.min(allowed.saturating_sub(planned));
            if count == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        }
        reported += world.apply(|gateways, now, _| {
            let changed = |&&(index, id): &&(usize, u32)| {
                gateways.get_mut(index).is_some_and(|gateway| change(gateway, now, id))
            };
            (0..count).filter_map(|_| next()).filter(changed).count()
        }) as u64;
        planned += count;
        tokio::task::yield_now().await;
    }
    reported
}

/// The counts that grew since `before`.
fn since(
    before: &[SubscriptionReport],
    mut now: Vec<SubscriptionReport>,
) -> Vec<SubscriptionReport> {
    for report in &mut now {
        if let Some(old) = before.iter().find(|old| old.id == report.id) {
            report.offered -= old.offered;
            report.discarded -= old.discarded;
            report.taken -= old.taken;
        }
    }
    now
}
