//! How many requests may come in: a bucket that fills with time.
//!
//! May not read a clock.

use std::time::Duration;

use tokio::time::Instant;

/// Takes so many requests in such a time, all of them at once if need be.
#[derive(Clone, Debug)]
pub struct Bucket {
    count: f64,
    per: Duration,
    filled: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(count: u32, per: Duration, now: Instant) -> Self {
        Self { count: f64::from(count), per, filled: f64::from(count), at: now }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let grown = passed * self.count / self.per.as_secs_f64();
        self.filled = (self.filled + grown).min(self.count);
        let taken = self.filled >= 1.0;
        if taken {
            self.filled -= 1.0;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_takes_its_rate_and_no_more() {
        let now = Instant::now();
        let mut bucket = Bucket::new(20, Duration::from_secs(1), now);
        let taken = (0..10_000).filter(|_| bucket.take(now)).count();
        assert_eq!(taken, 20);
        assert!(bucket.take(now + Duration::from_millis(51)));
        assert!(!bucket.take(now + Duration::from_millis(52)));
    }
}
