//! The difference between a gateway's clock and the bridge's, estimated from the stream.
//!
//! The timestamps have whole seconds, so a single one gives the skew to a second, less the delay of
//! its arrival. Some are wrong: a delayed event, or a device whose timestamps are an hour ahead.
//! Therefore the estimate is a median. What was long ago does not count: the clock may have been
//! set since.

use std::collections::VecDeque;

use crate::ids::Moment;

/// The least time between two samples, in milliseconds: a burst of delayed events counts as one.
const SAMPLE_EVERY_MS: i64 = 1_000;
/// How long a sample is used, in milliseconds.
const SAMPLE_LIFE_MS: i64 = 1_200_000;
const SAMPLES_MAX: usize = 31;
/// Samples that are used for longer, so that one wrong sample is not the only one, and how long, in
/// milliseconds.
const SAMPLES_MIN: usize = 3;
const SAMPLE_LIFE_MAX_MS: i64 = 86_400_000;

#[derive(Debug, Default)]
pub struct Skew {
    /// When each was taken, and its timestamp minus that, in milliseconds.
    samples: VecDeque<(Moment, i64)>,
}

impl Skew {
    /// Takes a sample. A timestamp of 0 is one that is not set.
    pub fn sample(&mut self, timestamp: Moment, received_at: Moment) {
        if timestamp == Moment::from_millis(0) {
            return;
        }
        let samples = &mut self.samples;
        if samples.back().is_some_and(|(at, _)| received_at.since(*at) < SAMPLE_EVERY_MS) {
            return;
        }
        samples.push_back((received_at, timestamp.millis() - received_at.millis()));
        if samples.len() > SAMPLES_MAX {
            samples.pop_front();
        }
        self.expire(received_at);
    }

    /// Discards the samples that are too old by now.
    pub fn expire(&mut self, now: Moment) {
        while let Some((at, _)) = self.samples.front() {
            let is_spare = self.samples.len() > SAMPLES_MIN;
            let life = if is_spare { SAMPLE_LIFE_MS } else { SAMPLE_LIFE_MAX_MS };
            if now.since(*at) <= life {
                break;
            }
            self.samples.pop_front();
        }
    }

    /// The gateway's clock minus the bridge's, in milliseconds, to about half a second;
    /// `None` without a sample.
    pub fn estimate_ms(&self) -> Option<i64> {
        let mut skews: Vec<i64> = self.samples.iter().map(|(_, skew)| *skew).collect();
        skews.sort_unstable();
        // Of two, the one that is less far ahead.
        skews.get(skews.len().saturating_sub(1) / 2).map(|skew| skew + 500)
    }
}
