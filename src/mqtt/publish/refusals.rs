//! The messages that the broker does not accept: when each is sent again, which are set aside, and
//! which topics are emptied because their retained value is outdated.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::info::InfoOf;
use super::message::{MessageId, MessageKind, Outgoing};
use crate::ids::Moment;
use crate::mqtt::refusal::Refusal;

/// The time after its first refusal at which a message is sent again, in milliseconds. Each further
/// refusal doubles it.
const RETRY_MS: i64 = 2_000;
/// It is doubled this often at most: 64 s.
const DOUBLINGS_MAX: u32 = 5;
/// Refused messages that are named in the log with a warning, and in `/readyz`.
const NAMED_MAX: usize = 100;

/// The messages that were refused when they were last sent.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    refused: BTreeMap<MessageId, RefusedMessage>,
    /// When each is sent again, and the same by time: each once, also if it was refused again
    /// meanwhile because its value has changed.
    retry_at: BTreeMap<MessageId, Moment>,
    retries: BTreeSet<(Moment, MessageId)>,
    to_empty: VecDeque<MessageId>,
}

#[derive(Debug)]
struct RefusedMessage {
    topic: String,
    refusal: Refusal,
    times: u32,
    /// Its topic is empty, or about to be.
    is_emptied: bool,
    /// A warning has named it, on this connection or an earlier one.
    is_named: bool,
}

impl RefusedMessage {
    /// When the message is sent again, if it is refused now.
    fn next_retry(&mut self, now: Moment) -> Moment {
        let wait = RETRY_MS << self.times.min(DOUBLINGS_MAX);
        self.times = self.times.saturating_add(1);
        now.plus(wait)
    }
}

impl Refusals {
    /// A message was refused: it is sent again later, unless that cannot succeed. Returns whether
    /// it deserves a warning.
    pub(crate) fn add(
        &mut self,
        now: Moment,
        id: MessageId,
        topic: String,
        refusal: Refusal,
    ) -> bool {
        let has_room = self.refused.len() < NAMED_MAX;
        let new =
            || RefusedMessage { topic, refusal, times: 0, is_emptied: false, is_named: false };
        let refused = self.refused.entry(id.clone()).or_insert_with(new);
        let is_new = has_room && (!refused.is_named || refused.refusal != refusal);
        refused.is_named |= is_new;
        refused.refusal = refusal;
        // An outdated value would be read as the current one. Where nothing is retained, none is.
        let is_outdated = matches!(
            id,
            MessageId::DeviceState(..)
                | MessageId::GatewayState(_)
                | MessageId::Info(InfoOf::Gateway(_))
        ) && refusal != Refusal::RETAIN_NOT_SUPPORTED;
        if is_outdated && !std::mem::replace(&mut refused.is_emptied, true) {
            self.to_empty.push_back(id.clone());
        }
        if !refusal.is_permanent() {
            self.schedule(now, id.clone(), &id);
        }
        is_new
    }

    /// Sends a message again after the next wait of this refused one, unless it waits already.
    fn schedule(&mut self, now: Moment, id: MessageId, refused: &MessageId) {
        if !self.retry_at.contains_key(&id)
            && let Some(refused) = self.refused.get_mut(refused)
        {
            let at = refused.next_retry(now);
            self.retry_at.insert(id.clone(), at);
            self.retries.insert((at, id));
        }
    }

    /// A message was accepted, or is about something that no longer exists.
    pub(crate) fn remove(&mut self, id: &MessageId) {
        if self.refused.is_empty() {
            return;
        }
        self.refused.remove(id);
        if let Some(at) = self.retry_at.remove(id) {
            self.retries.remove(&(at, id.clone()));
        }
    }

    pub(crate) fn contains(&self, id: &MessageId) -> bool {
        self.refused.contains_key(id)
    }

    /// The next empty message, for a topic whose value is outdated.
    pub(crate) fn next_empty(&mut self) -> Option<Outgoing> {
        while let Some(id) = self.to_empty.pop_front() {
            // One that was accepted meanwhile is up to date.
            if let Some(refused) = self.refused.get(&id) {
                let topic = refused.topic.clone();
                return Some(Outgoing::text(MessageId::Empty(Box::new(id)), topic, ""));
            }
        }
        None
    }

    /// The empty message was refused as well. It is sent again after the message's next refusal, or
    /// after a while where the message is not sent again.
    pub(crate) fn not_emptied(&mut self, now: Moment, id: MessageId, refusal: Refusal) {
        let Some(refused) = self.refused.get_mut(&id) else { return };
        if refusal.is_permanent() {
            return;
        }
        if refused.refusal.is_permanent() {
            self.schedule(now, MessageId::Empty(Box::new(id.clone())), &id);
        } else {
            refused.is_emptied = false;
        }
    }

    /// Empties this topic again.
    pub(crate) fn empty_again(&mut self, id: MessageId) {
        self.to_empty.push_back(id);
    }

    pub(crate) fn has_to_empty(&self) -> bool {
        !self.to_empty.is_empty()
    }

    /// The next message that is due to be sent again.
    pub(crate) fn take_due(&mut self, now: Moment) -> Option<MessageId> {
        self.retries.first().filter(|(at, _)| *at <= now)?;
        let (_, id) = self.retries.pop_first()?;
        self.retry_at.remove(&id);
        Some(id)
    }

