//! Reads what the broker retains, at the beginning of each session and again on request. At the
//! beginning nothing but the bridge's `info` is published until it is known that no other instance
//! of the bridge is there.

use std::time::Duration;

use tokio::time::Instant;

use super::Bridge;
use super::duplicates::ANSWER_WAIT;
use crate::mqtt::{Refusal, Retained};

/// For the bridge's own `info` to come back. A broker whose access list forbids that does not keep
/// the bridge from publishing.
const OWN_INFO_WAIT: Duration = Duration::from_secs(3);

/// How far a scan is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// No scan is under way.
    #[default]
    Idle,
    /// The subscription is sent.
    Subscribing,
    /// It is acknowledged. Retained messages come before live ones, the bridge's own `info` too.
    Reading,
    /// All retained messages have been read, and another instance is waited for.
    Read,
}

/// The scan of this session.
#[derive(Debug, Default)]
pub(super) struct RetainedScan {
    stage: Stage,
    filters: Vec<String>,
    /// When the check for another instance ends.
    check_until: Option<Instant>,
}

impl RetainedScan {
    /// When there is something to do although nothing comes in.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.check_until
    }

    /// Whether another scan may start.
    pub(super) const fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle) && self.check_until.is_none()
    }
}

impl Bridge {
    /// A new session: subscribes to the bridge's own topics and reads what is retained.
    pub(super) fn scan_retained(&mut self) {
        let check_until = Some(Instant::now() + OWN_INFO_WAIT);
        self.retained_scan = RetainedScan { check_until, ..RetainedScan::default() };
        let topics = self.publisher.topics();
        let own = topics.own().into_iter();
        let mut filters: Vec<_> = own.map(|topic| (topic, Retained::Sent)).collect();
        if self.stale_topics.is_wanted() {
            let states = topics.retained_filters();
            filters.extend(states.into_iter().map(|filter| (filter, Retained::Many)));
        }
        if self.discovery.is_wanted() {
            filters.push((self.publisher.discovery_filter(), Retained::Many));
        }
        self.scan(filters);
    }

    /// Reads what is retained on these topics.
    pub(super) fn scan(&mut self, filters: Vec<(String, Retained)>) {
        self.retained_scan.filters = filters.iter().map(|(filter, _)| filter.clone()).collect();
        self.retained_scan.stage = Stage::Subscribing;
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.subscribe(filters)
        {
            tracing::warn!("{error}");
        }
    }

    /// The broker has acknowledged a subscription.
    pub(super) fn scan_subscribed(&mut self, filters: &[String], refused: &[(String, Refusal)]) {
        let scan = &mut self.retained_scan;
        if scan.stage != Stage::Subscribing || scan.filters != filters {
            return;
        }
        let info = self.publisher.topics().bridge_info();
        if refused.iter().any(|(filter, _)| *filter == info) {
            // It will never come back: neither the end of the scan nor another instance shows.
            scan.stage = Stage::Idle;
            return self.check_is_over();
        }
        scan.stage = Stage::Reading;
        if scan.check_until.is_some() {
            scan.check_until = Some(Instant::now() + OWN_INFO_WAIT);
        }
        self.publisher.bridge_info_again();
    }

    /// The bridge's own `info` has come back live, so all retained messages have come.
    pub(super) fn own_info_received(&mut self) {
        if self.retained_scan.stage != Stage::Reading {
            return;
        }
        self.retained_scan.stage = Stage::Read;
        let own = self.publisher.topics().own();
        let mut filters = std::mem::take(&mut self.retained_scan.filters);
        filters.retain(|filter| !own.contains(filter));
        if let Some(connection) = &mut self.connection
            && !filters.is_empty()
        {
            connection.unsubscribe(filters);
        }
        if self.retained_scan.check_until.is_some() && self.duplicates.needs_check() {
            self.retained_scan.check_until = Some(Instant::now() + ANSWER_WAIT);
        } else {
            self.check_is_over();
        }
    }

    /// No other instance is waited for any longer.
    fn check_is_over(&mut self) {
        if self.retained_scan.check_until.take().is_some() {
            self.duplicates.passed();
            self.publisher.looked(&self.fleet);
        }
        if self.retained_scan.stage == Stage::Read {
            self.retained_scan.stage = Stage::Idle;
            self.stale_topics_read();
            self.discovery_is_read();
            self.forget_scanned();
        }
    }

    /// Does what is due by now.
    pub(super) fn wake_scan(&mut self, now: Instant) {
        if self.retained_scan.check_until.is_some_and(|until| until <= now) {
            self.check_is_over();
        }
    }
}
