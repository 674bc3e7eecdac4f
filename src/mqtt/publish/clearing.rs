//! Clears the topics of what no longer exists, by empty retained messages.
//!
//! The store remembers a topic until the broker has accepted that: the process may end before.

use std::collections::BTreeSet;

use super::clear_queue::ClearQueue;
use super::message::{MessageId, Outgoing, View};
use crate::fleet::GatewayIndex;
use crate::mqtt::topics::Topics;
use crate::store::{Key, Outbox};

/// The topics of states and infos that are to be cleared.
#[derive(Debug, Default)]
pub(crate) struct Clearing {
    queue: ClearQueue,
}

impl Clearing {
    pub(crate) fn clear(&mut self, topic: String, outbox: &mut Outbox) {
        outbox.changes().put(Key::Clearing(topic.clone()), &[]);
        self.queue.push(topic);
    }

    /// Clears topics of a gateway that is not configured, which `forget` named.
    pub(crate) fn clear_at_once(&mut self, topics: BTreeSet<String>, outbox: &mut Outbox) {
        for topic in topics {
            outbox.changes().put(Key::Clearing(topic.clone()), &[]);
            self.queue.push_at_once(topic);
        }
    }

    /// Restores a topic that was not cleared when an earlier process ended.
    pub(crate) fn restore(&mut self, topic: String) {
        self.queue.push(topic);
    }

    /// Lets these topics, which `forget` named, not wait for the session to settle.
    pub(crate) fn prioritize(&mut self, topics: &BTreeSet<String>) {
        self.queue.prioritize(topics);
    }

    pub(crate) const fn set_settled(&mut self) {
        self.queue.set_settled(true);
    }

    pub(crate) fn disconnected(&mut self) {
        self.queue.disconnected();
    }

    /// The next message, for a topic that is still of nothing that exists.
    pub(crate) fn next(
        &mut self,
        topics: &Topics,
        view: &View,
        outbox: &mut Outbox,
    ) -> Option<Outgoing> {
        loop {
            let topic = self.queue.pop()?;
            if !is_in_use(&topic, topics, view) {
                return Some(Outgoing::text(MessageId::Clear(topic.clone()), topic, ""));
            }
            self.finish(topic, outbox);
        }
    }

    /// The topic is cleared, or cannot be.
    pub(crate) fn finish(&mut self, topic: String, outbox: &mut Outbox) {
        self.queue.finish(&topic);
        outbox.changes().remove(Key::Clearing(topic));
    }

    pub(crate) fn retry(&mut self, topic: String) {
        self.queue.retry(topic);
    }

    /// Whether nothing is left to be cleared.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The topics that are not known to be cleared.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &String> {
        self.queue.iter()
    }
}

/// Whether the gateway or device of a topic exists again, so that its value is true.
fn is_in_use(topic: &str, topics: &Topics, view: &View) -> bool {
    let Some(owner) = topics.owner(topic) else { return false };
    let mut entries = view.directory.gateways.iter();
    let Some(at) = entries.position(|entry| entry.name == owner.gateway) else { return false };
    let exists = |device_id| view.fleet.device(GatewayIndex(at), device_id).is_some();
    owner.device_id.is_none_or(exists)
}
