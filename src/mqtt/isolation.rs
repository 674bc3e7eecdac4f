//! Finds the message over which the broker closes the connection: a message that was in flight at
//! two cuts is sent alone, and set aside once it is shown to be the one.

use std::collections::{BTreeMap, VecDeque};

use super::outgoing::Draft;
use super::sent::Sent;

/// A message in flight at so many cuts is a suspect, sent alone from then on.
const CUTS_MIN: u32 = 2;
/// It is set aside when it was the only one in flight so many times when the broker closed the
/// connection, each time after the broker had acknowledged something else.
const STRIKES_MAX: u32 = 3;
/// Other messages sent before a suspect has its turn, where there are as many.
const OTHERS_BETWEEN: u32 = 32;

/// What becomes of a message that is to be sent.
pub(super) enum Admission {
    /// It goes out now.
    Send(Draft),
    /// It is a suspect, and goes out alone later.
    Held,
    /// The broker has closed the connection over it before.
    SetAside(Draft),
}

/// Which messages are suspects, and those that wait to be sent alone.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// Never acknowledged since they were in flight at a cut.
    unacknowledged: BTreeMap<Sent, History>,
    held: VecDeque<Draft>,
    /// In flight alone, with its size.
    isolated: Option<(Sent, usize)>,
    /// Sent since the last isolated one.
    others: u32,
    /// This connection has acknowledged something.
    acknowledged: bool,
    /// The size at which each was set aside. A smaller one is tried.
    set_aside: BTreeMap<Sent, usize>,
}

/// What happened to a message.
#[derive(Clone, Copy, Debug, Default)]
struct History {
    /// Which event of its subject it is.
    number: u64,
    cuts: u32,
    strikes: u32,
}

impl Isolation {
    /// Decides on a message; `number` tells an event from the others of its subject.
    pub(super) fn admit(&mut self, draft: Draft, number: u64) -> Admission {
        if !can_be_suspect(&draft.sent) {
            return Admission::Send(draft);
        }
        let size = draft.size();
        if self.set_aside.get(&draft.sent).is_some_and(|least| *least <= size) {
            return Admission::SetAside(draft);
        }
        let history = self.unacknowledged.get(&draft.sent);
        let suspect = history.is_some_and(|it| it.number == number && it.cuts >= CUTS_MIN);
        if !suspect {
            self.others = self.others.saturating_add(1);
            return Admission::Send(draft);
        }
        match self.held.iter_mut().find(|held| held.sent == draft.sent) {
            Some(held) => *held = draft,
            None => self.held.push_back(draft),
        }
        Admission::Held
    }

    /// Whether nothing may be sent now, with so many messages in flight.
    pub(super) fn blocks(&self, in_flight: usize) -> bool {
        self.isolated.is_some() || (self.turn_is_due() && in_flight > 0)
    }

    /// Whether a suspect goes before all others.
    pub(super) fn turn_is_due(&self) -> bool {
        !self.held.is_empty() && self.others >= OTHERS_BETWEEN
    }

    /// The next suspect. Nothing else may be in flight, nor be sent before it is acknowledged.
    pub(super) fn take(&mut self) -> Option<Draft> {
        let draft = self.held.pop_front()?;
        self.isolated = Some((draft.sent.clone(), draft.size()));
        self.others = 0;
        Some(draft)
    }

    /// Whether states wait to be sent alone, or to be acknowledged.
    pub(super) fn has_states(&self) -> bool {
        let held = self.held.iter().map(|draft| &draft.sent);
        held.chain(self.isolated.iter().map(|(sent, _)| sent)).any(Sent::is_state)
    }

    /// The suspects that wait.
    pub(super) fn held(&self) -> impl Iterator<Item = &Sent> {
        self.held.iter().map(|draft| &draft.sent)
    }

    /// The broker has answered a message.
    pub(super) fn answered(&mut self, sent: &Sent) {
        self.acknowledged = true;
        if !self.unacknowledged.is_empty() {
            self.unacknowledged.remove(sent);
        }
        if self.isolated.as_ref().is_some_and(|(isolated, _)| isolated == sent) {
            self.isolated = None;
        }
    }

