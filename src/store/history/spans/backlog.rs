//! The bounded queue of observations that wait to be written.

use std::collections::BTreeSet;

use super::Observation;

/// Observations that may wait.
const WAITING_MAX: usize = 500_000;

/// Observations in their order, as long as they are not too many.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    observations: Vec<Observation>,
    is_incomplete: bool,
}

impl Backlog {
    /// Adds these. When too many wait, only the newest of each device stays.
    pub(crate) fn extend(&mut self, observations: Vec<Observation>) {
        self.observations.extend(observations);
        if self.observations.len() > WAITING_MAX {
            self.is_incomplete = true;
            self.keep_newest();
        }
    }

    /// How many wait.
    pub(crate) const fn len(&self) -> usize {
        self.observations.len()
    }

    /// Takes all; also whether some are missing, so that the time counts as not observed.
    pub(crate) fn take(&mut self) -> (Vec<Observation>, bool) {
        let Self { observations, is_incomplete } = std::mem::take(self);
        (observations, is_incomplete)
    }

    fn keep_newest(&mut self) {
        let (mut seen, mut index) = (BTreeSet::new(), self.observations.len());
        self.observations.reverse();
        self.observations.retain(|observation| {
            index -= 1;
            seen.insert(match observation {
                Observation::Device { gateway, device } => {
                    (Some(gateway.clone()), Some(device.device_id), 0)
                }
                Observation::GatewayOnline { gateway, .. }
                | Observation::GatewayLost { gateway, .. } => (Some(gateway.clone()), None, 0),
                Observation::Gateways(_) | Observation::ClockSet { .. } => (None, None, index),
            })
        });
        self.observations.reverse();
    }
}
