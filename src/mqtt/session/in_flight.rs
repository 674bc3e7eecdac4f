//! The packets that the broker has to acknowledge, matched by packet identifier.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::connection::SessionEvent;
use crate::mqtt::refusal::Refusal;

/// Packet identifiers run from 1 to this number, then again from 1.
const PACKET_IDS: usize = 65_535;

#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Packet identifier of the first slot, minus 1.
    first: usize,
    /// Tokens of publishes. `None`: acknowledged, or another kind of packet.
    slots: VecDeque<Option<u64>>,
    /// Since when the first publish is the first.
    waiting_since: Option<Instant>,
    is_skipped: bool,
    /// Subscriptions that are not answered, the oldest first.
    subscriptions: Vec<SentSubscription>,
}

#[derive(Debug)]
struct SentSubscription {
    packet_id: u16,
    since: Instant,
    filters: Vec<String>,
}

impl InFlight {
    /// Adds a publish; returns its identifier, or `None` if all are in use.
    pub(crate) fn publish(&mut self, now: Instant, token: u64) -> Option<u16> {
        self.waiting_since.get_or_insert(now);
        self.next_packet_id(Some(token))
    }

    /// Adds a subscription; returns its identifier.
    pub(crate) fn subscribe(&mut self, now: Instant, filters: Vec<String>) -> Option<u16> {
        let packet_id = self.next_packet_id(None)?;
        self.subscriptions.push(SentSubscription { packet_id, since: now, filters });
        Some(packet_id)
    }

    /// An identifier for the packet of a publish with this token, or for another one.
    pub(crate) fn next_packet_id(&mut self, token: Option<u64>) -> Option<u16> {
        if self.slots.len() >= PACKET_IDS {
            return None;
        }
        let packet_id = 1 + (self.first + self.slots.len()) % PACKET_IDS;
        self.slots.push_back(token);
        self.remove_leading();
        u16::try_from(packet_id).ok()
    }

    /// The broker has acknowledged a publish; returns its token, or `None` if it is not in flight.
    pub(crate) fn acknowledge(&mut self, now: Instant, packet_id: u16) -> Option<u64> {
        let index = (usize::from(packet_id.checked_sub(1)?) + PACKET_IDS - self.first) % PACKET_IDS;
        let token = self.slots.get_mut(index)?.take()?;
        self.is_skipped = index > 0;
        if index == 0 {
            self.remove_leading();
            self.waiting_since = (!self.slots.is_empty()).then_some(now);
        }
        Some(token)
    }

    fn remove_leading(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first = (self.first + 1) % PACKET_IDS;
        }
    }

    /// The broker has answered a subscription with a reason code for each filter.
    pub(crate) fn subscribed(&mut self, packet_id: u16, codes: &[u8]) -> Option<SessionEvent> {
        let at = self.subscriptions.iter().position(|sent| sent.packet_id == packet_id)?;
        let SentSubscription { filters, .. } = self.subscriptions.remove(at);
        let refused = filters
            .iter()
            .zip(codes)
            .filter_map(|(filter, code)| Some((filter.clone(), Refusal::from_code(*code).err()?)))
            .collect();
        Some(SessionEvent::Subscribed { filters, refused })
    }

    /// Since when the oldest publish is awaited.
    pub(crate) const fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since
    }

    /// A message has come: a broker may send what it retains before it answers a subscription.
    pub(crate) fn message_received(&mut self, now: Instant) {
        self.subscriptions.first_mut().into_iter().for_each(|sent| sent.since = now);
    }

    /// Since when the answer to the oldest subscription is awaited.
    pub(crate) fn subscribing_since(&self) -> Option<Instant> {
        self.subscriptions.first().map(|sent| sent.since)
    }

    /// Whether the broker has acknowledged a later publish than the oldest. MQTT requires them in
    /// order, so that one may never come.
    pub(crate) const fn is_skipped(&self) -> bool {
        self.is_skipped
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_in_any_order_give_the_tokens_of_their_publishes() {
        let (mut in_flight, now) = (InFlight::default(), Instant::now());
        let packet_ids = [7, 8, 9].map(|token| in_flight.publish(now, token).unwrap());
        assert_eq!(packet_ids, [1, 2, 3]);
        assert_eq!(in_flight.acknowledge(now, 2), Some(8));
        assert!(in_flight.is_skipped());
        assert_eq!(in_flight.acknowledge(now, 2), None, "acknowledged twice");
        assert_eq!((in_flight.acknowledge(now, 4), in_flight.acknowledge(now, 0)), (None, None));
        assert_eq!(in_flight.acknowledge(now, 1), Some(7));
        assert!(!in_flight.is_skipped() && !in_flight.is_empty());
        assert_eq!(in_flight.acknowledge(now, 3), Some(9));
        assert!(in_flight.is_empty() && in_flight.waiting_since().is_none());
    }

    #[test]
    fn an_identifier_in_use_is_not_used_again() {
        let (mut in_flight, now) = (InFlight::default(), Instant::now());
        for token in 0..100_000 {
            let packet_id = in_flight.publish(now, token).unwrap();
            assert_eq!(in_flight.acknowledge(now, packet_id), Some(token));
        }
        let skipped = in_flight.publish(now, 0).unwrap();
        let others = std::iter::from_fn(|| in_flight.publish(now, 1)).collect::<Vec<_>>();
        assert_eq!(others.len(), PACKET_IDS - 1, "all but one");
        assert!(!others.contains(&skipped) && !others.contains(&0));
    }

    #[test]
    fn a_subscription_is_answered_filter_by_filter() {
        let (mut in_flight, now) = (InFlight::default(), Instant::now());
        in_flight.publish(now, 7).unwrap();
        let filters = vec!["a".to_owned(), "b".to_owned()];
        let packet_id = in_flight.subscribe(now, filters.clone()).unwrap();
        assert_eq!(in_flight.acknowledge(now, packet_id), None, "it is no publish");
        let answer = in_flight.subscribed(packet_id, &[0x01, 0x87]);
        let Some(SessionEvent::Subscribed { filters: answered, refused }) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(answered, filters);
        assert_eq!(refused, [("b".to_owned(), Refusal::NOT_AUTHORIZED)]);
        assert!(in_flight.subscribed(packet_id, &[0x01, 0x87]).is_none());
    }
}