    /// The connection has ended with these messages in flight, each with its number. Returns the
    /// one that is set aside from now on.
    pub(super) fn disconnected(
        &mut self,
        in_flight: &[(&Sent, u64)],
        closed_by_broker: bool,
    ) -> Option<Sent> {
        let acknowledged = std::mem::take(&mut self.acknowledged);
        let isolated = self.isolated.take();
        self.held.clear();
        self.others = 0;
        let alone = closed_by_broker && acknowledged && in_flight.len() == 1;
        let mut found = None;
        for (sent, number) in in_flight.iter().filter(|(sent, _)| can_be_suspect(sent)) {
            let history = self.unacknowledged.entry((*sent).clone()).or_default();
            if history.number != *number {
                *history = History { number: *number, ..History::default() };
            }
            history.cuts = history.cuts.saturating_add(1);
            history.strikes += u32::from(alone);
            if history.strikes >= STRIKES_MAX {
                found = isolated.as_ref().filter(|(isolated, _)| isolated == *sent).cloned();
            }
        }
        let (sent, size) = found?;
        self.unacknowledged.remove(&sent);
        // The next event of its subject is another message.
        if !matches!(sent, Sent::Event(_)) {
            self.set_aside.insert(sent.clone(), size);
        }
        Some(sent)
    }
}

/// Answers are not sent twice, and without the bridge's own state and info nothing works.
fn can_be_suspect(sent: &Sent) -> bool {
    !matches!(sent, Sent::Answer(_) | Sent::BridgeState | Sent::BridgeInfo)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::fleet::GatewayIndex;
    use crate::ids::DeviceId;

    fn device(id: u32) -> Sent {
        Sent::Device(GatewayIndex(0), DeviceId::new(id).unwrap())
    }

    fn draft(sent: &Sent, len: usize) -> Draft {
        let payload = Bytes::from(vec![b' '; len]);
        Draft { sent: sent.clone(), topic: "t".to_owned(), payload, json: true }
    }

    /// How a message goes out on a new connection that acknowledges everything else.
    fn offer(isolation: &mut Isolation, sent: &Sent, len: usize) -> &'static str {
        isolation.answered(&Sent::BridgeInfo);
        match isolation.admit(draft(sent, len), 0) {
            Admission::Send(_) => "sent",
            Admission::SetAside(_) => "set aside",
            Admission::Held => {
                assert_eq!(isolation.take().map(|it| it.sent).as_ref(), Some(sent));
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
            assert_eq!(offer(&mut isolation, &bad, 10), "sent");
            assert_eq!(isolation.disconnected(&[(&bad, 0), (&good, 0)], true), None);
        }
        assert_eq!(offer(&mut isolation, &good, 10), "alone", "as much a suspect");
        isolation.answered(&good);
        assert_eq!(offer(&mut isolation, &good, 10), "sent", "no longer one");
        for strike in 1..=3 {
            assert_eq!(offer(&mut isolation, &bad, 10), "alone");
            let found = isolation.disconnected(&[(&bad, 0)], true);
            assert_eq!(found.is_some(), strike == 3);
        }
        assert_eq!(offer(&mut isolation, &bad, 10), "set aside");
        assert_eq!(offer(&mut isolation, &bad, 9), "sent", "a smaller one is tried");
    }

    #[test]
    fn a_connection_that_broke_or_acknowledged_nothing_is_no_evidence() {
        let sent = device(1);
        let mut isolation = Isolation::default();
        for _ in 0..10 {
            offer(&mut isolation, &sent, 10);
            assert_eq!(isolation.disconnected(&[(&sent, 0)], false), None);
            _ = isolation.admit(draft(&sent, 10), 0);
            isolation.take();
            assert_eq!(isolation.disconnected(&[(&sent, 0)], true), None);
        }
    }

    #[test]
    fn another_event_of_the_subject_is_no_suspect() {
        let sent = Sent::Event(crate::payload::Subject::Bridge);
        let mut isolation = Isolation::default();
        for _ in 0..2 {
            isolation.disconnected(&[(&sent, 7)], true);
        }
        assert!(matches!(isolation.admit(draft(&sent, 1), 8), Admission::Send(_)));
        assert!(matches!(isolation.admit(draft(&sent, 1), 7), Admission::Held));
    }

    #[test]
    fn others_go_first_but_do_not_hold_up_a_suspect_for_ever() {
        let suspect = device(1);
        let mut isolation = Isolation::default();
        for _ in 0..2 {
            isolation.disconnected(&[(&suspect, 0)], true);
        }
        assert!(matches!(isolation.admit(draft(&suspect, 1), 0), Admission::Held));
        for id in 0..OTHERS_BETWEEN {
            assert!(!isolation.blocks(1), "{id}");
            assert!(matches!(isolation.admit(draft(&device(id + 2), 1), 0), Admission::Send(_)));
        }
        assert!(isolation.blocks(1), "until nothing is in flight");
        assert!(!isolation.blocks(0) && isolation.turn_is_due());
    }
}
