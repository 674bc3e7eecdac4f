//! The messages that the broker does not accept: which are sent again and when, which are set
//! aside, and which topics are emptied because their old value is not true.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::outgoing::Kind;
use super::refusal::Refusal;
use super::sent::Sent;
use crate::ids::Moment;

/// How long after its first refusal a message is sent again, in milliseconds. Each further refusal
/// of the same message doubles it.
const RETRY_MS: i64 = 2_000;
/// It is doubled so many times at most: 64 s.
const DOUBLINGS_MAX: u32 = 5;
/// Refused messages that are named, in the log with a warning and by [`Refusals::of`].
const NAMED_MAX: usize = 100;

/// Why a message is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The broker has refused it, or is known to refuse it.
    Refused(Refusal),
    /// The broker closes the connection whenever it is sent.
    ClosesConnection,
}

impl Rejection {
    /// Its name as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.as_str(),
            Self::ClosesConnection => "closes_connection",
        }
    }

    /// Whether sending the same message again cannot succeed.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_permanent(),
            Self::ClosesConnection => true,
        }
    }

    /// Whether the broker keeps no retained messages.
    #[must_use]
    pub fn is_retain_not_supported(self) -> bool {
        self == Self::Refused(Refusal::RETAIN_NOT_SUPPORTED)
    }

    /// What to change so that the broker accepts it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::ClosesConnection => {
                "see the broker's log: raise its maximum packet size, or permit the topic in its \
                 access list, and restart the bridge"
            }
            Self::Refused(refusal) => match refusal.code() {
                0x87 => {
                    "permit the topic to the bridge's user in the broker's access list, as \
                     deploy/mosquitto/acl does"
                }
                0x95 => "raise the broker's maximum packet size",
                0x97 => "raise the broker's quota for the bridge's user",
                0x9A => "allow retained messages in the broker's configuration",
                _ => "see the broker's log",
            },
        }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::ClosesConnection => f.write_str("the broker closes the connection over it"),
        }
    }
}

/// The messages that were refused when they were last sent.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    refused: BTreeMap<Sent, Refused>,
    retries: BTreeMap<Moment, Vec<Sent>>,
    to_empty: VecDeque<Sent>,
}

#[derive(Debug)]
struct Refused {
    topic: String,
    rejection: Rejection,
    times: u32,
    /// The topic is empty, or about to be.
    emptied: bool,
    /// It was named in a warning, on this connection or an earlier one.
    named: bool,
}

impl Refusals {
    /// A message was refused: it is sent again later, unless that cannot succeed. Returns whether
    /// it is to be named in a warning.
    pub(super) fn add(
        &mut self,
        now: Moment,
        sent: Sent,
        topic: String,
        rejection: Rejection,
    ) -> bool {
        let has_room = self.refused.len() < NAMED_MAX;
        let new = || Refused { topic, rejection, times: 0, emptied: false, named: false };
        let refused = self.refused.entry(sent.clone()).or_insert_with(new);
        let is_new = has_room && (!refused.named || refused.rejection != rejection);
        refused.named |= is_new;
        let wait = RETRY_MS << refused.times.min(DOUBLINGS_MAX);
        refused.times = refused.times.saturating_add(1);
        refused.rejection = rejection;
        // Where nothing is retained there is no old value.
        let may_be_false = sent.is_emptied_when_refused() && !rejection.is_retain_not_supported();
        if may_be_false && !std::mem::replace(&mut refused.emptied, true) {
            self.to_empty.push_back(sent.clone());
        }
        if !rejection.is_permanent() {
            self.retries.entry(now.plus(wait)).or_default().push(sent);
        }
        is_new
    }

    /// A message was accepted, or is about something that is gone.
    pub(super) fn remove(&mut self, sent: &Sent) {
        if !self.refused.is_empty() {
            self.refused.remove(sent);
        }
    }

    /// Whether a message is refused.
    pub(super) fn contains(&self, sent: &Sent) -> bool {
        self.refused.contains_key(sent)
    }

    /// The next topic to be emptied, and the message that is refused there.
    pub(super) fn take_to_empty(&mut self) -> Option<(Sent, String)> {
        while let Some(sent) = self.to_empty.pop_front() {
            // One that was accepted meanwhile has its true value.
            if let Some(refused) = self.refused.get(&sent) {
                return Some((sent, refused.topic.clone()));
            }
        }
        None
    }

    /// The empty message was refused too. It is tried again with the message's next refusal, or by
    /// itself where that one is not sent again.
    pub(super) fn not_emptied(&mut self, now: Moment, sent: Sent, rejection: Rejection) {
        let Some(refused) = self.refused.get_mut(&sent) else { return };
        if rejection.is_permanent() {
            return;
        }
        if refused.rejection.is_permanent() {
            let wait = RETRY_MS << refused.times.min(DOUBLINGS_MAX);
            refused.times = refused.times.saturating_add(1);
            let again = Sent::Emptied(Box::new(sent));
            self.retries.entry(now.plus(wait)).or_default().push(again);
        } else {
            refused.emptied = false;
        }
    }

