//! What the broker has to confirm on each connection: the subscriptions to requests and to the
//! bridge's own topics, and its `online`, which is received again after it was published.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::mqtt::{FILTERS_PER_PACKET, Refusal};

/// The time after which refused filters are subscribed again, and `online` is published again if it
/// was not received: the broker's access list may permit it by then.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The subscriptions to requests: a few filters a packet, one packet after another.
#[derive(Debug, Default)]
pub(crate) struct RequestSubscriptions {
    /// Whether any command is permitted; otherwise nothing is subscribed to.
    is_wanted: bool,
    is_started: bool,
    filters: BTreeMap<String, SubscriptionState>,
    /// When the refused filters are subscribed again.
    retry_at: Option<Instant>,
}

/// How far the subscription to a filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SubscriptionState {
    Waiting,
    Sent,
    Granted,
    Refused(Refusal),
}

impl RequestSubscriptions {
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self { is_wanted, ..Self::default() }
    }

    /// Nothing is subscribed to on a new connection.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.is_wanted);
    }

    /// Whether there are subscriptions on this connection.
    pub(crate) const fn is_started(&self) -> bool {
        self.is_started
    }

    /// Subscribes to these filters. Returns those that are not to be subscribed to any more.
    pub(crate) fn sync(&mut self, filters: Vec<String>) -> Vec<String> {
        self.is_started = true;
        let before = std::mem::take(&mut self.filters);
        for filter in filters.into_iter().filter(|_| self.is_wanted) {
            let state = before.get(&filter).copied().unwrap_or(SubscriptionState::Waiting);
            self.filters.insert(filter, state);
        }
        before.into_keys().filter(|filter| !self.filters.contains_key(filter)).collect()
    }

    /// The filters of the next packet, unless an acknowledgement is awaited.
    pub(crate) fn next_packet(&mut self) -> Option<Vec<String>> {
        if self.filters.values().any(|state| *state == SubscriptionState::Sent) {
            return None;
        }
        let waiting = self.filters.iter_mut();
        let waiting = waiting.filter(|(_, state)| **state == SubscriptionState::Waiting);
        let packet = waiting.take(FILTERS_PER_PACKET).map(|(filter, state)| {
            *state = SubscriptionState::Sent;
            filter.clone()
        });
        Some(packet.collect()).filter(|packet: &Vec<String>| !packet.is_empty())
    }

    /// The broker has acknowledged these filters, and refused some of them.
    pub(crate) fn acknowledged(
        &mut self,
        now: Instant,
        filters: &[String],
        refused: &[(String, Refusal)],
    ) {
        for filter in filters {
            let state = self.filters.get_mut(filter);
            // One that was removed and added again meanwhile is still to be subscribed.
            let Some(state) = state.filter(|it| **it == SubscriptionState::Sent) else { continue };
            *state = SubscriptionState::Granted;
            if let Some((_, refusal)) = refused.iter().find(|(it, _)| it == filter) {
                *state = SubscriptionState::Refused(*refusal);
                self.retry_at = Some(now + RETRY_AFTER);
            }
        }
    }

    /// Subscribes again to what was refused, once it is time.
    pub(crate) fn wake(&mut self, now: Instant) {
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            for state in self.filters.values_mut() {
                if let SubscriptionState::Refused(_) = state {
                    *state = SubscriptionState::Waiting;
                }
            }
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
        let mut refused = self.filters.iter().filter_map(|(filter, state)| match state {
            SubscriptionState::Refused(refusal) => Some((filter, refusal)),
            _ => None,
        });
        let Some((filter, refusal)) = refused.next() else {
            let is_granted = |state: &SubscriptionState| *state == SubscriptionState::Granted;
            let is_complete = self.is_started && self.filters.values().all(is_granted);
            let message = "the broker has not acknowledged the subscription to requests yet";
            return (!is_complete).then(|| message.to_owned());
        };
        let others = match refused.count() {
            0 => String::new(),
            count => format!(" and {count} more"),
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
        (10..10 + count).map(|number| format!("gsdk/gateway_{number}/request/#")).collect()
    }

    #[test]
    fn many_gateways_are_subscribed_in_packets_of_eight_one_after_another() {
        let (mut subscription, all, now) = (RequestSubscriptions::new(true), filters(20), now());
        subscription.sync(all.clone());
        let (mut sent, other) = (Vec::new(), ["gsdk/bridge/info".to_owned()]);
        while let Some(packet) = subscription.next_packet() {
            assert!(packet.len() <= FILTERS_PER_PACKET);
            assert_eq!(subscription.next_packet(), None, "one packet at a time");
            assert!(subscription.fault().is_some());
            subscription.acknowledged(now, &other, &[]);
            assert_eq!(subscription.next_packet(), None, "that was another subscription");
            subscription.acknowledged(now, &packet, &[]);
            sent.extend(packet);
        }
        assert_eq!(sent, all);
        assert_eq!((subscription.fault(), subscription.due()), (None, None));
    }

    #[test]
    fn a_retry_of_a_refused_filter_drops_no_filter_that_waits() {
        let mut subscription = RequestSubscriptions::new(true);
        let (all, at) = (filters(3), |index: usize| vec![filters(3)[index].clone()]);
        subscription.sync(at(2));
        let refused = subscription.next_packet().unwrap();
        let refusal = (refused[0].clone(), Refusal::NOT_AUTHORIZED);
        subscription.acknowledged(now(), &refused, &[refusal]);
        let retry_at = subscription.due().unwrap();
        subscription.sync([at(0), at(2)].concat());
        assert_eq!(subscription.next_packet(), Some(at(0)));
        subscription.sync(all);
        subscription.wake(retry_at);
        assert_eq!(subscription.next_packet(), None, "one packet at a time");
        subscription.acknowledged(retry_at, &at(0), &[]);
        assert!(subscription.fault().is_some());
        let packet = subscription.next_packet().unwrap();
        assert_eq!(packet, [at(1), refused].concat());
        subscription.acknowledged(retry_at, &packet, &[]);
        assert_eq!((subscription.fault(), subscription.due()), (None, None));
    }

    #[test]
    fn a_filter_of_a_gateway_that_is_forgotten_is_not_subscribed_again() {
        let (mut subscription, all) = (RequestSubscriptions::new(true), filters(9));
        subscription.sync(all.clone());
        let first = subscription.next_packet().unwrap();
        let refusal = (first[0].clone(), Refusal::NOT_AUTHORIZED);
        subscription.acknowledged(now(), &first, &[refusal]);
        let forgotten = subscription.sync(all[1..8].to_vec());
        assert_eq!(forgotten, [&all[..1], &all[8..]].concat());
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
