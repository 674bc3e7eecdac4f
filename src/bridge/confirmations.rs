//! What the broker has to confirm on each connection: the subscriptions to requests and to the
//! bridge's own topics, and its `online`, which is received again after it was published.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::discovered::GatewayChange;
use crate::mqtt::{FILTERS_PER_PACKET, Refusal};
use crate::topics::Topics;

/// The time after which refused filters are subscribed again, and `online` is published again if it
/// was not received: the broker's access list may permit it by then.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The subscription to requests: a few filters a packet, one packet after another.
#[derive(Debug, Default)]
pub(crate) struct RequestSubscription {
    /// Whether any command is permitted; otherwise nothing is subscribed to.
    is_wanted: bool,
    is_started: bool,
    /// Packets not sent yet.
    waiting: VecDeque<Vec<String>>,
    /// The packet whose acknowledgement is awaited.
    sent: Option<Vec<String>>,
    refused: Vec<(String, Refusal)>,
    /// When the refused filters are subscribed again.
    retry_at: Option<Instant>,
}

impl RequestSubscription {
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self { is_wanted, ..Self::default() }
    }

    /// Nothing is subscribed to on a new connection.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.is_wanted);
    }

    /// Whether it has started on this connection.
    pub(crate) const fn is_started(&self) -> bool {
        self.is_started
    }

    /// Starts with these filters.
    pub(crate) fn start(&mut self, filters: &[String]) {
        *self = Self { is_started: true, ..Self::new(self.is_wanted) };
        self.add(filters);
    }

    /// Adds filters of gateways that were added, and drops those of gateways that were forgotten,
    /// which are returned.
    pub(crate) fn gateways_changed(
        &mut self,
        topics: &Topics,
        changes: Vec<GatewayChange>,
    ) -> Vec<String> {
        let (mut added, mut forgotten) = (Vec::new(), Vec::new());
        for change in changes {
            let (filters, name) = match change {
                GatewayChange::Added(name) => (&mut added, name),
                GatewayChange::Forgotten(name) => (&mut forgotten, name),
            };
            filters.push(topics.request_filter(&name));
        }
        self.remove(&forgotten);
        // Otherwise it starts with the filters of all gateways.
        if self.is_started {
            self.add(&added);
        }
        forgotten
    }

    /// Adds these filters to those that wait.
    fn add(&mut self, filters: &[String]) {
        if self.is_wanted {
            self.waiting.extend(filters.chunks(FILTERS_PER_PACKET).map(<[String]>::to_vec));
        }
    }

    /// Drops filters of gateways that were forgotten, whether they wait or were refused.
    fn remove(&mut self, filters: &[String]) {
        for packet in &mut self.waiting {
            packet.retain(|filter| !filters.contains(filter));
        }
        self.waiting.retain(|packet| !packet.is_empty());
        self.refused.retain(|(filter, _)| !filters.contains(filter));
    }

    /// The filters of the next packet, unless an acknowledgement is awaited.
    pub(crate) fn next_packet(&mut self) -> Option<Vec<String>> {
        if self.sent.is_none() {
            self.sent = self.waiting.pop_front();
            return self.sent.clone();
        }
        None
    }

    /// The broker has acknowledged these filters, and refused some of them.
    pub(crate) fn acknowledged(
        &mut self,
        now: Instant,
        filters: &[String],
        refused: &[(String, Refusal)],
    ) {
        if self.sent.as_deref() != Some(filters) {
            return;
        }
        self.sent = None;
        self.refused.extend_from_slice(refused);
        if self.waiting.is_empty() && !self.refused.is_empty() {
            self.retry_at = Some(now + RETRY_AFTER);
        }
    }

    /// Subscribes again to what was refused, once it is time.
    pub(crate) fn wake(&mut self, now: Instant) {
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            let refused = self.refused.drain(..);
            let filters: Vec<String> = refused.map(|(filter, _)| filter).collect();
            self.add(&filters);
        }
    }

    /// When refused filters are subscribed again.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Why requests may not arrive; `None` once the broker has accepted all filters, or if none are
    /// wanted.
    pub(crate) fn fault(&self) -> Option<String> {
        if !self.is_wanted {
            return None;
        }
        let Some((filter, refusal)) = self.refused.first() else {
            if self.is_started && self.sent.is_none() && self.waiting.is_empty() {
                return None;
            }
            return Some("the broker has not acknowledged the subscription to requests yet".into());
        };
        let others = match self.refused.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        Some(format!(
            "the broker refuses the subscription to requests, {filter}{others} ({refusal}); \
             permit it in the broker's access list, as deploy/mosquitto/acl does"
        ))
    }
}

/// Whether `online` was received on this connection.
#[derive(Debug, Default)]
pub(crate) struct OwnState {
    is_seen: bool,
    /// The broker retains `online` of an earlier connection.
    is_outdated: bool,
    /// The bridge's own topics whose subscription the broker refuses.
    refused: Vec<String>,
    repeat_at: Option<Instant>,
}

impl OwnState {
    /// A message on the bridge's own state topic; `is_online`: whether the bridge is.
    pub(crate) fn received(&mut self, payload: &[u8], retained: bool, is_online: bool) {
        if retained {
            self.is_outdated = !is_online && payload == b"online";
        } else {
            self.is_seen = is_online && payload == b"online";
        }
    }

