//! Matches acknowledgements with publishes and subscriptions, by packet identifier.
//!
//! The library chooses the identifiers. So each publish is noted when it is given to the library,
//! and gets its identifier when its packet is written to the socket. The topics are compared there:
//! a mismatch ends the connection rather than mark the wrong event as delivered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::mqtt::refusal::Refusal;

/// The broker's answer to a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The token that the publish was given.
    pub token: u64,
    /// A refusal is not an acknowledgement: the message has to be sent again.
    pub result: Result<(), Refusal>,
}

/// The broker's answer to a subscription.
#[derive(Debug)]
pub(crate) struct Subscribed {
    pub(crate) filters: Vec<String>,
    pub(crate) refused: Vec<(String, Refusal)>,
}

/// Acknowledgements that have not come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Overdue {
    /// All of them: the broker has sent none since.
    All,
    /// The oldest one, although the broker has sent later ones. MQTT wants them in order, so it may
    /// never come.
    Skipped,
}

/// Shared by the connection, which publishes, and the socket, which reads the packets.
#[derive(Clone, Debug, Default)]
pub(crate) struct AckTracker(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Publishes that are not written yet: token and hash of the topic.
    queued: VecDeque<(u64, u32)>,
    /// Publishes by packet identifier, in the order of writing. `None`: acknowledged before an
    /// earlier one.
    written: VecDeque<(u16, Option<u64>)>,
    acks: Vec<Ack>,
    owed_since: Option<Instant>,
    skipped_since: Option<Instant>,
    queued_filters: VecDeque<Vec<String>>,
    written_filters: Vec<(u16, Vec<String>)>,
    subscribed: Vec<Subscribed>,
    mismatch: Option<u16>,
}

impl AckTracker {
    /// Notes a publish if `give` gives it to the library. The library cannot write it before it is
    /// noted. Returns `None` without asking where the window is full.
    pub(crate) fn publish<E>(
        &self,
        token: u64,
        topic_hash: u32,
        window: u16,
        give: impl FnOnce() -> Result<(), E>,
    ) -> Option<Result<(), E>> {
        let mut state = self.state();
        if state.queued.len() + state.written.len() >= usize::from(window) {
            return None;
        }
        let given = give();
        if given.is_ok() {
            state.queued.push_back((token, topic_hash));
        }
        Some(given)
    }

    /// Notes a subscription if `give` gives it to the library.
    pub(crate) fn subscribe<E>(
        &self,
        filters: Vec<String>,
        give: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state = self.state();
        give()?;
        state.queued_filters.push_back(filters);
        Ok(())
    }

    /// A PUBLISH was written to the socket.
    pub(crate) fn publish_written(&self, packet: u16, topic: &[u8]) {
        let mut state = self.state();
        match state.queued.pop_front() {
            Some((token, noted)) if noted == topic_hash(topic) => {
                state.written.push_back((packet, Some(token)));
                state.owed_since.get_or_insert_with(Instant::now);
            }
            _ => state.mismatch = Some(packet),
        }
    }

    /// A SUBSCRIBE was written to the socket.
    pub(crate) fn subscribe_written(&self, packet: u16) {
        let mut state = self.state();
        let filters = state.queued_filters.pop_front();
        state.written_filters.extend(filters.map(|filters| (packet, filters)));
    }

    /// A PUBACK has come.
    pub(crate) fn puback(&self, packet: u16, code: u8) {
        let mut state = self.state();
        let at =
            state.written.iter().position(|(written, token)| *written == packet && token.is_some());
        let token = at.and_then(|at| state.written.get_mut(at)?.1.take());
        let (Some(at), Some(token)) = (at, token) else {
            state.mismatch = Some(packet);
            return;
        };
        state.acks.push(Ack { token, result: Refusal::from_code(code) });
        if at > 0 {
            state.skipped_since.get_or_insert_with(Instant::now);
            return;
        }
        state.skipped_since = None;
        while let Some((_, None)) = state.written.front() {
            state.written.pop_front();
        }
    }

    /// A SUBACK has come, with a reason code for each filter.
    pub(crate) fn suback(&self, packet: u16, codes: &[u8]) {
        let mut state = self.state();
        let written = &mut state.written_filters;
        let Some(at) = written.iter().position(|(written, _)| *written == packet) else { return };
        let (_, filters) = written.swap_remove(at);
        let results = filters.iter().zip(codes);
        let refused = results
            .filter_map(|(filter, code)| Some((filter.clone(), Refusal::from_code(*code).err()?)))
            .collect();
        state.subscribed.push(Subscribed { filters, refused });
    }

