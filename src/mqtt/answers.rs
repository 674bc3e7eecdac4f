//! Answers that wait for the broker, and where one goes that it does not take.
//!
//! May not hold up events: `sending` gives answers their share.

use super::connection::Publish;
use super::publisher::{Publisher, Sent};
use super::requests::Answer;

/// Answers that may wait for the broker: more than a flood of requests at its rate makes. Beyond
/// it an answer is dropped, and counted.
const ANSWERS_MAX: usize = 20_000;

impl Answer {
    /// A bound on the size of its packet, wherever it goes; at most a few bytes too large.
    #[must_use]
    pub fn packet_size(&self) -> usize {
        let otherwise = self.otherwise.as_ref().map_or(0, String::len);
        let publish = Publish {
            payload: self.payload.clone(),
            content_type: Some("application/json"),
            correlation_data: self.correlation_data.clone(),
            ..Publish::default()
        };
        publish.size() + self.topic.len().max(otherwise)
    }
}

impl Publisher {
    /// An answer to a request; false where so many wait that it is dropped.
    pub fn answer(&mut self, answer: Answer) -> bool {
        let room = self.answers.len() < ANSWERS_MAX;
        if room {
            self.answers.push_back(answer);
        }
        room
    }

    /// Whether answers wait, or are not acknowledged yet.
    #[must_use]
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
            || self.in_flight.values().any(|sent| matches!(sent, Sent::Answer(_)))
    }

    /// An answer that the broker would not take where it was wanted goes on our own topic, once.
    pub(super) fn answer_otherwise(&mut self, answer: Answer) {
        if let Some(topic) = answer.otherwise {
            self.answers.push_back(Answer { topic, otherwise: None, ..answer });
        }
    }
}
