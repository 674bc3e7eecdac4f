//! Topics to be cleared: at once, or once the session has settled (contract, "Clearing").

use std::collections::{BTreeSet, VecDeque};

/// Topics in the order in which they are cleared.
#[derive(Debug, Default)]
pub(crate) struct ClearQueue {
    at_once: VecDeque<String>,
    /// Held back until the session has settled.
    later: VecDeque<String>,
    /// Sent, and not known to be accepted.
    sent: BTreeSet<String>,
    is_settled: bool,
}

impl ClearQueue {
    /// Adds a topic that `forget` named.
    pub(crate) fn push_at_once(&mut self, topic: String) {
        self.at_once.push_back(topic);
    }

    /// Adds the topic of something that no longer exists.
    pub(crate) fn push(&mut self, topic: String) {
        self.later.push_back(topic);
    }

    /// Holds these topics back no longer.
    pub(crate) fn prioritize(&mut self, topics: &BTreeSet<String>) {
        let (wanted, later): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.later).into_iter().partition(|it| topics.contains(it));
        self.later = later;
        self.at_once.extend(wanted);
    }

    pub(crate) const fn set_settled(&mut self, is_settled: bool) {
        self.is_settled = is_settled;
    }

    /// The next topic that may be cleared now; it counts as sent.
    pub(crate) fn pop(&mut self) -> Option<String> {
        let later = if self.is_settled { Some(&mut self.later) } else { None };
        let topic = self.at_once.pop_front().or_else(|| later?.pop_front())?;
        self.sent.insert(topic.clone());
        Some(topic)
    }

    /// A topic that was sent is cleared, or cannot be.
    pub(crate) fn finish(&mut self, topic: &str) {
        self.sent.remove(topic);
    }

    /// A topic that was sent is to be cleared again.
    pub(crate) fn retry(&mut self, topic: String) {
        self.sent.remove(&topic);
        self.later.push_back(topic);
    }

    /// Everything sent is to be cleared again, on a new connection that has not settled yet.
    pub(crate) fn disconnected(&mut self) {
        self.later.extend(std::mem::take(&mut self.sent));
        self.is_settled = false;
    }

    /// Whether a topic may be cleared now.
    pub(crate) fn is_ready(&self) -> bool {
        !self.at_once.is_empty() || (self.is_settled && !self.later.is_empty())
    }

    /// Whether everything is cleared.
    pub(crate) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// All topics that are not known to be cleared.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &String> {
        self.at_once.iter().chain(&self.later).chain(&self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_wait_for_the_session_to_settle_unless_they_have_priority() {
        let mut queue = ClearQueue::default();
        for topic in ["a", "b", "c"] {
            queue.push(topic.to_owned());
        }
        queue.push_at_once("now".to_owned());
        queue.prioritize(&BTreeSet::from(["b".to_owned()]));
        assert_eq!([queue.pop(), queue.pop()].map(Option::unwrap), ["now", "b"]);
        assert_eq!((queue.pop(), queue.is_ready(), queue.is_empty()), (None, false, false));
        queue.set_settled(true);
        assert_eq!([queue.pop(), queue.pop()].map(Option::unwrap), ["a", "c"]);
        ["now", "b", "a"].into_iter().for_each(|topic| queue.finish(topic));
        queue.retry("c".to_owned());
        assert_eq!(queue.pop().as_deref(), Some("c"));
        queue.disconnected();
        assert_eq!((queue.pop(), queue.iter().count()), (None, 1));
    }
}