    /// It is time to empty this topic again.
    pub(super) fn empty_again(&mut self, sent: Sent) {
        self.to_empty.push_back(sent);
    }

    /// Whether topics wait to be emptied.
    pub(super) fn has_to_empty(&self) -> bool {
        !self.to_empty.is_empty()
    }

    /// The next message that is due to be sent again.
    pub(super) fn take_due(&mut self, now: Moment) -> Option<Sent> {
        let mut due = self.retries.first_entry().filter(|due| *due.key() <= now)?;
        let sent = due.get_mut().pop();
        if due.get().is_empty() {
            due.remove();
        }
        sent
    }

    /// When the next one is due.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        self.retries.first_key_value().map(|(&at, _)| at)
    }

    /// What waits to be sent again.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Sent> {
        self.retries.values().flatten()
    }

    /// The connection has ended: everything is tried again on the next one, and counts as refused
    /// until it is accepted there. Returns what waited to be sent again.
    pub(super) fn disconnected(&mut self) -> impl Iterator<Item = Sent> + use<> {
        self.to_empty.clear();
        self.refused.retain(|sent, refused| {
            (refused.times, refused.emptied) = (0, false);
            let is_sent_once = matches!(sent, Sent::Event(_) | Sent::Cleared(_));
            !(is_sent_once && refused.rejection.is_permanent())
        });
        std::mem::take(&mut self.retries).into_values().flatten()
    }

    /// The topics of refused messages, for discovery or for all else, as many as are named.
    pub(super) fn of(&self, discovery: bool) -> impl Iterator<Item = (&str, Rejection)> {
        let of_kind = move |(sent, _): &(&Sent, _)| (sent.kind() == Kind::Discovery) == discovery;
        let refused = self.refused.iter().filter(of_kind).take(NAMED_MAX);
        refused.map(|(_, refused)| (refused.topic.as_str(), refused.rejection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::GatewayIndex;
    use crate::ids::DeviceId;

    fn device(id: u32) -> Sent {
        Sent::Device(GatewayIndex(0), DeviceId::new(id).unwrap())
    }

    fn rejection(code: u8) -> Rejection {
        Refusal::from_code(code).unwrap_err().into()
    }

    #[test]
    fn each_refused_message_has_a_back_off_of_its_own() {
        let (mut refusals, mut now) = (Refusals::default(), Moment::from_millis(0));
        let mut waits = Vec::new();
        for _ in 0..8 {
            refusals.add(now, device(1), "t/1".to_owned(), rejection(0x87));
            let at = refusals.wake_at().unwrap();
            waits.push(at.since(now));
            now = at;
            assert_eq!(refusals.take_due(now), Some(device(1)));
        }
        assert_eq!(waits, [2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000, 64_000]);
        refusals.add(now, device(2), "t/2".to_owned(), rejection(0x87));
        assert_eq!(refusals.wake_at(), Some(now.plus(2_000)), "the other's refusals do not count");
        refusals.remove(&device(1));
        refusals.add(now, device(1), "t/1".to_owned(), rejection(0x87));
        assert_eq!(refusals.take_due(now.plus(2_000)), Some(device(1)), "accepted in between");
    }

    #[test]
    fn what_is_refused_on_each_connection_is_named_once_and_stays_refused_in_between() {
        let (mut refusals, now) = (Refusals::default(), Moment::from_millis(0));
        let event = Sent::Event(crate::payload::Subject::Bridge);
        for connection in 0..3 {
            let is_new = refusals.add(now, device(1), "t/1".to_owned(), rejection(0x87));
            assert_eq!(is_new, connection == 0);
            refusals.add(now, event.clone(), "t/2".to_owned(), rejection(0x95));
            assert_eq!(refusals.disconnected().collect::<Vec<_>>(), [device(1)]);
            // The event is lost, and not sent on the next connection.
            assert_eq!(refusals.of(false).collect::<Vec<_>>(), [("t/1", rejection(0x87))]);
        }
        refusals.remove(&device(1));
        assert!(refusals.add(now, device(1), "t/1".to_owned(), rejection(0x87)));
    }

    #[test]
    fn a_permanent_refusal_is_not_retried_but_its_topic_is_emptied_until_that_succeeds() {
        let (mut refusals, now) = (Refusals::default(), Moment::from_millis(0));
        assert!(refusals.add(now, device(1), "t/1".to_owned(), rejection(0x95)));
        assert_eq!(refusals.wake_at(), None);
        assert_eq!(refusals.take_to_empty(), Some((device(1), "t/1".to_owned())));
        refusals.not_emptied(now, device(1), rejection(0x97));
        let again = refusals.take_due(refusals.wake_at().unwrap());
        assert_eq!(again, Some(Sent::Emptied(Box::new(device(1)))));
        assert!(!refusals.add(now, device(1), "t/1".to_owned(), rejection(0x95)), "named once");
        assert_eq!(refusals.take_to_empty(), None, "emptied once");
        assert_eq!(refusals.of(false).collect::<Vec<_>>(), [("t/1", rejection(0x95))]);
        assert_eq!(refusals.of(true).count(), 0);
    }
}
