//! Finds the message over which the broker closes the connection: one that was in flight at two
//! disconnects is sent alone, and is set aside once it is shown to be the cause.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::info::InfoOf;
use super::message::{MessageId, MessageKind, Outgoing};
use crate::ids::Moment;

/// A message in flight at this many disconnects is a suspect, which is sent alone.
const DISCONNECTS_MIN: u32 = 2;
/// It is set aside after it was the only message in flight this many times when the broker closed
/// the connection, each time after the broker had acknowledged something else.
const ALONE_MAX: u32 = 3;
/// Other messages sent before a suspect is, if there are as many.
const OTHERS_BETWEEN: u32 = 32;
/// The time until another event is sent on a topic on which one was set aside, after the broker has
/// closed the connection over such an event, in milliseconds.
const RETRY_MS: i64 = 5 * 60_000;

/// What to do with a message that is to be sent.
pub(crate) enum SendDecision {
    Send(Outgoing),
    /// It is a suspect, and is sent alone later.
    Held,
    /// It was set aside before.
    SetAside(Outgoing),
}

/// Which messages are suspects, and those that wait to be sent alone.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    /// In flight at a disconnect, and not acknowledged since.
    unacknowledged: BTreeMap<MessageId, MessageHistory>,
    held: VecDeque<Outgoing>,
    /// In flight alone.
    isolated: Option<MessageId>,
    /// Sent since the last isolated one.
    others: u32,
    /// This connection has acknowledged something.
    acknowledged: bool,
    /// The size at which each was set aside. One of half that size is sent: the limit may be one of
    /// size, and not the topic.
    set_aside: BTreeMap<MessageId, usize>,
    discovery: SetAsideDiscovery,
    /// Topics on which an event was set aside: the next one there is a suspect.
    event_topics: BTreeSet<String>,
    /// Such events, and when the next of them is sent.
    retries: VecDeque<Outgoing>,
    retry_at: Option<Moment>,
}

/// Discovery that was set aside. A broker that forbids its topics, or limits the size, closes the
/// connection over every message of it: after the first one the next is sent alone, and if the
/// broker closes over that as well, none is sent unless it is much smaller.
#[derive(Debug, Default)]
struct SetAsideDiscovery {
    messages: u32,
    /// Of the smallest one.
    size: usize,
}

impl SetAsideDiscovery {
    fn add(&mut self, size: usize) {
        self.size = if self.messages == 0 { size } else { self.size.min(size) };
        self.messages += 1;
    }

    const fn is_suspect(&self) -> bool {
        self.messages > 0
    }

    /// The broker has taken another message, so it does not refuse all of them.
    fn accepted(&mut self) {
        if self.messages == 1 {
            *self = Self::default();
        }
    }

    const fn includes(&self, size: usize) -> bool {
        self.messages > 1 && self.size / 2 < size
    }
}

/// What happened to a message.
#[derive(Clone, Copy, Debug, Default)]
struct MessageHistory {
    /// Which event of its subject it is.
    number: u64,
    /// Disconnects at which it was in flight.
    disconnects: u32,
    /// Of these, those over which the broker closed the connection with nothing else in flight.
    alone: u32,
}

impl Isolation {
    /// Decides on a message.
    pub(crate) fn admit(&mut self, message: Outgoing) -> SendDecision {
        if !can_be_suspect(&message.id) {
            return SendDecision::Send(message);
        }
        if self.is_retry(&message) {
            self.retries.push_back(message);
            return SendDecision::Held;
        }
        let set_aside = self.set_aside.get(&message.id);
        let (size, is_discovery) = (message.publish.size(), is_discovery(&message.id));
        if set_aside.is_some_and(|set_aside| set_aside / 2 < size)
            || (is_discovery && self.discovery.includes(size))
        {
            return SendDecision::SetAside(message);
        }
        let history = self.unacknowledged.get(&message.id);
        let history = history.filter(|history| history.disconnects >= DISCONNECTS_MIN);
        let is_suspect = history.is_some_and(|history| history.number == message.number)
            || (is_discovery && self.discovery.is_suspect());
        if !is_suspect {
            self.others = self.others.saturating_add(1);
            return SendDecision::Send(message);
        }
        match self.held.iter_mut().find(|held| held.id == message.id) {
            Some(held) => *held = message,
            None => self.held.push_back(message),
        }
        SendDecision::Held
    }

