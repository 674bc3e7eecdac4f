//! Replay cache: a repeated change request gets the stored response and is not executed again. Only
//! requests with a transaction are stored: without one, two equal requests may both be meant.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::command::Command;
use super::failure::{Failure, FailureCode};
use super::request::Request;
use super::response::Response;
use crate::fleet::GatewayIndex;
use crate::ids::CommandName;

/// How long a response is stored, from the arrival of its request.
const RETENTION: Duration = Duration::from_secs(300);
/// Requests that run or are answered.
const ENTRIES_MAX: usize = 1_000;
/// Bytes of their payloads and responses.
const BYTES_MAX: usize = 4 << 20;

/// What is equal in a repeated request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayKey {
    /// With the transaction in it.
    payload: Bytes,
    name: CommandName,
    gateway: GatewayIndex,
}

impl ReplayKey {
    /// The key of a request; `None` for one that is not stored.
    pub fn new(gateway: GatewayIndex, request: &Request<Command>, payload: &Bytes) -> Option<Self> {
        let is_stored = request.name.changes() && request.transaction.is_some();
        is_stored.then(|| Self { payload: payload.clone(), name: request.name, gateway })
    }
}

/// What became of the first of equal requests.
#[derive(Debug)]
pub enum ReplayState<W> {
    /// It runs, and these repeats wait for its response.
    Running(Vec<W>),
    Answered(Box<Response>),
}

#[derive(Debug)]
struct Entry<W> {
    key: ReplayKey,
    arrived: Instant,
    bytes: usize,
    state: ReplayState<W>,
}

impl<W> Entry<W> {
    const fn is_answered(&self) -> bool {
        matches!(self.state, ReplayState::Answered(_))
    }
}

/// The requests that run, and the responses of the last minutes. `W` is the reply address of a
/// repeat that waits.
#[derive(Debug)]
pub struct ReplayCache<W> {
    /// In the order of arrival.
    entries: VecDeque<Entry<W>>,
    bytes: usize,
}

impl<W> Default for ReplayCache<W> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0 }
    }
}

impl<W> ReplayCache<W> {
    /// The first request with this key; `None` if this is it.
    pub fn first(&mut self, now: Instant, key: &ReplayKey) -> Option<&mut ReplayState<W>> {
        self.expire(now);
        let entry = self.entries.iter_mut().find(|entry| entry.key == *key)?;
        Some(&mut entry.state)
    }

    /// A new request starts: from now on its repeats wait for it.
    ///
    /// # Errors
    /// When the cache is full of running requests, which are never evicted.
    pub fn insert(&mut self, now: Instant, key: ReplayKey) -> Result<(), Failure> {
        let bytes = key.payload.len();
        let fits =
            |cache: &Self| cache.entries.len() < ENTRIES_MAX && cache.bytes + bytes <= BYTES_MAX;
        if !self.evict_until(fits) {
            let message = "too many changes are running at all gateways; send the request again \
                           after some are answered";
            return Err(Failure::new(FailureCode::RateLimited, message));
        }
        self.bytes += bytes;
        let state = ReplayState::Running(Vec::new());
        self.entries.push_back(Entry { key, arrived: now, bytes, state });
        Ok(())
    }

    /// A request has ended; returns the repeats that wait for it. Without a response it changed
    /// nothing, and a repeat of it is executed.
    pub fn finish(&mut self, key: &ReplayKey, response: Option<(&Response, usize)>) -> Vec<W> {
        let Some(at) = self.entries.iter().position(|entry| entry.key == *key) else {
            return Vec::new();
        };
        let before = match (response, self.entries.get_mut(at)) {
            (Some((response, size)), Some(entry)) => {
                entry.bytes += size;
                self.bytes += size;
                let answered = ReplayState::Answered(Box::new(response.clone()));
                Some(std::mem::replace(&mut entry.state, answered))
            }
            _ => self.remove(at).map(|entry| entry.state),
        };
        self.evict_until(|cache| cache.bytes <= BYTES_MAX);
        match before {
            Some(ReplayState::Running(waiters)) => waiters,
            Some(ReplayState::Answered(_)) | None => Vec::new(),
        }
    }

    fn expire(&mut self, now: Instant) {
        let Self { entries, bytes } = self;
        entries.retain(|entry| {
            let is_recent = now.saturating_duration_since(entry.arrived) < RETENTION;
            let is_kept = is_recent || !entry.is_answered();
            *bytes -= if is_kept { 0 } else { entry.bytes };
            is_kept
        });
    }

