//! Storms: many status changes in a given pattern, at a given rate or as fast as possible.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which devices a storm flips, in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// All in turn: they lose their connections one after the other, then they reconnect, and so
    /// on.
    #[default]
    #[serde(rename = "building")]
    InTurn,
    /// One in twenty (at least one), repeatedly.
    Flapping,
    /// Chosen by the seed.
    Random,
    /// No status changes: each device's status is reported again, in turn.
    Repeat,
}

/// Many status changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// How many changes to report.
    pub changes: u64,
    /// How many a second; as fast as possible if absent.
    #[serde(default)]
    pub per_second: Option<u32>,
    /// Which devices.
    #[serde(default)]
    pub pattern: Pattern,
    /// For the pattern `random`.
    #[serde(default)]
    pub seed: u64,
}

impl Storm {
    /// This many changes, as fast as possible, of all devices in turn.
    #[must_use]
    pub const fn of(changes: u64) -> Self {
        Self { changes, per_second: None, pattern: Pattern::InTurn, seed: 0 }
    }
}

/// The devices of a storm in the order of its pattern, each with the index of its gateway.
pub(crate) struct Sequence {
    devices: Vec<(usize, u32)>,
    pattern: Pattern,
    next: usize,
    rng: fastrand::Rng,
}

impl Sequence {
    pub(crate) fn new(storm: Storm, devices: Vec<(usize, u32)>) -> Self {
        let rng = fastrand::Rng::with_seed(storm.seed);
        Self { devices, pattern: storm.pattern, next: 0, rng }
    }
}

impl Iterator for Sequence {
    type Item = (usize, u32);

    fn next(&mut self) -> Option<Self::Item> {
        let count = match self.pattern {
            Pattern::Flapping => self.devices.len().div_ceil(20),
            Pattern::InTurn | Pattern::Random | Pattern::Repeat => self.devices.len(),
        };
        let index = match self.pattern {
            Pattern::Random => self.rng.usize(..count),
            Pattern::InTurn | Pattern::Flapping | Pattern::Repeat => self.next % count,
        };
        self.next += 1;
        self.devices.get(index).copied()
    }
}
