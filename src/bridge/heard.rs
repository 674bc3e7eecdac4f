//! What the bridge hears on its own topics: late last wills, other bridges, requests.
//!
//! May not publish: the publisher is told.

use tokio::time::Instant;

use super::Bridge;
use super::rivals::{STEP_BACK, Verdict};
use crate::mqtt::Message;
use crate::payload::rfc3339;

impl Bridge {
    pub(super) fn message(&mut self, message: &Message) {
        let topics = self.publisher.topics();
        if message.topic == topics.bridge_state() && message.payload == "offline" {
            self.health.own_state.received(
                &message.payload,
                message.retain,
                self.publisher.is_online(),
            );
            self.publisher.state_again();
        } else if message.topic == topics.bridge_state() {
            self.health.own_state.received(
                &message.payload,
                message.retain,
                self.publisher.is_online(),
            );
            self.rivals.state_heard(message.retain && message.payload == "online");
        } else if message.topic == topics.bridge_info() {
            self.info_heard(message);
        } else {
            self.leftover(message);
            self.discovery_heard(message);
            self.requested(message);
        }
    }

    fn info_heard(&mut self, message: &Message) {
        let started_at = rfc3339(self.info.started_at);
        let ours = (self.info.instance_id.as_str(), started_at.as_str());
        let now = Instant::now();
        let known = self.rivals.reason(now).is_some();
        let verdict = self.rivals.heard(now, message.retain, &message.payload, ours);
        if verdict == Verdict::Ourselves {
            if !message.retain {
                self.own_info_heard();
            }
            return;
        }
        let Some(reason) = self.rivals.reason(now).filter(|_| verdict != Verdict::Gone) else {
            return;
        };
        tracing::error!("{reason}");
        if verdict == Verdict::Stay {
            // It takes our answer for what it is: alive.
            self.publisher.bridge_info_again();
            if !known {
                // Where both began at once, it may have spoken in our name.
                self.publisher.all_changed(&self.fleet);
            }
        }
        if verdict == Verdict::StepBack
            && let Some(connection) = self.connection_ended(reason, false)
        {
            // Without a word: `offline` would be said in the name of the other, too.
            connection.disconnect();
            self.session_again_at = Some(now + STEP_BACK);
        }
    }
}
