//! The delay before a peer is dialed again: one policy for gateways and brokers.

use std::time::Duration;

/// The waits between attempts. Each is a random part, at least half, of a ceiling that doubles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// The first ceiling.
    pub first: Duration,
    /// The last ceiling while asking again costs the peer nothing: nothing answers at its address,
    /// or a file of ours is missing. A peer that starts again is to be back within seconds.
    pub absent_max: Duration,
    /// The last ceiling otherwise: a peer that answers and refuses does work for each attempt.
    pub max: Duration,
    /// A connection that lasted this long makes the waits short again. One that breaks soon after
    /// each success makes no storm.
    pub stable: Duration,
}

impl Default for BackoffPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            absent_max: Duration::from_secs(4),
            max: Duration::from_secs(30),
            stable: Duration::from_secs(60),
        }
    }
}

/// The waits from one stable connection to the next.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: BackoffPolicy,
    /// The next ceilings.
    absent: Duration,
    refused: Duration,
}

impl Backoff {
    pub(crate) fn new(policy: BackoffPolicy) -> Self {
        let first = |max| policy.first.min(max);
        Self { policy, absent: first(policy.absent_max), refused: first(policy.max) }
    }

    /// The wait after a failure. `absent`: asking again costs the peer nothing; `lasted`: how long
    /// the connection stood, if there was one.
    pub(crate) fn next(&mut self, absent: bool, lasted: Option<Duration>) -> Duration {
        if lasted.is_some_and(|lasted| lasted >= self.policy.stable) {
            *self = Self::new(self.policy);
        }
        let (next, max) = match absent {
            true => (&mut self.absent, self.policy.absent_max),
            false => (&mut self.refused, self.policy.max),
        };
        let ceiling = *next;
        *next = ceiling.saturating_mul(2).min(max);
        ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_grow_to_the_ceiling_and_never_beyond() {
        for (absent, max) in [(true, secs(4)), (false, secs(30))] {
            let (mut backoff, mut ceiling) = (Backoff::new(BackoffPolicy::default()), secs(1));
            for _ in 0..50 {
                let wait = backoff.next(absent, None);
                assert!(wait >= ceiling / 2 && wait <= ceiling, "{wait:?} of {ceiling:?}");
                ceiling = (ceiling * 2).min(max);
            }
        }
    }

    #[test]
    fn only_a_connection_that_lasted_a_minute_makes_the_waits_short_again() {
        let mut backoff = Backoff::new(BackoffPolicy::default());
        for _ in 0..10 {
            backoff.next(false, None);
        }
        assert!(backoff.next(false, Some(secs(59))) >= secs(15));
        assert!(backoff.next(false, Some(secs(60))) <= secs(1));
    }
}
