//! Home Assistant at the broker: its start, and the discovery that earlier processes published.
//!
//! Earlier discovery is read from the broker on each connection, so that a bridge with a new store
//! clears it, too, and unchanged discovery is not published again. If discovery is disabled, this
//! is done once.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::HomeAssistant;
use crate::mqtt::Message;

/// The payload with which Home Assistant announces its start.
const BIRTH: &[u8] = b"online";
/// The longest delay before discovery is published again: not all bridges at one moment.
const JITTER_MS: u64 = 5_000;

/// What is known of Home Assistant.
#[derive(Debug)]
pub(crate) struct HomeAssistantWatch {
    is_enabled: bool,
    status_topic: String,
    /// Topics found in this scan that are to be cleared.
    stale: usize,
    /// A broker sends only so many retained messages at once: once these are cleared, others may
    /// follow.
    scan_again: bool,
    /// Nothing is left of earlier runs.
    is_clean: bool,
    publish_at: Option<Instant>,
}

impl HomeAssistantWatch {
    pub(crate) fn new(config: &HomeAssistant) -> Self {
        Self {
            is_enabled: config.enabled,
            status_topic: config.status_topic.clone(),
            stale: 0,
            scan_again: false,
            is_clean: false,
            publish_at: None,
        }
    }

    /// Whether discovery is published. Where it is not, a refused subscription is no trouble.
    pub(crate) const fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Whether a scan has to read discovery.
    pub(crate) const fn wants_scan(&self) -> bool {
        self.is_enabled || !self.is_clean
    }

    /// A session begins; returns the topic of Home Assistant's state, where it is of interest.
    pub(crate) fn connected(&mut self) -> Option<&str> {
        (self.scan_again, self.stale) = (false, 0);
        self.is_enabled.then_some(&self.status_topic)
    }

    /// Takes note of a message, if it announces that Home Assistant has started.
    pub(crate) fn received(&mut self, now: Instant, message: &Message) {
        let is_live = !message.retain;
        if is_live && message.topic == self.status_topic && message.payload == BIRTH {
            let jitter = Duration::from_millis(fastrand::u64(0..JITTER_MS));
            self.publish_at.get_or_insert(now + jitter);
        }
    }

    /// Discovery of an earlier run was found.
    pub(crate) const fn stale_found(&mut self) {
        self.stale += 1;
    }

    /// All retained messages have been read.
    pub(crate) fn read(&mut self) {
        let stale = std::mem::take(&mut self.stale);
        (self.scan_again, self.is_clean) = (stale > 0, stale == 0);
        if stale > 0 {
            tracing::info!(count = stale, "clearing stale Home Assistant discovery");
        }
    }

    /// When discovery is to be published again.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.publish_at
    }

    /// Whether discovery and states are to be published again now.
    pub(crate) fn wake(&mut self, now: Instant) -> bool {
        let is_due = self.publish_at.take_if(|at| *at <= now).is_some();
        if is_due {
            tracing::info!("Home Assistant has started: publishing discovery and states again");
        }
        is_due
    }

    /// Whether another scan is to be made, now that `is_idle`: nothing is being cleared.
    pub(crate) const fn take_scan_again(&mut self, is_idle: bool) -> bool {
        let again = self.scan_again && is_idle;
        self.scan_again &= !again;
        again
    }
}
