//! Answers to requests, from when they are ready until the broker has acknowledged them. They are
//! bounded by number and by bytes, and end with their connection.

use std::collections::VecDeque;

use super::message::{Answer, MessageId, Outgoing};
use crate::mqtt::refusal::Refusal;

/// Answers that wait or are in flight.
const ANSWERS_MAX: usize = 10_000;
/// Bytes of them. A single answer may be larger: `mqtt.max_answer` or the broker's own limit bounds
/// it.
const ANSWERS_BYTES_MAX: usize = 8 << 20;
/// The part of [`ANSWERS_BYTES_MAX`] that answers to requests beyond a rate limit may use, so that
/// a flood of requests does not displace other answers.
const RATE_LIMITED_BYTES_MAX: usize = ANSWERS_BYTES_MAX / 4 * 3;
/// Answers in flight, so that large ones do not fill the connection ahead of events.
const IN_FLIGHT_MAX: usize = 4;

/// Why an answer is not sent. The requester has to repeat the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerDropped {
    NotConnected,
    /// Too many answers wait, or too many bytes of them.
    QueueFull,
}

impl AnswerDropped {
    /// The metric label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NotConnected => "answer_not_connected",
            Self::QueueFull => "answers_full",
        }
    }
}

/// The answers of one connection.
#[derive(Debug, Default)]
pub(crate) struct AnswerQueue {
    waiting: VecDeque<Answer>,
    /// Sent after all others.
    rate_limited: VecDeque<Answer>,
    in_flight: usize,
    memory: usize,
}

impl AnswerQueue {
    pub(crate) fn push(&mut self, answer: Answer) -> Result<(), AnswerDropped> {
        let memory = self.memory + answer.memory();
        let in_use = self.waiting.len() + self.in_flight;
        let (queue, count, bytes_max) = if answer.is_rate_limited {
            let count = self.rate_limited.len();
            (&mut self.rate_limited, count, RATE_LIMITED_BYTES_MAX)
        } else {
            (&mut self.waiting, in_use, ANSWERS_BYTES_MAX)
        };
        if (count >= ANSWERS_MAX || memory > bytes_max) && count > 0 {
            return Err(AnswerDropped::QueueFull);
        }
        self.memory = memory;
        queue.push_back(answer);
        Ok(())
    }

    /// The next answer; it is in flight from now on.
    pub(crate) fn next(&mut self) -> Option<Outgoing> {
        if self.in_flight >= IN_FLIGHT_MAX {
            return None;
        }
        let answer = self.waiting.pop_front().or_else(|| self.rate_limited.pop_front())?;
        self.in_flight += 1;
        let (topic, payload) = (answer.topic.clone(), answer.payload.clone());
        let correlation_data = answer.correlation_data.clone();
        let mut outgoing = Outgoing::json(MessageId::Answer(Box::new(answer)), topic, payload);
        outgoing.publish.correlation_data = correlation_data;
        Some(outgoing)
    }

    /// The broker has accepted an answer, or refused it; then another may go in its place.
    pub(crate) fn acknowledged(&mut self, answer: Answer, result: Result<(), Refusal>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.memory = self.memory.saturating_sub(answer.memory());
        if let Err(refusal) = result
            && let Some(next) = answer.fallback(refusal)
        {
            // The queue has just lost a larger one.
            self.memory += next.memory();
            self.waiting.push_back(next);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.rate_limited.is_empty() && self.in_flight == 0
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn sent(queue: &mut AnswerQueue) -> Answer {
        match queue.next().unwrap().id {
            MessageId::Answer(answer) => *answer,
            other => panic!("{other:?}"),
        }
    }

    fn answer(len: usize) -> Answer {
        Answer {
            topic: "gsdk-reply/1".to_owned(),
            fallback_topic: Some("gsdk/lobby/response/devices".to_owned()),
            payload: vec![b' '; len].into(),
            short: None,
            correlation_data: None,
            is_rate_limited: false,
        }
    }

    #[test]
    fn a_flood_beyond_a_limit_of_rate_keeps_no_other_answer_waiting() {
        let mut queue = AnswerQueue::default();
        let rate_limited = || Answer { is_rate_limited: true, ..answer(100) };
        let queued = (0..20_000).filter(|_| queue.push(rate_limited()).is_ok()).count();
        assert_eq!(queued, ANSWERS_MAX);
        assert_eq!(queue.push(answer(7 << 20)), Ok(()));
        assert_eq!(queue.push(rate_limited()), Err(AnswerDropped::QueueFull));
        assert!(!sent(&mut queue).is_rate_limited, "the later one is sent first");
        assert!(sent(&mut queue).is_rate_limited && !queue.is_empty());
    }

    #[test]
    fn answers_are_bounded_by_bytes_and_one_alone_always_fits() {
        let mut queue = AnswerQueue::default();
        let queued = (0..100).filter(|_| queue.push(answer(1 << 20)).is_ok()).count();
        assert_eq!(queued, 7, "the bound of 8 MiB, less what each takes beside its payload");
        let mut queue = AnswerQueue::default();
        assert_eq!(queue.push(answer(20 << 20)), Ok(()));
        assert_eq!(queue.push(answer(1)), Err(AnswerDropped::QueueFull));
        let large = sent(&mut queue);
        assert_eq!(queue.push(answer(1)), Err(AnswerDropped::QueueFull), "it counts in flight too");
        queue.acknowledged(large, Ok(()));
        assert_eq!((queue.push(answer(1)), queue.memory), (Ok(()), answer(1).memory()));
    }

    #[test]
    fn an_answer_refused_as_too_large_is_replaced_by_its_short_one() {
        let mut queue = AnswerQueue::default();
        let correlation_data = Some(Bytes::from_static(b"7"));
        let long = Answer { correlation_data, ..answer(5_000) };
        queue.push(long.or_short(Bytes::from_static(b"short"))).unwrap();
        let long = sent(&mut queue);
        queue.acknowledged(long, Err(Refusal::PACKET_TOO_LARGE));
        let short = sent(&mut queue);
        assert_eq!((&short.payload[..], short.topic.as_str()), (&b"short"[..], "gsdk-reply/1"));
        queue.acknowledged(short, Err(Refusal::PACKET_TOO_LARGE));
        let (own, own_topic) = (sent(&mut queue), "gsdk/lobby/response/devices");
        assert_eq!(own.topic, own_topic);
        assert!(own.correlation_data.is_some());
        queue.acknowledged(own, Err(Refusal::PACKET_TOO_LARGE));
        let bare = sent(&mut queue);
        assert_eq!((bare.topic.as_str(), &bare.correlation_data), (own_topic, &None));
        queue.acknowledged(bare, Err(Refusal::PACKET_TOO_LARGE));
        assert!(queue.is_empty());
        assert_eq!(queue.memory, 0);
    }
}