    /// Evicts the oldest responses until `fits`; returns whether it does.
    fn evict_until(&mut self, fits: impl Fn(&Self) -> bool) -> bool {
        while !fits(self) {
            let Some(at) = self.entries.iter().position(Entry::is_answered) else { return false };
            self.remove(at);
        }
        true
    }

    fn remove(&mut self, at: usize) -> Option<Entry<W>> {
        let entry = self.entries.remove(at)?;
        self.bytes -= entry.bytes;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::commands::{Command, Outcome};

    fn key(payload: &str) -> Option<ReplayKey> {
        let request = Command::read_request(CommandName::DisconnectAll, payload.as_bytes());
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        ReplayKey::new(GatewayIndex(0), &request.unwrap(), &payload)
    }

    fn numbered(number: usize) -> ReplayKey {
        key(&format!("{{\"transaction\":{number}}}")).unwrap()
    }

    fn response() -> Response {
        let outcome = Outcome::done(Value::Null);
        Response::new("disconnect_all", None, None, outcome, Duration::ZERO)
    }

    #[test]
    fn a_repeat_waits_for_the_first_and_is_then_answered_from_memory() {
        let (mut cache, now) = (ReplayCache::default(), Instant::now());
        let first = numbered(42);
        assert!(cache.first(now, &first).is_none());
        cache.insert(now, first.clone()).unwrap();
        match cache.first(now, &first) {
            Some(ReplayState::Running(waiters)) => waiters.push(2),
            other => panic!("{other:?}"),
        }
        let other = key(r#"{"transaction":42 }"#).unwrap();
        assert!(cache.first(now, &other).is_none(), "another payload is another request");
        assert_eq!(cache.finish(&first, Some((&response(), 100))), [2]);
        let later = now + RETENTION - Duration::from_millis(1);
        assert!(matches!(cache.first(later, &first), Some(ReplayState::Answered(_))));
        assert!(cache.first(now + RETENTION, &first).is_none());
        assert_eq!((cache.entries.len(), cache.bytes), (0, 0));
    }

    #[test]
    fn requests_without_execution_or_transaction_are_not_stored() {
        assert_eq!(key("{}"), None);
        let (mut cache, now) = (ReplayCache::<()>::default(), Instant::now());
        for _ in 0..2 {
            assert!(cache.first(now, &numbered(1)).is_none());
            cache.insert(now, numbered(1)).unwrap();
            cache.finish(&numbered(1), None);
        }
        assert_eq!((cache.entries.len(), cache.bytes), (0, 0));
    }

    #[test]
    fn a_thousand_responses_of_four_mebibytes_are_stored_and_the_oldest_evicted() {
        let (mut cache, now) = (ReplayCache::<()>::default(), Instant::now());
        for number in 0..3_000 {
            cache.insert(now, numbered(number)).unwrap();
            cache.finish(&numbered(number), Some((&response(), 100)));
        }
        assert_eq!(cache.entries.len(), ENTRIES_MAX);
        assert!(cache.entries.iter().all(|entry| entry.key != numbered(1_999)));
        for number in 3_000..3_008 {
            cache.insert(now, numbered(number)).unwrap();
            cache.finish(&numbered(number), Some((&response(), 1 << 20)));
            assert!(cache.bytes <= BYTES_MAX, "{}", cache.bytes);
        }
        assert_eq!(cache.entries.len(), 3, "three responses of 1 MiB each with its request");
    }

    #[test]
    fn running_requests_are_never_evicted_and_one_beyond_the_bound_is_refused() {
        let (mut cache, now) = (ReplayCache::<()>::default(), Instant::now());
        for number in 0..ENTRIES_MAX {
            cache.insert(now, numbered(number)).unwrap();
        }
        let late = now + RETENTION * 2;
        assert!(matches!(cache.first(late, &numbered(0)), Some(ReplayState::Running(_))));
        let refused = cache.insert(late, numbered(ENTRIES_MAX)).unwrap_err();
        assert_eq!(refused.code, FailureCode::RateLimited);
        assert_eq!(cache.entries.len(), ENTRIES_MAX);
        cache.finish(&numbered(7), Some((&response(), 100)));
        assert_eq!(cache.insert(late, numbered(ENTRIES_MAX)), Ok(()), "the response is evicted");
    }
}