    /// Whether nothing may be sent now, with this many messages in flight.
    pub(crate) fn blocks(&self, in_flight: usize) -> bool {
        self.isolated.is_some() || (self.turn_is_due() && in_flight > 0)
    }

    /// Whether a suspect is sent before all others.
    pub(crate) fn turn_is_due(&self) -> bool {
        !self.held.is_empty() && self.others >= OTHERS_BETWEEN
    }

    /// The next suspect. Nothing else may be in flight, nor be sent before it is acknowledged.
    pub(crate) fn take(&mut self) -> Option<Outgoing> {
        let message = self.held.pop_front()?;
        self.isolated = Some(message.id.clone());
        self.others = 0;
        Some(message)
    }

    /// Whether it is an event on a topic on which one was set aside.
    fn is_retry(&self, message: &Outgoing) -> bool {
        is_event(&message.id) && self.event_topics.contains(&message.publish.topic)
    }

    /// The next event on a topic on which one was set aside is sent alone, if it is time.
    pub(crate) fn retry_due(&mut self, now: Moment) {
        if self.held.is_empty() && self.retry_at.is_none_or(|at| at <= now) {
            self.held.extend(self.retries.pop_front());
        }
    }

    /// When [`Isolation::retry_due`] has something to do.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        self.retry_at.filter(|_| self.held.is_empty() && !self.retries.is_empty())
    }

    /// Whether states wait to be sent alone, or to be acknowledged.
    pub(crate) fn has_states(&self) -> bool {
        let held = self.held.iter().map(|message| &message.id);
        held.chain(&self.isolated).any(|id| id.kind() == MessageKind::State)
    }

    /// The broker has accepted or refused a message.
    pub(crate) fn acknowledged(&mut self, message: &Outgoing) {
        let id = &message.id;
        self.acknowledged = true;
        if !self.unacknowledged.is_empty() {
            self.unacknowledged.remove(id);
        }
        if self.is_retry(message) {
            self.event_topics.remove(&message.publish.topic);
        } else if is_discovery(id) {
            self.discovery.accepted();
        }
        self.isolated.take_if(|isolated| isolated == id);
    }

    /// The connection has ended with these messages in flight. Returns the one that is set aside
    /// from now on.
    pub(crate) fn disconnected(
        &mut self,
        now: Moment,
        in_flight: Vec<Outgoing>,
        closed_by_broker: bool,
    ) -> Option<Outgoing> {
        let acknowledged = std::mem::take(&mut self.acknowledged);
        let isolated = self.isolated.take();
        self.held.clear();
        self.retries.clear();
        self.others = 0;
        let sent_alone = in_flight.iter().find(|sent| isolated.as_ref() == Some(&sent.id));
        let retried = sent_alone.is_some_and(|sent| self.is_retry(sent));
        if retried && closed_by_broker {
            self.retry_at = Some(now.plus(RETRY_MS));
        }
        let known = self.discovery.is_suspect() && isolated.as_ref().is_some_and(is_discovery);
        let alone_max = if retried || known { 1 } else { ALONE_MAX };
        let alone = closed_by_broker && acknowledged && in_flight.len() == 1;
        let mut found = None;
        for sent in in_flight.into_iter().filter(|sent| can_be_suspect(&sent.id)) {
            let history = self.unacknowledged.entry(sent.id.clone()).or_default();
            if history.number != sent.number {
                *history = MessageHistory { number: sent.number, ..MessageHistory::default() };
            }
            history.disconnects = history.disconnects.saturating_add(1);
            history.alone += u32::from(alone);
            if history.alone >= alone_max && isolated.as_ref() == Some(&sent.id) {
                found = Some(sent);
            }
        }
        let found = found?;
        self.unacknowledged.remove(&found.id);
        if is_event(&found.id) {
            self.event_topics.insert(found.publish.topic.clone());
            return Some(found);
        }
        let size = found.publish.size();
        self.set_aside.insert(found.id.clone(), size);
        if is_discovery(&found.id) {
            self.discovery.add(size);
        } else {
            // The cause may be the topic: one connection shows whether it can be emptied.
            let (disconnects, alone) = (DISCONNECTS_MIN, ALONE_MAX - 1);
            let empty = MessageId::Empty(Box::new(found.id.clone()));
            self.unacknowledged.insert(empty, MessageHistory { number: 0, disconnects, alone });
        }
        Some(found)
    }
}

