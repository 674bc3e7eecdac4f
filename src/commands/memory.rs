//! The answers of late: a change asked for again by a nervous client is answered, not made again.
//!
//! May not run anything, nor read a clock. Only requests with a transaction are remembered: without
//! one, two equal requests may well be meant.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::name::Name;
use super::request::Request;
use super::response::Response;
use crate::ids::GatewayName;

/// How long an answer is remembered (contract, section 4).
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
/// How many answers are remembered (contract, section 4).
const REMEMBERED_MAX: usize = 1_000;
/// How many bytes of requests are remembered with them; beyond it the oldest goes.
const BYTES_MAX: usize = 8 << 20;
/// How many repeats may wait for the first one's answer.
const WAITERS_MAX: usize = 16;

/// What makes a request the same as another.
type Key = (GatewayName, Name, String, Bytes);

#[derive(Debug)]
enum Entry<W> {
    Running(Vec<W>),
    Answered(Box<Response>),
}

/// What is known of a request.
#[derive(Debug)]
pub enum Recalled<W> {
    /// It is new, or never remembered: it is to be run.
    New(W),
    /// It was answered like this.
    Answered(Box<Response>, W),
    /// The first one still runs: the answer comes with its.
    Waits,
    /// Too many wait for it already.
    Full(W),
}

/// The answers of late, and who waits for one; `W` is how a waiter is answered.
#[derive(Debug)]
pub struct Memory<W> {
    entries: HashMap<Key, Entry<W>>,
    order: VecDeque<(Instant, Key)>,
    bytes: usize,
}

impl<W> Default for Memory<W> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }
}

impl<W> Memory<W> {
    /// What is known of this request.
    pub fn recall(
        &mut self,
        now: Instant,
        gateway: &GatewayName,
        request: &Request,
        payload: &Bytes,
        waiter: W,
    ) -> Recalled<W> {
        self.forget_old(now);
        let Some(key) = key(gateway, request, payload) else { return Recalled::New(waiter) };
        match self.entries.get_mut(&key) {
            Some(Entry::Answered(response)) => {
                let response = Response { replayed: true, ..(**response).clone() };
                Recalled::Answered(Box::new(response), waiter)
            }
            Some(Entry::Running(waiters)) if waiters.len() < WAITERS_MAX => {
                waiters.push(waiter);
                Recalled::Waits
            }
            Some(Entry::Running(_)) => Recalled::Full(waiter),
            None => Recalled::New(waiter),
        }
    }

    /// A new request begins: from now on its repeats wait for it.
    pub fn begins(
        &mut self,
        now: Instant,
        gateway: &GatewayName,
        request: &Request,
        payload: &Bytes,
    ) {
        let Some(key) = key(gateway, request, payload) else { return };
        self.bytes += payload.len();
        self.order.push_back((now, key.clone()));
        self.entries.insert(key, Entry::Running(Vec::new()));
    }

    /// The request has been answered; gives who waited for it too. One that did not run is not
    /// remembered, so that it can be asked for again.
    pub fn answered(
        &mut self,
        gateway: &GatewayName,
        request: &Request,
        payload: &Bytes,
        response: &Response,
        ran: bool,
    ) -> Vec<W> {
        let Some(key) = key(gateway, request, payload) else { return Vec::new() };
        let Some(entry) = self.entries.get_mut(&key) else { return Vec::new() };
        let before = if ran {
            std::mem::replace(entry, Entry::Answered(Box::new(response.clone())))
        } else {
            let Some(entry) = self.entries.remove(&key) else { return Vec::new() };
            self.order.retain(|(_, other)| *other != key);
            self.bytes -= payload.len();
            entry
        };
        match before {
            Entry::Running(waiters) => waiters,
            Entry::Answered(_) => Vec::new(),
        }
    }