    /// The broker has answered a subscription, and refused these filters; `own`: the bridge's own
    /// topics.
    pub(crate) fn acknowledged(&mut self, own: &[String], refused: &[(String, Refusal)]) {
        let refused = refused.iter().map(|(filter, _)| filter);
        self.refused.extend(refused.filter(|filter| own.contains(filter)).cloned());
    }

    /// The topics that are to be subscribed again.
    pub(crate) fn take_refused(&mut self) -> Vec<String> {
        std::mem::take(&mut self.refused)
    }

    /// Whether the broker retains `online` of an earlier connection, which does not hold for the
    /// states that are published now.
    pub(crate) const fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    pub(crate) const fn is_seen(&self) -> bool {
        self.is_seen
    }

    /// Whether it is time to subscribe again to what was refused, and to publish `online` again if
    /// it was not received.
    pub(crate) fn wake(&mut self, now: Instant, is_online: bool) -> bool {
        if !is_online || (self.is_seen && self.refused.is_empty()) {
            self.repeat_at = None;
            return false;
        }
        let repeat_at = *self.repeat_at.get_or_insert(now + RETRY_AFTER);
        if repeat_at <= now {
            self.repeat_at = Some(now + RETRY_AFTER);
        }
        repeat_at <= now
    }

    /// When [`OwnState::wake`] may have something to do.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.repeat_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("gsdk/gateway_{number}/request/#")).collect()
    }

    #[test]
    fn many_gateways_are_subscribed_in_packets_of_eight_one_after_another() {
        let (mut subscription, all, now) = (RequestSubscription::new(true), filters(20), now());
        subscription.start(&all);
        let mut sent = Vec::new();
        while let Some(packet) = subscription.next_packet() {
            assert!(packet.len() <= FILTERS_PER_PACKET);
            assert_eq!(subscription.next_packet(), None, "one packet at a time");
            assert!(subscription.fault().is_some());
            subscription.acknowledged(now, &filters(3), &[]);
            assert_eq!(subscription.next_packet(), None, "that was another subscription");
            subscription.acknowledged(now, &packet, &[]);
            sent.extend(packet);
        }
        assert_eq!(sent, all);
        assert_eq!((subscription.fault(), subscription.due()), (None, None));
    }

    #[test]
    fn a_retry_of_a_refused_filter_drops_no_filter_that_waits() {
        let mut subscription = RequestSubscription::new(true);
        let added = |name: &str| vec![format!("gsdk/{name}/request/#")];
        subscription.start(&filters(1));
        let refused = subscription.next_packet().unwrap();
        let refusal = (refused[0].clone(), Refusal::NOT_AUTHORIZED);
        subscription.acknowledged(now(), &refused, &[refusal]);
        let retry_at = subscription.due().unwrap();
        subscription.add(&added("annex"));
        subscription.add(&added("barn"));
        assert_eq!(subscription.next_packet(), Some(added("annex")));
        subscription.wake(retry_at);
        assert_eq!(subscription.next_packet(), None, "one packet at a time");
        subscription.acknowledged(retry_at, &added("annex"), &[]);
        for packet in [added("barn"), refused] {
            assert!(subscription.fault().is_some());
            assert_eq!(subscription.next_packet().as_ref(), Some(&packet));
            subscription.acknowledged(retry_at, &packet, &[]);
        }
        assert_eq!((subscription.fault(), subscription.due()), (None, None));
    }

    #[test]
    fn a_filter_of_a_gateway_that_is_forgotten_is_not_subscribed_again() {
        let (mut subscription, all) = (RequestSubscription::new(true), filters(9));
        subscription.start(&all);
        let first = subscription.next_packet().unwrap();
        let refusal = (first[0].clone(), Refusal::NOT_AUTHORIZED);
        subscription.acknowledged(now(), &first, &[refusal]);
        subscription.remove(&[all[0].clone(), all[8].clone()]);
        assert_eq!((subscription.next_packet(), subscription.fault()), (None, None));
    }

    #[test]
    fn a_refused_topic_is_subscribed_again_every_minute_until_it_is_accepted() {
        let (mut own_state, mut now) = (OwnState::default(), now());
        let own = ["gsdk/bridge/state", "gsdk/bridge/info"].map(str::to_owned);
        let refused = |topic: &String| (topic.clone(), Refusal::NOT_AUTHORIZED);
        let other = refused(&"gsdk/lobby/request/#".to_owned());
        own_state.acknowledged(&own, &[refused(&own[1]), other]);
        own_state.received(b"online", false, true);
        for _ in 0..3 {
            assert!(!own_state.wake(now, true));
            now += RETRY_AFTER;
            assert_eq!(own_state.due(), Some(now));
            assert!(own_state.wake(now, true));
            assert_eq!(own_state.take_refused(), own[1..]);
            own_state.acknowledged(&own, &[refused(&own[1])]);
        }
        assert_eq!(own_state.take_refused(), own[1..]);
        assert!(!own_state.wake(now + RETRY_AFTER, true));
        assert_eq!(own_state.due(), None);
    }

    fn now() -> Instant {
        Instant::now()
    }
}