/// Answers are not sent twice, and nothing works without the bridge's own state and info.
fn can_be_suspect(id: &MessageId) -> bool {
    !matches!(id, MessageId::Answer(_) | MessageId::BridgeState | MessageId::Info(InfoOf::Bridge))
}

const fn is_event(id: &MessageId) -> bool {
    matches!(id, MessageId::Event(_))
}

fn is_discovery(id: &MessageId) -> bool {
    id.kind() == MessageKind::Discovery
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::fleet::GatewayIndex;
    use crate::homeassistant;
    use crate::ids::DeviceId;

    fn device(id: u32) -> MessageId {
        MessageId::DeviceState(GatewayIndex(0), DeviceId::new(id).unwrap())
    }

    fn message(id: &MessageId, len: usize, number: u64) -> Outgoing {
        let payload = Bytes::from(vec![b' '; len]);
        Outgoing { number, ..Outgoing::json(id.clone(), "t".to_owned(), payload) }
    }

    fn admit(isolation: &mut Isolation, id: &MessageId, len: usize, number: u64) -> SendDecision {
        isolation.admit(message(id, len, number))
    }

    /// The connection ends with these in flight; returns whether one is set aside.
    fn end(isolation: &mut Isolation, sent: &[&MessageId], number: u64, closed: bool) -> bool {
        let sent = sent.iter().map(|id| message(id, 100, number)).collect();
        isolation.disconnected(Moment::from_millis(0), sent, closed).is_some()
    }

    /// How a message is sent on a new connection that acknowledges everything else.
    fn offer(isolation: &mut Isolation, id: &MessageId, len: usize) -> &'static str {
        isolation.acknowledged(&message(&MessageId::Info(InfoOf::Bridge), 0, 0));
        match admit(isolation, id, len, 0) {
            SendDecision::Send(_) => "sent",
            SendDecision::SetAside(_) => "set aside",
            SendDecision::Held => {
                assert_eq!(isolation.take().map(|it| it.id).as_ref(), Some(id));
                assert!(isolation.blocks(1), "nothing beside it");
                "alone"
            }
        }
    }

    #[test]
    fn a_message_is_set_aside_after_three_connections_closed_while_it_was_alone() {
        let (bad, good) = (device(1), device(2));
        let mut isolation = Isolation::default();
        for _ in 0..2 {
            assert_eq!(offer(&mut isolation, &bad, 100), "sent");
            assert!(!end(&mut isolation, &[&bad, &good], 0, true));
        }
        assert_eq!(offer(&mut isolation, &good, 10), "alone", "as much a suspect");
        isolation.acknowledged(&message(&good, 10, 0));
        assert_eq!(offer(&mut isolation, &good, 10), "sent", "no longer one");
        for time in 1..=3 {
            assert_eq!(offer(&mut isolation, &bad, 100), "alone");
            assert_eq!(end(&mut isolation, &[&bad], 0, true), time == 3);
        }
        assert_eq!(offer(&mut isolation, &bad, 100), "set aside");
        assert_eq!(offer(&mut isolation, &bad, 99), "set aside", "a little smaller");
        assert_eq!(offer(&mut isolation, &bad, 10), "sent", "a much smaller one is tried");
        // Its topic is emptied, unless the broker closes the connection over that as well.
        let empty = MessageId::Empty(Box::new(bad));
        assert_eq!(offer(&mut isolation, &empty, 100), "alone");
        assert!(end(&mut isolation, &[&empty], 0, true));
        assert_eq!(offer(&mut isolation, &empty, 100), "set aside");
    }

    #[test]
    fn a_connection_that_broke_or_acknowledged_nothing_is_no_evidence() {
        let sent = device(1);
        let mut isolation = Isolation::default();
        for _ in 0..10 {
            offer(&mut isolation, &sent, 10);
            assert!(!end(&mut isolation, &[&sent], 0, false));
            _ = admit(&mut isolation, &sent, 10, 0);
            isolation.take();
            assert!(!end(&mut isolation, &[&sent], 0, true));
        }
    }

    #[test]
    fn another_event_of_the_subject_is_no_suspect() {
        let sent = MessageId::Event(crate::payload::Subject::Bridge);
        let mut isolation = Isolation::default();
        for _ in 0..2 {
            end(&mut isolation, &[&sent], 7, true);
        }
        assert!(matches!(admit(&mut isolation, &sent, 1, 8), SendDecision::Send(_)));
        assert!(matches!(admit(&mut isolation, &sent, 1, 7), SendDecision::Held));
    }

    #[test]
    fn a_broker_that_closes_over_discovery_costs_one_more_connection_and_not_one_for_each_message()
    {
        let described = |id| {
            let id = DeviceId::new(id).unwrap();
            MessageId::Discovery(homeassistant::Described::Device(GatewayIndex(0), id))
        };
        let mut isolation = Isolation::default();
        let find = |isolation: &mut Isolation, id| {
            let mut closed = 0;
            while !isolation.discovery.is_suspect() {
                offer(isolation, &described(id), 100);
                end(isolation, &[&described(id)], 0, true);
                closed += 1;
            }
            assert_eq!(closed, 3);
            assert_eq!(offer(isolation, &described(id), 100), "set aside");
        };
        find(&mut isolation, 1);
        assert_eq!(offer(&mut isolation, &described(2), 100), "alone");
        isolation.acknowledged(&message(&described(2), 10, 0));
        assert_eq!(offer(&mut isolation, &described(3), 100), "sent", "it was that one message");
        find(&mut isolation, 3);
        assert_eq!(offer(&mut isolation, &described(4), 100), "alone");
        assert!(end(&mut isolation, &[&described(4)], 0, true));
        for id in 4..100 {
            assert_eq!(offer(&mut isolation, &described(id), 100), "set aside");
        }
        assert_eq!(
            offer(&mut isolation, &described(4), 10),
            "alone",
            "a much smaller one is tried"
        );
        isolation.acknowledged(&message(&described(4), 10, 0));
        assert_eq!(offer(&mut isolation, &device(4), 100), "sent", "states are not affected");
    }

    #[test]
    fn others_precede_but_do_not_block_a_suspect() {
        let suspect = device(1);
        let mut isolation = Isolation::default();
        for _ in 0..2 {
            end(&mut isolation, &[&suspect], 0, true);
        }
        assert!(matches!(admit(&mut isolation, &suspect, 1, 0), SendDecision::Held));
        for id in 0..OTHERS_BETWEEN {
            assert!(!isolation.blocks(1), "{id}");
            assert!(matches!(admit(&mut isolation, &device(id + 2), 1, 0), SendDecision::Send(_)));
        }
        assert!(isolation.blocks(1), "until nothing is in flight");
        assert!(!isolation.blocks(0) && isolation.turn_is_due());
    }
}
