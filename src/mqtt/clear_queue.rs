//! Topics to be cleared: at once, or once the session has settled (contract, "Clearing").

use std::collections::VecDeque;

/// Topics in the order in which they are cleared.
#[derive(Debug, Default)]
pub(super) struct ClearQueue {
    at_once: VecDeque<String>,
    /// Held back until the session has settled.
    later: VecDeque<String>,
    is_settled: bool,
}

impl ClearQueue {
    /// A topic that must not wait: it was named by `forget`, or what it says is not true.
    pub(super) fn push_at_once(&mut self, topic: String) {
        self.at_once.push_back(topic);
    }

    /// A topic of something that is gone.
    pub(super) fn push_back(&mut self, topic: String) {
        self.later.push_back(topic);
    }

    /// Topics of what is gone.
    pub(super) fn extend(&mut self, topics: Vec<String>) {
        self.later.extend(topics);
    }

    /// Lets these topics wait no longer.
    pub(super) fn hasten(&mut self, is_wanted: impl Fn(&String) -> bool) {
        let (wanted, later): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.later).into_iter().partition(|topic| is_wanted(topic));
        self.later = later;
        self.at_once.extend(wanted);
    }

    /// Whether the session has settled.
    pub(super) const fn set_settled(&mut self, is_settled: bool) {
        self.is_settled = is_settled;
    }

    /// The next topic that may be cleared now.
    pub(super) fn pop_front(&mut self) -> Option<String> {
        let later = if self.is_settled { Some(&mut self.later) } else { None };
        self.at_once.pop_front().or_else(|| later?.pop_front())
    }

    /// Whether a topic may be cleared now.
    pub(super) fn is_ready(&self) -> bool {
        !self.at_once.is_empty() || (self.is_settled && !self.later.is_empty())
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.at_once.is_empty() && self.later.is_empty()
    }

    /// All that waits.
    pub(super) fn iter(&self) -> impl Iterator<Item = &String> {
        self.at_once.iter().chain(&self.later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_waits_for_the_session_to_settle_unless_it_is_hastened() {
        let mut queue = ClearQueue::default();
        for topic in ["a", "b", "c"] {
            queue.push_back(topic.to_owned());
        }
        queue.push_at_once("now".to_owned());
        queue.hasten(|topic| topic == "b");
        assert_eq!([queue.pop_front(), queue.pop_front()].map(Option::unwrap), ["now", "b"]);
        assert_eq!((queue.pop_front(), queue.is_ready(), queue.is_empty()), (None, false, false));
        queue.set_settled(true);
        assert_eq!([queue.pop_front(), queue.pop_front()].map(Option::unwrap), ["a", "c"]);
        assert!(queue.is_empty());
    }
}
