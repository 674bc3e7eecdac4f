//! Messages from the broker: the bridge's own topics, what is retained, requests.

use tokio::time::Instant;

use super::Bridge;
use super::duplicates::InfoAction;
use crate::mqtt::Message;

impl Bridge {
    pub(super) fn message(&mut self, message: &Message) {
        if self.connection.is_none() {
            // It is of a session that has been given up.
            return;
        }
        let topics = self.publisher.topics();
        if message.topic == topics.bridge_state() {
            let is_online = self.publisher.is_online();
            self.health.own_state.received(&message.payload, message.retain, is_online);
            if message.payload == "offline" {
                self.publisher.state_again();
            }
        } else if message.topic == topics.bridge_info() {
            self.info_received(message);
        } else {
            self.stale_topic(message);
            self.discovery_heard(message);
            self.forget_received(message);
            self.requested(message);
        }
    }

    fn info_received(&mut self, message: &Message) {
        let (now, checking) = (Instant::now(), self.publisher.is_checking());
        match self.duplicates.received(now, message.retain, &message.payload, checking) {
            InfoAction::Own if !message.retain => self.own_info_received(),
            InfoAction::Own | InfoAction::Ignore => {}
            InfoAction::Answer => {
                tracing::error!("another bridge has connected under this name; answering it");
                self.publisher.bridge_info_again();
            }
            InfoAction::StepBack => self.step_back(now),
        }
    }

    /// Another instance is there: leaves without a word, as `offline` would be said in its name.
    fn step_back(&mut self, now: Instant) {
        let Some(reason) = self.duplicates.fault(now) else { return };
        let wait = self.duplicates.step_back();
        tracing::error!(?wait, "{reason}");
        if let Some(connection) = self.connection_ended(reason, false) {
            connection.disconnect();
        }
        self.session_again_at = Some(now + wait);
    }
}
