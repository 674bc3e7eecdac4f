//! Which failures of consecutive attempts are logged: each reason when it is new, and then rarely.

use std::time::Duration;

use tokio::time::Instant;

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
