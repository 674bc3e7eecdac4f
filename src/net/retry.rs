//! Attempts to connect that are repeated: the delay before each, one policy for gateways and
//! brokers, and which failures are logged: each reason when it is new, and then rarely.

use std::time::Duration;

use tokio::time::Instant;

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

/// The time after which a repeated failure is logged again.
const REMIND_AFTER: Duration = Duration::from_secs(600);
/// Reasons that are distinguished; further ones count as the last of them.
const REASONS_MAX: usize = 16;

/// The failures since the last reset.
#[derive(Debug, Default)]
pub(crate) struct FailureLog {
    reasons: Vec<RepeatedReason>,
    failures: u64,
}

#[derive(Debug)]
struct RepeatedReason {
    text: String,
    times: u64,
    logged_at: Instant,
}

/// A failure that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CountedFailure {
    /// How often its reason has occurred.
    pub(crate) times: u64,
    /// Whether it is to be logged now.
    pub(crate) is_due: bool,
}

impl FailureLog {
    /// Counts a failure. Reasons that differ only in numbers, such as seconds of silence, are the
    /// same.
    pub(crate) fn count(&mut self, reason: &str) -> CountedFailure {
        self.failures += 1;
        let now = Instant::now();
        let text: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        let is_full = self.reasons.len() >= REASONS_MAX;
        let known = self.reasons.iter().position(|known| known.text == text);
        let known = known.or(is_full.then_some(REASONS_MAX - 1));
        if let Some(known) = known.and_then(|at| self.reasons.get_mut(at)) {
            known.times += 1;
            let is_due = now.duration_since(known.logged_at) >= REMIND_AFTER;
            if is_due {
                known.logged_at = now;
            }
            return CountedFailure { times: known.times, is_due };
        }
        self.reasons.push(RepeatedReason { text, times: 1, logged_at: now });
        CountedFailure { times: 1, is_due: true }
    }

    pub(crate) const fn failures(&self) -> u64 {
        self.failures
    }

    /// Makes every reason new again; returns how many failures there were.
    pub(crate) fn reset(&mut self) -> u64 {
        std::mem::take(self).failures
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

    fn count(log: &mut FailureLog, reason: &str) -> (u64, bool) {
        let CountedFailure { times, is_due } = log.count(reason);
        (times, is_due)
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_reason_is_logged_once_in_ten_minutes_until_a_reset() {
        let mut log = FailureLog::default();
        assert_eq!(count(&mut log, "silent for 15 s"), (1, true));
        assert_eq!(count(&mut log, "silent for 16 s"), (2, false));
        assert_eq!(count(&mut log, "refused"), (1, true));
        tokio::time::advance(REMIND_AFTER).await;
        assert_eq!(count(&mut log, "refused"), (2, true));
        assert_eq!(count(&mut log, "refused"), (3, false));
        assert_eq!(log.reset(), 5);
        assert_eq!(count(&mut log, "refused"), (1, true));
    }

    #[tokio::test(start_paused = true)]
    async fn reasons_that_always_differ_are_logged_a_few_times() {
        let mut log = FailureLog::default();
        let is_due = |letters| count(&mut log, &"x".repeat(letters)).1;
        assert_eq!((1..1_000).map(is_due).filter(|due| *due).count(), REASONS_MAX);
    }
}
