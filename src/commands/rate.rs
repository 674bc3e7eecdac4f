//! A limit on the rate of requests: a token bucket.

use std::time::Duration;

use tokio::time::Instant;

/// Allows `count` requests in `per`, all at once if need be.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    count: f64,
    per: Duration,
    tokens: f64,
    updated: Instant,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(count: u32, per: Duration, now: Instant) -> Self {
        Self { count: f64::from(count), per, tokens: f64::from(count), updated: now }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = now;
        let refilled = self.tokens + elapsed * self.count / self.per.as_secs_f64();
        self.tokens = refilled.min(self.count);
        let is_taken = self.tokens >= 1.0;
        if is_taken {
            self.tokens -= 1.0;
        }
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_allows_its_rate_and_no_more() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(20, Duration::from_secs(1), now);
        let taken = (0..10_000).filter(|_| bucket.take(now)).count();
        assert_eq!(taken, 20);
        assert!(bucket.take(now + Duration::from_millis(51)));
        assert!(!bucket.take(now + Duration::from_millis(52)));
    }
}
