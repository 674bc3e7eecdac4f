//! Messages that the broker has refused lately, for `/readyz` and the metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::mqtt::Refusal;

/// A refused message is sent again at least every 64 s, so one not refused again within this time
/// was accepted or given up.
const LASTS: Duration = Duration::from_secs(150);
/// Topics remembered at most. Further ones change nothing in what is reported.
const TOPICS_MAX: usize = 1_000;

/// Refused topics of one kind.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    topics: BTreeMap<String, (Refusal, Instant)>,
}

impl Refusals {
    /// The broker has refused a message on this topic.
    pub(super) fn add(&mut self, now: Instant, topic: String, refusal: Refusal) {
        if self.topics.len() < TOPICS_MAX || self.topics.contains_key(&topic) {
            self.topics.insert(topic, (refusal, now));
        }
    }

    /// Drops what was not refused again.
    pub(super) fn expire(&mut self, now: Instant) {
        self.topics.retain(|_, (_, at)| now.duration_since(*at) < LASTS);
    }

    /// When the next one expires.
    pub(super) fn due(&self) -> Option<Instant> {
        self.topics.values().map(|(_, at)| *at + LASTS).min()
    }

    /// Which topics were refused and why; `None` where none was.
    pub(super) fn summary(&self) -> Option<String> {
        let (topic, (refusal, _)) = self.topics.first_key_value()?;
        Some(match self.topics.len() {
            1 => format!("{topic} ({refusal})"),
            count => format!("{topic} ({refusal}) and {} more", count - 1),
        })
    }
}