    /// Moves the answers to publishes that have come into `acks`.
    pub(crate) fn take_acks(&self) -> Vec<Ack> {
        let mut state = self.state();
        if state.acks.is_empty() {
            return Vec::new();
        }
        state.owed_since = (!state.written.is_empty()).then(Instant::now);
        let capacity = state.acks.len();
        std::mem::replace(&mut state.acks, Vec::with_capacity(capacity))
    }

    /// The answers to subscriptions that have come.
    pub(crate) fn take_subscribed(&self) -> Vec<Subscribed> {
        std::mem::take(&mut self.state().subscribed)
    }

    /// The packet that was acknowledged or written although another one was expected.
    pub(crate) fn mismatch(&self) -> Option<u16> {
        self.state().mismatch
    }

    /// Since when acknowledgements are owed, all or one.
    pub(crate) fn overdue(&self) -> Option<(Instant, Overdue)> {
        let state = self.state();
        let skipped = state.skipped_since.map(|since| (since, Overdue::Skipped));
        skipped.or_else(|| state.owed_since.map(|since| (since, Overdue::All)))
    }

    /// Whether the broker owes acknowledgements.
    pub(crate) fn has_unacknowledged(&self) -> bool {
        !self.state().written.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn topic_hash(topic: &[u8]) -> u32 {
    crc32fast::hash(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(tracker: &AckTracker, token: u64, topic: &str) -> Option<Result<(), ()>> {
        tracker.publish(token, topic_hash(topic.as_bytes()), 3, || Ok(()))
    }

    #[test]
    fn acknowledgements_in_any_order_give_the_tokens_of_their_publishes() {
        let tracker = AckTracker::default();
        for (token, packet) in [(7, 1), (8, 2), (9, 3)] {
            assert_eq!(publish(&tracker, token, "t"), Some(Ok(())));
            tracker.publish_written(packet, b"t");
        }
        assert_eq!(publish(&tracker, 10, "t"), None, "the window is full");
        let tokens = |packet, code| {
            tracker.puback(packet, code);
            tracker.take_acks().iter().map(|ack| (ack.token, ack.result.is_ok())).collect()
        };
        let acks: [Vec<(u64, bool)>; 2] = [tokens(2, 0), tokens(1, 0x97)];
        assert_eq!(acks, [vec![(8, true)], vec![(7, false)]]);
        assert!(matches!(tracker.overdue(), Some((_, Overdue::All))));
        assert_eq!((tracker.mismatch(), tracker.has_unacknowledged()), (None, true));
        tracker.puback(2, 0);
        assert_eq!(tracker.mismatch(), Some(2), "acknowledged twice");
    }

    #[test]
    fn a_skipped_acknowledgement_is_noticed() {
        let tracker = AckTracker::default();
        for (token, packet) in [(7, 1), (8, 2)] {
            publish(&tracker, token, "t");
            tracker.publish_written(packet, b"t");
        }
        tracker.puback(2, 0);
        assert!(matches!(tracker.overdue(), Some((_, Overdue::Skipped))));
        tracker.puback(1, 0);
        assert_eq!(tracker.take_acks().len(), 2);
        assert!(tracker.overdue().is_none());
    }

    /// The library drops the first of two publishes silently.
    #[test]
    fn a_publish_that_is_written_in_place_of_another_is_noticed_and_not_acknowledged() {
        let tracker = AckTracker::default();
        publish(&tracker, 7, "t/a");
        publish(&tracker, 8, "t/b");
        tracker.publish_written(1, b"t/b");
        tracker.puback(1, 0);
        assert_eq!((tracker.mismatch(), tracker.take_acks()), (Some(1), vec![]));
    }

    #[test]
    fn what_the_library_does_not_take_is_not_noted() {
        let tracker = AckTracker::default();
        assert_eq!(tracker.publish(7, topic_hash(b"t/+"), 3, || Err(())), Some(Err(())));
        publish(&tracker, 8, "t/a");
        tracker.publish_written(1, b"t/a");
        tracker.puback(1, 0);
        assert_eq!(tracker.take_acks(), [Ack { token: 8, result: Ok(()) }]);
    }
}
