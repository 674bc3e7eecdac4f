//! Detects another instance of this bridge: another process that publishes under its name.
//!
//! The decision depends on received messages only and never on a comparison of clocks.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

/// The time another instance has to answer this one's `info`.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// The least time between two answers to an `info` of another publisher. Each of several newcomers
/// is answered within `ANSWER_WAIT`, and two bridges that are both online, which answer each other
/// without end, do not flood the broker.
const ANSWER_INTERVAL: Duration = Duration::from_secs(1);
/// A session that lasted this long is settled: the process is established. Stale topics may be
/// cleared once no other instance has been seen for this long.
const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// The time until a newcomer tries again, doubled at each further attempt. By then the process that
/// stayed is established, unless its broker was slow to accept it again.
const RETRY_FIRST: Duration = Duration::from_secs(SETTLED_AFTER.as_secs() + 5);
const RETRY_MAX: Duration = Duration::from_secs(15 * 60);
/// The share of a wait by which it is lengthened at random: two newcomers do not meet again.
const JITTER: f64 = 0.15;
/// An instance counts as present for this long after a sign of it: until after its next attempt.
const PRESENT_FOR: Duration = Duration::from_secs(20 * 60);
/// After this many takeovers in a row an established process becomes a newcomer. Two established
/// ones would take over from each other without end.
const TAKEOVERS_MAX: u32 = 5;
/// A takeover that the broker does not name is assumed at the second sign: a broker that was
/// killed may remember an earlier `info`.
const SILENT_TAKEOVERS_BELIEVED: u32 = 2;

/// The publisher of an `info`.
#[derive(Debug, Deserialize)]
struct InfoIdentity {
    instance_id: String,
    /// `None` of a build that does not say it.
    established: Option<bool>,
    chain: Option<String>,
}

/// What to do about an `info` on the bridge's own topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InfoAction {
    /// It is this instance's own, published on this session.
    Own,
    /// Nothing: its publisher may be gone, or [`DuplicateDetector::take_answer`] answers it.
    Ignore,
    /// Another instance is alive and has precedence: close the session.
    StepBack,
}

/// What is known about other instances.
#[derive(Debug)]
pub(crate) struct DuplicateDetector {
    instance_id: String,
    /// Whether this process began a chain without a sign of an earlier one, and no check has been
    /// passed since.
    is_new_chain: bool,
    /// The chain of the retained `info` of another instance.
    retained_chain: Option<String>,
    /// A check has been passed in this process, with the own `info` received.
    is_checked: bool,
    /// A session of this process has settled.
    is_established: bool,
    /// This instance's `info` has been at the broker, so another one there was published later.
    is_published: bool,
    /// Takeovers since a session last settled.
    takeovers: u32,
    /// Attempts in a row that ended because of another instance.
    step_backs: u32,
    session: SessionFindings,
    /// The last detected instance, and when.
    other: Option<(String, Instant)>,
}

/// What is known on this session.
#[derive(Debug, Default)]
struct SessionFindings {
    connected_at: Option<Instant>,
    check: DuplicateCheck,
    is_other_retained: bool,
    /// When stale topics may be cleared, until they may.
    clear_at: Option<Instant>,
    /// When the `info` of another publisher was last answered, and when it is answered next.
    answered_at: Option<Instant>,
    answer_at: Option<Instant>,
}

/// The check for another instance. Until it has ended, nothing but the own `info` is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DuplicateCheck {
    /// The own `info` is awaited, and before it what is retained.
    Reading,
    /// The own `info` cannot be read, and so no answer.
    Unreadable,
    /// The answer of another instance is awaited until this time.
    Waiting(Instant),
    #[default]
    Ended,
}

impl DuplicateDetector {
    pub(crate) fn new(instance_id: String) -> Self {
        Self {
            instance_id,
            is_new_chain: false,
            retained_chain: None,
            is_checked: false,
            is_established: false,
            is_published: false,
            takeovers: 0,
            step_backs: 0,
            session: SessionFindings::default(),
            other: None,
        }
    }

