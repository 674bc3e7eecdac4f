//! A scan of the retained messages: subscribes, publishes the bridge's own `info`, and has read
//! everything when that is received. At the beginning of a session only this `info` is published
//! until it is known that no other instance of the bridge is connected.

use std::time::Duration;

use tokio::time::Instant;

/// The time another instance has to answer this one's `info`.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// The deadline for the bridge's own `info`. A broker whose access list forbids that does
/// not keep the bridge from publishing.
const OWN_INFO_WAIT: Duration = Duration::from_secs(3);

/// How far a scan is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// No scan is under way.
    #[default]
    Idle,
    /// The subscription is sent.
    Subscribing,
    /// It is acknowledged. Retained messages precede live ones, the bridge's own `info`, too.
    Reading,
    /// All retained messages have been read, and another instance is waited for.
    Read,
}

/// The scan of this session.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    stage: Stage,
    filters: Vec<String>,
    /// When the check for another instance ends.
    check_until: Option<Instant>,
}

/// What follows from a step of the scan.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The bridge's `info` has to be published: its return marks the end.
    pub(crate) publish_info: bool,
    /// Filters that are not needed any more.
    pub(crate) unsubscribe: Vec<String>,
    /// No other instance is waited for any longer.
    pub(crate) check_passed: bool,
    /// Everything that is retained has been read.
    pub(crate) is_read: bool,
}

impl Scan {
    /// When there is something to do although nothing comes in.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.check_until
    }

    /// Whether another scan may start.
    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle) && self.check_until.is_none()
    }

    /// Starts the first scan of a session, which checks for another instance.
    pub(crate) fn start_session(&mut self, now: Instant, filters: Vec<String>) {
        self.start(filters);
        self.check_until = Some(now + OWN_INFO_WAIT);
    }

    /// Starts a scan: these filters are being subscribed.
    pub(crate) fn start(&mut self, filters: Vec<String>) {
        *self = Self { stage: Stage::Subscribing, filters, check_until: None };
    }

    /// The broker has acknowledged a subscription, and perhaps refused that of the own `info`.
    pub(crate) fn subscribed(
        &mut self,
        now: Instant,
        filters: &[String],
        info_refused: bool,
    ) -> Progress {
        if self.stage != Stage::Subscribing || self.filters != filters {
            return Progress::default();
        }
        if info_refused {
            // It will never be received: neither the end of the scan nor another instance can be
            // detected.
            self.stage = Stage::Idle;
            return self.end();
        }
        self.stage = Stage::Reading;
        if self.check_until.is_some() {
            self.check_until = Some(now + OWN_INFO_WAIT);
        }
        Progress { publish_info: true, ..Progress::default() }
    }

    /// The bridge's own `info` was received live, so all retained messages were received.
    /// `needs_check`: another instance may still answer; `own`: the filters that stay subscribed.
    pub(crate) fn own_info_received(
        &mut self,
        now: Instant,
        needs_check: bool,
        own: &[String],
    ) -> Progress {
        if self.stage != Stage::Reading {
            return Progress::default();
        }
        self.stage = Stage::Read;
        let mut unsubscribe = std::mem::take(&mut self.filters);
        unsubscribe.retain(|filter| !own.contains(filter));
        if self.check_until.is_some() && needs_check {
            self.check_until = Some(now + ANSWER_WAIT);
            return Progress { unsubscribe, ..Progress::default() };
        }
        Progress { unsubscribe, ..self.end() }
    }

    /// Ends what has taken too long.
    pub(crate) fn wake(&mut self, now: Instant) -> Progress {
        match self.check_until {
            Some(until) if until <= now => self.end(),
            _ => Progress::default(),
        }
    }

    /// No other instance is waited for any longer.
    fn end(&mut self) -> Progress {
        let check_passed = self.check_until.take().is_some();
        let is_read = self.stage == Stage::Read;
        if is_read {
            self.stage = Stage::Idle;
        }
        Progress { check_passed, is_read, ..Progress::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters() -> Vec<String> {
        vec!["gsdk/bridge/info".to_owned(), "gsdk/+/+/state".to_owned()]
    }

    #[test]
    fn a_session_waits_for_another_instance_once_all_is_read() {
        let (mut scan, now, own) = (Scan::default(), Instant::now(), filters()[..1].to_vec());
        scan.start_session(now, filters());
        assert_eq!(scan.subscribed(now, &own, false), Progress::default(), "of something else");
        assert!(scan.subscribed(now, &filters(), false).publish_info);
        let read = scan.own_info_received(now, true, &own);
        assert_eq!(read.unsubscribe, filters()[1..]);
        assert!(!read.check_passed && !read.is_read && !scan.is_idle());
        assert_eq!(scan.wake(now), Progress::default());
        let ended = scan.wake(now + ANSWER_WAIT);
        assert!(ended.check_passed && ended.is_read && scan.is_idle());
    }

    #[test]
    fn without_the_own_info_the_check_ends_and_nothing_counts_as_read() {
        let (mut scan, now) = (Scan::default(), Instant::now());
        scan.start_session(now, filters());
        let refused = scan.subscribed(now, &filters(), true);
        assert_eq!(refused, Progress { check_passed: true, ..Progress::default() });
        scan.start_session(now, filters());
        scan.subscribed(now, &filters(), false);
        let silent = scan.wake(now + OWN_INFO_WAIT);
        assert_eq!(silent, Progress { check_passed: true, ..Progress::default() });
        let late = scan.own_info_received(now, false, &[]);
        assert!(late.is_read && !late.check_passed, "it may come later");
    }
}
