//! Clears the topics of devices and gateways that no longer exist, by empty retained messages: at
//! once, or after the first 60 s of the session.
//!
//! The store keeps a topic until the broker has accepted the empty message, because the process may
//! end before.

use std::collections::{BTreeSet, VecDeque};

use super::message::{MessageId, Outgoing, View};
use crate::ids::GatewayName;
use crate::payload::Subject;
use crate::topics::Topics;

/// The topics of states and infos that are to be cleared.
#[derive(Debug)]
pub(crate) struct Clearing {
    topics: Topics,
    /// In the order in which they are cleared.
    pub(crate) queue: ClearQueue,
    /// Gateways whose retained state has to become `offline`, as it is not cleared yet.
    offline: BTreeSet<GatewayName>,
    /// Topics that are to be cleared (`true`), or are not any more, and are not stored yet.
    changes: Vec<(String, bool)>,
}

impl Clearing {
    pub(crate) fn new(topics: Topics) -> Self {
        let (offline, changes) = (BTreeSet::new(), Vec::new());
        Self { topics, queue: ClearQueue::default(), offline, changes }
    }

    pub(crate) fn clear(&mut self, topic: String) {
        self.changes.push((topic.clone(), true));
        self.queue.push(topic);
    }

    /// What has to be stored: topics, and whether they are still to be cleared.
    pub(crate) fn take_changes(&mut self) -> Vec<(String, bool)> {
        std::mem::take(&mut self.changes)
    }

    /// Clears topics of a gateway that is not configured, which `forget` named.
    pub(crate) fn clear_at_once(&mut self, topics: BTreeSet<String>) {
        for topic in topics {
            self.changes.push((topic.clone(), true));
            self.queue.at_once.push_back(topic);
        }
    }

    /// The state of this gateway is published as `offline`, if it is to be cleared later.
    pub(crate) fn set_offline(&mut self, gateway: GatewayName) {
        self.offline.insert(gateway);
    }

    /// The next `offline` of a gateway.
    pub(crate) fn next_offline(&mut self) -> Option<Outgoing> {
        loop {
            let gateway = self.offline.pop_first()?;
            let topic = self.topics.gateway_state(&gateway);
            if self.queue.later.contains(&topic) {
                return Some(Outgoing::text(MessageId::Offline(gateway), topic, "offline"));
            }
        }
    }

    /// Nothing of this gateway is cleared any more.
    pub(crate) fn keep(&mut self, gateway: &GatewayName) {
        let Self { topics, queue, .. } = self;
        let is_of =
            |topic: &str| topics.owner(topic).is_some_and(|owner| owner.gateway() == Some(gateway));
        self.changes.extend(queue.remove(is_of).into_iter().map(|topic| (topic, false)));
    }

    /// The next message, for a topic that is still of nothing that exists.
    pub(crate) fn next(&mut self, view: &View) -> Option<Outgoing> {
        loop {
            let topic = self.queue.pop()?;
            if !self.is_in_use(&topic, view) {
                return Some(Outgoing::text(MessageId::Clear(topic.clone()), topic, ""));
            }
            self.finish(topic);
        }
    }

    /// Whether the gateway or device of a topic exists again, so that its value is true.
    fn is_in_use(&self, topic: &str, view: &View) -> bool {
        let find = |name| view.directory.find(name);
        match self.topics.owner(topic) {
            Some(Subject::Device(name, device_id)) => {
                find(&name).is_some_and(|gateway| view.fleet.device(gateway, device_id).is_some())
            }
            Some(Subject::Gateway(name)) => find(&name).is_some(),
            Some(Subject::Bridge) | None => false,
        }
    }

    /// The topic is cleared, or cannot be.
    pub(crate) fn finish(&mut self, topic: String) {
        self.queue.finish(&topic);
        self.changes.push((topic, false));
    }
}

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

    /// The session has lasted long enough to clear what no longer exists.
    pub(crate) const fn set_settled(&mut self) {
        self.is_settled = true;
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

    /// A topic that was sent is to be cleared again, unless it was removed meanwhile.
    pub(crate) fn retry(&mut self, topic: String) {
        if self.sent.remove(&topic) {
            self.later.push_back(topic);
        }
    }

    /// Removes topics, which are not to be cleared any more; returns them.
    pub(crate) fn remove(&mut self, is_removed: impl Fn(&str) -> bool) -> Vec<String> {
        let removed = self.topics().filter(|it| is_removed(it)).cloned().collect();
        self.at_once.retain(|it| !is_removed(it));
        self.later.retain(|it| !is_removed(it));
        self.sent.retain(|it| !is_removed(it));
        removed
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
        self.topics().next().is_none()
    }

    /// All topics that are not known to be cleared.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &String> {
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
        queue.at_once.push_back("now".to_owned());
        queue.prioritize(&BTreeSet::from(["b".to_owned()]));
        assert_eq!([queue.pop(), queue.pop()].map(Option::unwrap), ["now", "b"]);
        assert_eq!((queue.pop(), queue.is_ready(), queue.is_empty()), (None, false, false));
        queue.set_settled();
        assert_eq!([queue.pop(), queue.pop()].map(Option::unwrap), ["a", "c"]);
        ["now", "b", "a"].into_iter().for_each(|topic| queue.finish(topic));
        queue.retry("c".to_owned());
        assert_eq!(queue.remove(|it| it == "x"), Vec::<String>::new());
        assert_eq!(queue.pop().as_deref(), Some("c"));
        queue.disconnected();
        assert_eq!((queue.pop(), queue.topics().count()), (None, 1));
        queue.set_settled();
        assert_eq!(queue.pop().as_deref(), Some("c"));
        assert_eq!(queue.remove(|it| it == "c"), ["c"]);
        queue.retry("c".to_owned());
        assert!(queue.is_empty());
    }
}
