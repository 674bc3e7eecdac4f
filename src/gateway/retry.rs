//! When to try again, and what to say of it.
//!
//! May not sleep nor connect: it only counts.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::ids::GatewayName;

use super::observation::LinkError;
use super::options::Timing;
use super::package::Package;

/// The pauses between attempts. There are two rows of them: while nobody listens at the address the
/// longest pause is short, since asking costs one packet and a gateway that restarts is to be back
/// within seconds; where something answered wrongly it is long. Each begins anew only after a link
/// that held: one that breaks soon after each success makes no storm.
pub(super) struct Retry {
    timing: Timing,
    absent: ExponentialBackoff,
    wrong: ExponentialBackoff,
}

impl Retry {
    pub(super) fn new(timing: Timing) -> Self {
        let row = |longest| {
            // Without a seed of its own the jitter of every process would be the same.
            let builder =
                ExponentialBuilder::new().with_jitter().with_jitter_seed(fastrand::u64(..));
            builder
                .with_min_delay(timing.retry_first)
                .with_max_delay(longest)
                .without_max_times()
                .build()
        };
        Self { timing, absent: row(timing.retry_absent_max), wrong: row(timing.retry_max) }
    }

    /// How long to wait now, after a link that held this long (not at all: zero).
    pub(super) fn pause(&mut self, absence: bool, held: Duration) -> Duration {
        if held >= self.timing.stable {
            *self = Self::new(self.timing);
        }
        let row = if absence { &mut self.absent } else { &mut self.wrong };
        row.next().unwrap_or(self.timing.retry_max)
    }
}

/// What the log was told since the last time a link stood. One line a distinct error: the same
/// again is counted, and the count told with the recovery.
#[derive(Debug, Default)]
pub(super) struct Told {
    errors: Vec<String>,
    repeats: u64,
}

/// More distinct errors than this between two links are not told.
const TOLD_LEN_MAX: usize = 16;

impl Told {
    /// Logs a failure, unless it was logged already.
    pub(super) fn failed(&mut self, gateway: &GatewayName, error: &LinkError) {
        if self.is_new(error) {
            tracing::warn!(%gateway, code = error.code, error = %error, "no link to the gateway");
        }
    }

    /// Logs a link that stands.
    pub(super) fn up(&mut self, gateway: &GatewayName, package: Package) {
        let Self { errors, repeats } = std::mem::take(self);
        if errors.is_empty() {
            tracing::info!(%gateway, %package, "linked to the gateway");
        } else {
            let failures = repeats + errors.len() as u64;
            tracing::info!(%gateway, %package, failures, "linked to the gateway again");
        }
    }

    /// Numbers in a text (a clock, seconds of silence) do not make another error of it.
    fn is_new(&mut self, error: &LinkError) -> bool {
        let text: String = error.message.chars().filter(|c| !c.is_ascii_digit()).collect();
        if self.errors.contains(&text) || self.errors.len() >= TOLD_LEN_MAX {
            self.repeats += 1;
            return false;
        }
        self.errors.push(text);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_ceiling_and_begin_anew_after_a_stable_link() {
        let timing = Timing::default();
        let mut retry = Retry::new(timing);
        let first = retry.pause(true, Duration::ZERO);
        assert!((timing.retry_first..=2 * timing.retry_first).contains(&first), "{first:?}");
        for _ in 0..20 {
            assert!(retry.pause(true, Duration::ZERO) <= 2 * timing.retry_absent_max);
            assert!(retry.pause(false, Duration::ZERO) <= 2 * timing.retry_max);
        }
        assert!(retry.pause(true, Duration::ZERO) >= timing.retry_absent_max);
        assert!(retry.pause(false, Duration::from_secs(59)) >= timing.retry_max);
        assert!(retry.pause(false, timing.stable) <= 2 * timing.retry_first);
    }

    #[test]
    fn the_same_error_is_told_once() {
        let mut told = Told::default();
        assert!(told.is_new(&LinkError::new("a", "silent for 15 s")));
        assert!(!told.is_new(&LinkError::new("a", "silent for 16 s")));
        assert!(told.is_new(&LinkError::new("a", "refused")));
        told.up(&"lobby".parse().unwrap(), Package::Gsdk);
        assert!(told.is_new(&LinkError::new("a", "refused")));
    }
}