    /// When the next message is due.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        self.retries.first().map(|&(at, _)| at)
    }

    /// The connection has ended: everything is sent on the next one, and counts as refused until it
    /// is accepted there.
    pub(crate) fn disconnected(&mut self) {
        self.to_empty.clear();
        self.retry_at.clear();
        self.retries.clear();
        self.refused.retain(|id, refused| {
            (refused.times, refused.is_emptied) = (0, false);
            let is_sent_once = matches!(id, MessageId::Event(_) | MessageId::Clear(_));
            !(is_sent_once && refused.refusal.is_permanent())
        });
    }

    /// The topics of refused messages of these kinds, as many as are named.
    pub(crate) fn topics(
        &self,
        is_wanted: impl Fn(MessageKind) -> bool,
    ) -> impl Iterator<Item = (&str, Refusal)> {
        let refused = self.refused.iter().filter(move |(id, _)| is_wanted(id.kind()));
        let refused = refused.take(NAMED_MAX);
        refused.map(|(_, refused)| (refused.topic.as_str(), refused.refusal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::GatewayIndex;
    use crate::ids::DeviceId;

    fn device(id: u32) -> MessageId {
        MessageId::DeviceState(GatewayIndex(0), DeviceId::new(id).unwrap())
    }

    #[test]
    fn each_refused_message_has_a_back_off_of_its_own() {
        let (mut refusals, mut now) = (Refusals::default(), Moment::from_millis(0));
        let mut waits = Vec::new();
        for _ in 0..8 {
            refusals.add(now, device(1), "t/1".to_owned(), Refusal::Code(0x87));
            let at = refusals.wake_at().unwrap();
            waits.push(at.since(now));
            now = at;
            assert_eq!(refusals.take_due(now), Some(device(1)));
        }
        assert_eq!(waits, [2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000, 64_000]);
        refusals.add(now, device(2), "t/2".to_owned(), Refusal::Code(0x87));
        assert_eq!(refusals.wake_at(), Some(now.plus(2_000)), "the other's refusals do not count");
        refusals.remove(&device(1));
        refusals.add(now, device(1), "t/1".to_owned(), Refusal::Code(0x87));
        assert_eq!(refusals.take_due(now.plus(2_000)), Some(device(1)), "accepted in between");
    }

    #[test]
    fn a_message_that_changes_while_it_is_refused_is_sent_again_once_in_each_wait() {
        let (mut refusals, mut now) = (Refusals::default(), Moment::from_millis(0));
        for wait in [2_000, 4_000] {
            for change in 0..3 {
                refusals.add(now.plus(change), device(1), "t/1".to_owned(), Refusal::Code(0x87));
            }
            now = now.plus(wait);
            assert_eq!(refusals.take_due(now), Some(device(1)));
            assert_eq!(refusals.wake_at(), None);
        }
        refusals.add(now, device(1), "t/1".to_owned(), Refusal::Code(0x87));
        refusals.remove(&device(1));
        assert_eq!(refusals.wake_at(), None, "accepted before it was due");
    }

    #[test]
    fn a_refusal_on_each_connection_is_new_once_and_remains_in_between() {
        let (mut refusals, now) = (Refusals::default(), Moment::from_millis(0));
        let event = MessageId::Event(crate::payload::Subject::Bridge);
        for connection in 0..3 {
            let is_new = refusals.add(now, device(1), "t/1".to_owned(), Refusal::Code(0x87));
            assert_eq!(is_new, connection == 0);
            refusals.add(now, event.clone(), "t/2".to_owned(), Refusal::Code(0x95));
            refusals.disconnected();
            // The event is lost, and not sent on the next connection.
            assert_eq!(
                refusals.topics(|_| true).collect::<Vec<_>>(),
                [("t/1", Refusal::Code(0x87))]
            );
        }
        refusals.remove(&device(1));
        assert!(refusals.add(now, device(1), "t/1".to_owned(), Refusal::Code(0x87)));
    }

    #[test]
    fn a_permanent_refusal_is_not_retried_but_its_topic_is_emptied_until_that_succeeds() {
        let (mut refusals, now) = (Refusals::default(), Moment::from_millis(0));
        assert!(refusals.add(now, device(1), "t/1".to_owned(), Refusal::Code(0x95)));
        assert_eq!(refusals.wake_at(), None);
        let empty = refusals.next_empty().unwrap();
        assert_eq!(empty.id, MessageId::Empty(Box::new(device(1))));
        assert_eq!((empty.publish.topic.as_str(), empty.publish.payload.len()), ("t/1", 0));
        refusals.not_emptied(now, device(1), Refusal::Code(0x97));
        let again = refusals.take_due(refusals.wake_at().unwrap());
        assert_eq!(again, Some(MessageId::Empty(Box::new(device(1)))));
        assert!(!refusals.add(now, device(1), "t/1".to_owned(), Refusal::Code(0x95)), "named once");
        assert!(refusals.next_empty().is_none(), "emptied once");
        assert_eq!(refusals.topics(|_| true).collect::<Vec<_>>(), [("t/1", Refusal::Code(0x95))]);
        assert_eq!(refusals.topics(|kind| kind == MessageKind::Discovery).count(), 0);
    }
}