    /// Whether a session of this process has settled: after a takeover it comes back at once.
    pub(crate) const fn is_established(&self) -> bool {
        self.is_established
    }

    /// The process began a chain, and `state_dir` had no sign of an earlier one.
    pub(crate) const fn set_new_chain(&mut self) {
        self.is_new_chain = true;
    }

    /// The chain that ended without a report, as this process began one, once no other instance is
    /// alive that may continue it.
    pub(crate) fn take_ended_chain(&mut self) -> Option<String> {
        let is_due = self.is_checked && std::mem::take(&mut self.is_new_chain);
        self.retained_chain.take_if(|_| is_due)
    }

    /// A session begins.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.session = SessionFindings {
            connected_at: Some(now),
            check: DuplicateCheck::Reading,
            clear_at: Some(now + SETTLED_AFTER),
            ..SessionFindings::default()
        };
    }

    /// The own `info` was received, and before it everything that is retained.
    pub(crate) fn retained_read(&mut self, now: Instant) {
        if self.session.check == DuplicateCheck::Reading {
            let may_be_answered = !self.is_checked || self.session.is_other_retained;
            let until = if may_be_answered { now + ANSWER_WAIT } else { now };
            self.session.check = DuplicateCheck::Waiting(until);
        }
    }

    /// The own `info` was not received: a broker whose access list forbids that does not keep the
    /// bridge from publishing.
    pub(crate) fn set_unreadable(&mut self) {
        if self.session.check == DuplicateCheck::Reading {
            self.session.check = DuplicateCheck::Unreadable;
        }
    }

    /// Whether the check has ended just now, without another instance.
    pub(crate) fn take_passed(&mut self, now: Instant) -> bool {
        match self.session.check {
            DuplicateCheck::Waiting(until) if until <= now => self.is_checked = true,
            DuplicateCheck::Unreadable => {}
            _ => return false,
        }
        self.session.check = DuplicateCheck::Ended;
        true
    }

    /// An `info` was received, `retained` from before or live.
    pub(crate) fn received(&mut self, now: Instant, retained: bool, info: &[u8]) -> InfoAction {
        let mut publisher: Option<InfoIdentity> = serde_json::from_slice(info).ok();
        if publisher.as_ref().is_some_and(|it| it.instance_id == self.instance_id) {
            self.is_published = true;
            return if retained { InfoAction::Ignore } else { InfoAction::Own };
        }
        if retained {
            self.retained_chain = publisher.as_mut().and_then(|it| it.chain.take());
        }
        match publisher {
            Some(other) if retained => self.other_retained(now, other),
            None if retained => InfoAction::Ignore,
            publisher => self.other_published(now, publisher.map(|it| it.instance_id)),
        }
    }

    fn other_retained(&mut self, now: Instant, other: InfoIdentity) -> InfoAction {
        self.session.is_other_retained = true;
        if !self.is_published {
            return InfoAction::Ignore;
        }
        // It replaced this instance's info: its publisher has been here in between.
        self.is_published = false;
        self.taken_over();
        if self.takeovers < SILENT_TAKEOVERS_BELIEVED {
            return InfoAction::Ignore;
        }
        // Of two newcomers one stays.
        let gives_way = other.established.unwrap_or(true) || self.instance_id > other.instance_id;
        self.detected(now, other.instance_id);
        if gives_way && !self.is_established { InfoAction::StepBack } else { InfoAction::Ignore }
    }

    /// The publisher is `None` if it is no bridge.
    fn other_published(&mut self, now: Instant, publisher: Option<String>) -> InfoAction {
        if let Some(instance_id) = &publisher {
            self.detected(now, instance_id.clone());
            if self.session.check != DuplicateCheck::Ended
                || !(self.is_checked || self.is_established)
            {
                return InfoAction::StepBack;
            }
            if let Some(at) = &mut self.session.clear_at {
                *at = now + SETTLED_AFTER;
            }
        }
        let earliest = self.session.answered_at.map(|at| at + ANSWER_INTERVAL);
        self.session.answer_at = earliest.max(Some(now));
        InfoAction::Ignore
    }

    /// Whether the own `info` is to be published now, as the answer to another one; true once.
    pub(crate) fn take_answer(&mut self, now: Instant) -> bool {
        let is_due = self.session.answer_at.take_if(|at| *at <= now).is_some();
        if is_due {
            self.session.answered_at = Some(now);
        }
        is_due
    }

    fn detected(&mut self, now: Instant, instance_id: String) {
        self.other = Some((format!("instance {instance_id}"), now));
    }

    fn taken_over(&mut self) {
        self.takeovers += 1;
        if self.takeovers >= TAKEOVERS_MAX {
            self.is_established = false;
        }
    }

    /// The session has ended, `taken_over` by another client with the same client ID. Returns how
    /// long to wait where this process gives way; otherwise the session connects again by itself.
    pub(crate) fn disconnected(&mut self, now: Instant, taken_over: bool) -> Option<Duration> {
        self.settle(now);
        let connected_at = std::mem::take(&mut self.session).connected_at?;
        if !taken_over {
            return None;
        }
        self.is_published = false;
        self.other = Some(("a client with the same client ID".to_owned(), now));
        if connected_at + SETTLED_AFTER <= now {
            return None;
        }
        self.taken_over();
        (!self.is_established).then(|| self.step_back())
    }

    /// This process gives way; returns how long.
    pub(crate) fn step_back(&mut self) -> Duration {
        self.session = SessionFindings::default();
        let wait = RETRY_FIRST.saturating_mul(1 << self.step_backs.min(8)).min(RETRY_MAX);
        self.step_backs += 1;
        wait.mul_f64(1.0 + JITTER * fastrand::f64())
    }

    /// Establishes the process once its session has settled. Returns whether stale topics may be
    /// cleared from now on; true once.
    pub(crate) fn settle(&mut self, now: Instant) -> bool {
        if self.session.connected_at.is_some_and(|at| at + SETTLED_AFTER <= now) {
            self.is_established = true;
            (self.takeovers, self.step_backs) = (0, 0);
        }
        self.session.clear_at.take_if(|at| *at <= now).is_some()
    }

    /// When the check ends, another instance is answered, or stale topics may be cleared.
    pub(crate) fn due(&self) -> Option<Instant> {
        let SessionFindings { check, answer_at, clear_at, .. } = &self.session;
        let waits_until = match check {
            DuplicateCheck::Waiting(until) => Some(*until),
            _ => None,
        };
        [waits_until, *answer_at, *clear_at].into_iter().flatten().min()
    }

    /// The presence of another instance, with the remedy.
    pub(crate) fn fault(&self, now: Instant) -> Option<String> {
        let (other, at) = self.other.as_ref()?;
        (now.duration_since(*at) < PRESENT_FOR).then(|| {
            format!(
                "another bridge ({other}) has the same name; stop one, or give one another \
                 bridge_name"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: &str) -> Vec<u8> {
        format!("{{\"instance_id\":\"{id}\",\"started_at\":\"2026-11-23T10:00:00.000Z\"}}").into()
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Connects, and receives the own `info`.
    fn connect(detector: &mut DuplicateDetector, now: Instant) {
        detector.connected(now);
        assert_eq!(detector.received(now, false, &info("us")), InfoAction::Own);
        detector.retained_read(now);
    }

    /// Connects, passes the check and stays until the session has settled.
    fn established(now: &mut Instant) -> DuplicateDetector {
        let mut detector = DuplicateDetector::new("us".to_owned());
        connect(&mut detector, *now);
        assert!(!detector.take_passed(*now));
        assert_eq!(detector.due(), Some(*now + ANSWER_WAIT));
        assert!(detector.take_passed(*now + ANSWER_WAIT));
        *now += SETTLED_AFTER;
        assert!(detector.settle(*now));
        detector
    }

    #[test]
    fn a_first_session_waits_and_an_answer_makes_it_step_back() {
        let now = Instant::now();
        let mut detector = DuplicateDetector::new("us".to_owned());
        detector.connected(now);
        assert_eq!(detector.received(now, true, &info("x")), InfoAction::Ignore);
        assert_eq!(detector.fault(now), None, "what is retained may be of a bridge that is gone");
        assert_eq!(detector.received(now, false, &info("x")), InfoAction::StepBack);
        assert!(detector.fault(now).is_some());
        assert_eq!(detector.received(now, true, b"not JSON"), InfoAction::Ignore);
    }

    /// The event loop reads it late, after a stall.
    #[test]
    fn an_answer_that_came_in_time_and_is_read_later_makes_it_step_back() {
        let (mut detector, now) = (DuplicateDetector::new("us".to_owned()), Instant::now());
        connect(&mut detector, now);
        let later = now + ANSWER_WAIT * 2;
        assert_eq!(detector.received(later, false, &info("x")), InfoAction::StepBack);
    }

    #[test]
    fn an_ended_chain_is_shown_once_and_never_beside_the_instance_that_continues_it() {
        let (mut detector, now) = (DuplicateDetector::new("us".to_owned()), Instant::now());
        detector.set_new_chain();
        let other = br#"{"instance_id":"x","chain":"k7f3"}"#;
        detector.connected(now);
        detector.received(now, true, other);
        assert_eq!(detector.received(now, false, other), InfoAction::StepBack);
        detector.step_back();
        assert_eq!(detector.take_ended_chain(), None);
        // It has ended, and is connected no more.
        detector.connected(now);
        detector.received(now, true, other);
        detector.received(now, false, &info("us"));
        detector.retained_read(now);
        assert!(detector.take_passed(now + ANSWER_WAIT));
        assert_eq!(detector.take_ended_chain().as_deref(), Some("k7f3"));
        detector.received(now, true, other);
        assert_eq!(detector.take_ended_chain(), None);
    }

    #[test]
    fn without_the_own_info_the_check_ends() {
        let (mut detector, now) = (DuplicateDetector::new("us".to_owned()), Instant::now());
        detector.connected(now);
        assert!(!detector.take_passed(now + secs(30)), "the scan has not ended");
        detector.set_unreadable();
        assert!(detector.take_passed(now));
        let due = detector.due();
        detector.retained_read(now);
        assert_eq!(detector.due(), due, "it may come later");
        assert_eq!(detector.received(now, false, &info("x")), InfoAction::StepBack);
        // Another session, in which the check is made.
        connect(&mut detector, now);
        assert!(detector.take_passed(now + ANSWER_WAIT));
        assert_eq!(detector.received(now, false, &info("x")), InfoAction::Ignore);
        assert!(detector.take_answer(now));
    }

    #[test]
    fn nothing_is_cleared_beside_another_instance() {
        let (mut detector, now) = (DuplicateDetector::new("us".to_owned()), Instant::now());
        connect(&mut detector, now);
        assert!(detector.take_passed(now + ANSWER_WAIT));
        assert_eq!(detector.received(now + secs(40), false, &info("x")), InfoAction::Ignore);
        assert!(detector.take_answer(now + secs(40)));
        assert!(!detector.settle(now + SETTLED_AFTER));
        assert!(detector.settle(now + secs(40) + SETTLED_AFTER));
        assert_eq!(detector.due(), None);
        assert_eq!(detector.disconnected(now + SETTLED_AFTER, true), None, "it is established");
    }

    #[test]
    fn the_wait_of_a_newcomer_doubles_from_one_minute_to_fifteen() {
        let mut detector = DuplicateDetector::new("us".to_owned());
        for seconds in [65, 130, 260, 520, 900, 900, 900] {
            let (wait, least) = (detector.step_back(), secs(seconds));
            assert!(wait >= least && wait <= least.mul_f64(1.0 + JITTER), "{wait:?} of {least:?}");
        }
    }

    #[test]
    fn a_bridge_that_is_online_answers_remains_and_does_not_flood() {
        let mut now = Instant::now();
        let mut detector = established(&mut now);
        // Also to a message that is of no bridge.
        for foreign in [info("x"), info("y"), info("x"), b"not JSON".to_vec()] {
            assert_eq!(detector.received(now, false, &foreign), InfoAction::Ignore);
            assert!(detector.take_answer(now) && !detector.take_answer(now));
            // Each of several newcomers is answered in time.
            for soon in [info("x"), info("z")] {
                assert_eq!(detector.received(now, false, &soon), InfoAction::Ignore);
                assert!(!detector.take_answer(now));
                assert_eq!(detector.due(), Some(now + ANSWER_INTERVAL));
            }
            now += ANSWER_INTERVAL;
            assert!(detector.take_answer(now));
            assert_eq!(detector.due(), None);
            now += ANSWER_INTERVAL;
        }
        assert!(detector.fault(now + secs(60)).is_some());
        assert_eq!(detector.fault(now + PRESENT_FOR), None);
    }

    #[test]
    fn a_young_session_that_is_taken_over_waits_and_an_established_process_reconnects() {
        let mut now = Instant::now();
        let mut newcomer = DuplicateDetector::new("us".to_owned());
        newcomer.connected(now);
        now += secs(59);
        assert!(newcomer.disconnected(now, true).is_some_and(|wait| wait >= RETRY_FIRST));

        let mut detector = established(&mut now);
        for _ in 0..10 {
            // The other one tries twice in a row, then waits.
            assert_eq!(detector.disconnected(now, true), None, "it had settled");
            detector.connected(now);
            assert_eq!(detector.received(now, true, &info("x")), InfoAction::Ignore);
            detector.retained_read(now);
            assert!(!detector.take_passed(now), "another's info is retained");
            assert_eq!(detector.disconnected(now + secs(1), true), None, "it is established");
            detector.connected(now + secs(2));
            now += secs(2) + SETTLED_AFTER;
        }
    }

    #[test]
    fn of_two_established_processes_one_gives_way_after_five_takeovers() {
        let mut now = Instant::now();
        let mut detector = established(&mut now);
        let waits = [1, 2, 3, 4, 5].map(|_| {
            detector.connected(now);
            detector.disconnected(now + secs(1), true).is_some()
        });
        assert_eq!(waits, [false, false, false, false, true]);
    }

    /// Brokers such as mosquitto 2.0 close a session that is taken over without a reason.
    #[test]
    fn a_newcomer_notices_a_silent_takeover_by_the_info_that_replaced_its_own() {
        let now = Instant::now();
        let third_session = |other: &str, established: &str| {
            let mut newcomer = DuplicateDetector::new("us".to_owned());
            let other = format!("{{\"instance_id\":\"{other}\"{established}}}");
            let actions = [1, 2, 3].map(|_| {
                newcomer.connected(now);
                let action = newcomer.received(now, true, other.as_bytes());
                newcomer.received(now, false, &info("us"));
                assert_eq!(newcomer.disconnected(now, false), None);
                action
            });
            assert_eq!(actions[..2], [InfoAction::Ignore; 2], "{other}");
            actions[2]
        };
        for established in ["", ",\"established\":true"] {
            assert_eq!(third_session("x", established), InfoAction::StepBack, "{established}");
        }
        let newcomer = ",\"established\":false";
        assert_eq!(third_session("a", newcomer), InfoAction::StepBack);
        assert_eq!(third_session("x", newcomer), InfoAction::Ignore, "of two newcomers one stays");
    }
}
