//! Storms: many status changes in a given pattern, at a given rate or as fast as possible.
//!
//! May not lose count: the report says exactly what was told, and for each subscription what was
//! discarded. A storm flips what the gateway says of its managed devices, list and streams alike;
//! at its end the connections are made what was said last.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::control::Control;
use super::gateway::{Gateway, Millis};
use super::queue::SubscriptionReport;

/// Changes told under one lock; between two such lots others get their turn.
const LOT: u64 = 256;

/// Which devices a storm flips, in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// All in turn: the building loses its connections one after the other, then they come back,
    /// and so on.
    #[default]
    Building,
    /// One in twenty (at least one), again and again.
    Flapping,
    /// Drawn by the seed.
    Random,
    /// Nothing flips: each device's status is told again, in turn.
    Repeat,
}

/// A storm to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// How many changes to tell.
    pub changes: u64,
    /// How many a second; as fast as possible if absent.
    #[serde(default)]
    pub per_second: Option<u32>,
    /// Which devices.
    #[serde(default)]
    pub pattern: Pattern,
    /// For `Random`.
    #[serde(default)]
    pub seed: u64,
}

impl Storm {
    /// This many changes, as fast as possible, through the whole building.
    #[must_use]
    pub const fn of(changes: u64) -> Self {
        Self { changes, per_second: None, pattern: Pattern::Building, seed: 0 }
    }
}

/// What a storm has done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StormReport {
    /// Changes told: as many as ordered, unless devices were lost meanwhile.
    pub changes: u64,
    /// How long it took.
    pub duration_s: f64,
    /// Each subscription's counts at the storm's end, since its beginning.
    pub subscriptions: Vec<SubscriptionReport>,
}

/// A storm needs devices that the gateway manages and that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway manages no devices: connect some, or start it with all managed")]
pub struct NothingManaged;

/// The devices of a storm by gateway, and whose turn it is.
struct Plan {
    devices: Vec<(usize, u32)>,
    pattern: Pattern,
    next: usize,
    rng: fastrand::Rng,
}

impl Plan {
    fn next(&mut self) -> (usize, u32) {
        let count = match self.pattern {
            Pattern::Flapping => self.devices.len().div_ceil(20),
            Pattern::Building | Pattern::Random | Pattern::Repeat => self.devices.len(),
        };
        let place = match self.pattern {
            Pattern::Random => self.rng.usize(..count),
            Pattern::Building | Pattern::Flapping | Pattern::Repeat => self.next % count,
        };
        self.next += 1;
        self.devices[place]
    }

    /// The next up to `most` devices that belong to one gateway.
    fn run(&mut self, most: u64, carried: &mut Option<(usize, u32)>) -> (usize, Vec<u32>) {
        let (gateway, first) = carried.take().unwrap_or_else(|| self.next());
        let mut ids = vec![first];
        while (ids.len() as u64) < most {
            let (other, id) = self.next();
            if other != gateway {
                *carried = Some((other, id));
                break;
            }
            ids.push(id);
        }
        (gateway, ids)
    }
}

impl Control {
    /// Raises a storm and waits for its end.
    ///
    /// Devices whose last word was `DISCONNECTED` are then treated as such without another word:
    /// asynchronous ones wait for their next try, others leave the list. An even number of
    /// changes a device leaves all as it was.
    ///
    /// # Errors
    ///
    /// When the gateway manages no devices.
    pub async fn storm(&self, storm: Storm) -> Result<StormReport, NothingManaged> {
        let before = self.subscriptions();
        let begun = Instant::now();
        let ids = self.hub().with_all(|gateway, _| gateway.flippable());
        let devices: Vec<(usize, u32)> = ids
            .into_iter()
            .enumerate()
            .flat_map(|(place, ids)| ids.into_iter().map(move |id| (place, id)))
            .collect();
        if devices.is_empty() {
            return Err(NothingManaged);
        }
        let rng = fastrand::Rng::with_seed(storm.seed);
        let mut plan = Plan { devices, pattern: storm.pattern, next: 0, rng };
        let changes = self.blow(storm, &mut plan, begun).await;
        for place in 0..self.hub().gateways_count() {
            let ids: Vec<u32> =
                plan.devices.iter().filter(|one| one.0 == place).map(|one| one.1).collect();
            self.hub().with(place, |gateway, now| gateway.settle(now, &ids));
        }
        let subscriptions = since(&before, self.subscriptions());
        Ok(StormReport { changes, duration_s: begun.elapsed().as_secs_f64(), subscriptions })
    }

    async fn blow(&self, storm: Storm, plan: &mut Plan, begun: Instant) -> u64 {
        let (mut planned, mut told, mut carried) = (0, 0, None);
        while planned < storm.changes {
            let mut lot = LOT.min(storm.changes - planned);
            if let Some(rate) = storm.per_second {
                let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                let allowed = elapsed_ms.saturating_mul(rate.into()) / 1_000 + 1;
                lot = lot.min(allowed.saturating_sub(planned));
                if lot == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
            }
            let (place, ids) = plan.run(lot, &mut carried);
            let repeat = storm.pattern == Pattern::Repeat;
            let tell = |gateway: &mut Gateway, now: Millis| {
                let flip = |id: &&u32| {
                    if repeat { gateway.repeat_status(now, **id) } else { gateway.flip(now, **id) }
                };
                ids.iter().filter(flip).count() as u64
            };
            told += self.hub().with(place, tell).unwrap_or(0);
            planned += ids.len() as u64;
            tokio::task::yield_now().await;
        }
        told
    }
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