    /// Those that still run stay, or their waiters would never be answered.
    fn forget_old(&mut self, now: Instant) {
        let mut running = Vec::new();
        while let Some((at, key)) = self.order.front() {
            let over = self.order.len() >= REMEMBERED_MAX || self.bytes > BYTES_MAX;
            if !over && now.saturating_duration_since(*at) < REMEMBERED_FOR {
                break;
            }
            if matches!(self.entries.get(key), Some(Entry::Running(_))) {
                running.extend(self.order.pop_front());
                continue;
            }
            self.entries.remove(key);
            self.bytes -= key.3.len();
            self.order.pop_front();
        }
        for entry in running.into_iter().rev() {
            self.order.push_front(entry);
        }
    }
}

fn key(gateway: &GatewayName, request: &Request, payload: &Bytes) -> Option<Key> {
    let transaction = request.transaction.as_ref().filter(|_| request.name.changes())?;
    Some((gateway.clone(), request.name, transaction.to_string(), payload.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::commands::Outcome;

    fn request(payload: &str) -> (Request, Bytes) {
        let bytes = Bytes::copy_from_slice(payload.as_bytes());
        (Request::read(Name::DisconnectAll, payload.as_bytes()).unwrap(), bytes)
    }

    fn response() -> Response {
        let outcome = Outcome::done(Value::Null);
        Response::new("x", None, None, outcome, Duration::ZERO, |_| Value::Null)
    }

    #[test]
    fn a_repeat_waits_for_the_first_and_is_then_answered_from_memory() {
        let (mut memory, gateway) = (Memory::default(), "lobby".parse().unwrap());
        let now = Instant::now();
        let (first, payload) = request(r#"{"transaction":"42"}"#);
        assert!(matches!(memory.recall(now, &gateway, &first, &payload, 1), Recalled::New(1)));
        memory.begins(now, &gateway, &first, &payload);
        assert!(matches!(memory.recall(now, &gateway, &first, &payload, 2), Recalled::Waits));
        let (other, other_payload) = request(r#"{"transaction":"42" }"#);
        let recalled = memory.recall(now, &gateway, &other, &other_payload, 3);
        assert!(matches!(recalled, Recalled::New(3)), "another payload is another request");
        assert_eq!(memory.answered(&gateway, &first, &payload, &response(), true), [2]);
        let later = now + REMEMBERED_FOR - Duration::from_millis(1);
        match memory.recall(later, &gateway, &first, &payload, 4) {
            Recalled::Answered(response, 4) => assert!(response.replayed),
            other => panic!("{other:?}"),
        }
        let recalled = memory.recall(now + REMEMBERED_FOR, &gateway, &first, &payload, 5);
        assert!(matches!(recalled, Recalled::New(5)));
    }

    #[test]
    fn what_did_not_run_and_what_has_no_name_is_not_remembered() {
        let (mut memory, gateway) = (Memory::default(), "lobby".parse().unwrap());
        let now = Instant::now();
        for payload in [r#"{"transaction":1}"#, "{}"] {
            let (request, payload) = request(payload);
            for _ in 0..2 {
                let recalled = memory.recall(now, &gateway, &request, &payload, ());
                assert!(matches!(recalled, Recalled::New(())));
                memory.begins(now, &gateway, &request, &payload);
                memory.answered(&gateway, &request, &payload, &response(), false);
            }
        }
        assert_eq!((memory.entries.len(), memory.order.len(), memory.bytes), (0, 0, 0));
    }

    #[test]
    fn a_thousand_are_remembered() {
        let (mut memory, gateway) = (Memory::default(), "lobby".parse().unwrap());
        let now = Instant::now();
        for number in 0..3_000 {
            let (request, payload) = request(&format!("{{\"transaction\":{number}}}"));
            memory.recall(now, &gateway, &request, &payload, ());
            memory.begins(now, &gateway, &request, &payload);
            memory.answered(&gateway, &request, &payload, &response(), true);
        }
        assert_eq!(memory.entries.len(), REMEMBERED_MAX);
    }
}
