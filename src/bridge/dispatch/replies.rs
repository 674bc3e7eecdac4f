//! The replies to requests: to those that have run, to repeats of them, and to refused ones.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::audit::{Audit, AuditTarget};
use super::response::{Reply, refusal, respond};
use super::task::{Finished, StartedCommand};
use crate::commands::{
    Failure, FailureCode, RefusedRequest, ReplayCache, ReplayKey, ReplayState, Response,
    TokenBucket,
};
use crate::fleet::GatewayIndex;
use crate::ids::CommandName;
use crate::mqtt::Requester;
use crate::payload::to_bytes;

/// The least time between two events of refused changes of a gateway, or of the bridge itself.
const REFUSAL_EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// Repeats that may wait for the response to a running request.
const WAITERS_MAX: usize = 16;

/// Makes replies and queues them for the loop.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    replay_cache: ReplayCache<Requester>,
    /// Limits the events of refused changes; `None`: of the bridge itself.
    refusal_events: BTreeMap<Option<GatewayIndex>, TokenBucket>,
    queue: Vec<Reply>,
}

impl Replies {
    pub(crate) fn push(&mut self, reply: Reply) {
        self.queue.push(reply);
    }

    /// The replies since the last call.
    pub(crate) fn take(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.queue)
    }

    /// Answers a repeat from the cache or lets it wait. Returns the command if it is no repeat.
    pub(crate) fn repeat(
        &mut self,
        key: Option<&ReplayKey>,
        started: StartedCommand,
    ) -> Option<StartedCommand> {
        match key.and_then(|key| self.replay_cache.first(Instant::now(), key)) {
            None => return Some(started),
            Some(ReplayState::Answered(response)) => {
                let reply = replayed(response, started.requester);
                self.push(reply);
            }
            Some(ReplayState::Running(waiters)) if waiters.len() < WAITERS_MAX => {
                waiters.push(started.requester);
            }
            Some(ReplayState::Running(_)) => self.refuse_command(started, too_many_repeats()),
        }
        None
    }

    /// A command starts: from now on its repeats wait for it.
    pub(crate) fn insert(&mut self, key: ReplayKey) -> Result<(), Failure> {
        self.replay_cache.insert(Instant::now(), key)
    }

    /// Replies to a command that has ended, and to the repeats that wait for it. If it changed
    /// nothing, returns these: what kept the first from it, such as its expiry, was its own.
    pub(crate) fn ended(&mut self, finished: Finished) -> Vec<StartedCommand> {
        let Finished { started, outcome, was_run, .. } = finished;
        let is_replayable = was_run && outcome.is_replayable;
        let StartedCommand { gateway, request, payload, requester } = started;
        let response = respond(&request, &requester, Some(requester.owner.clone()), outcome);
        let target = AuditTarget::new(&request.command, Some(&response));
        let audit = Audit::ended(&request, &response, target);
        let waiters = ReplayKey::new(gateway, &request, &payload).map(|key| {
            let stored = is_replayable.then(|| (&response, to_bytes(&response).len()));
            self.replay_cache.finish(&key, stored)
        });
        let waiters = waiters.unwrap_or_default().into_iter();
        if is_replayable {
            let replayed: Vec<_> = waiters.map(|waiter| replayed(&response, waiter)).collect();
            self.push(Reply { response, requester, audit });
            self.queue.extend(replayed);
            return Vec::new();
        }
        self.push(Reply { response, requester, audit });
        let repeat = |requester| {
            let (request, payload) = (request.clone(), payload.clone());
            StartedCommand { gateway, request, payload, requester }
        };
        waiters.map(repeat).collect()
    }

    /// Refuses a command whose request is valid.
    pub(crate) fn refuse_command(&mut self, started: StartedCommand, failure: Failure) {
        let StartedCommand { gateway, request, payload, requester } = started;
        let refused = RefusedRequest { transaction: request.transaction, failure };
        self.refuse(Some(gateway), request.name.as_str(), refused, requester, &payload);
    }

    /// Replies to a request that is not run; `gateway` is `None` for one to the bridge itself.
    pub(crate) fn refuse(
        &mut self,
        gateway: Option<GatewayIndex>,
        command: &str,
        refused: RefusedRequest,
        requester: Requester,
        payload: &[u8],
    ) {
        let owner = gateway.map(|_| requester.owner.clone());
        let response = refusal(command, owner.clone(), refused, &requester);
        let is_change = command.parse().is_ok_and(CommandName::changes);
        let audit = (is_change && self.take_refusal_event(gateway))
            .then(|| Audit::refused(owner, &response, payload));
        self.push(Reply { response, requester, audit: audit.flatten() });
    }

    /// Whether an event of a refused change may be published now.
    fn take_refusal_event(&mut self, gateway: Option<GatewayIndex>) -> bool {
        let now = Instant::now();
        let new = || TokenBucket::new(1, REFUSAL_EVENT_INTERVAL, now);
        self.refusal_events.entry(gateway).or_insert_with(new).take(now)
    }
}

/// The reply to a repeat of a request with this response.
fn replayed(response: &Response, requester: Requester) -> Reply {
    Reply { response: Response { replayed: true, ..response.clone() }, requester, audit: None }
}

fn too_many_repeats() -> Failure {
    let message = format!(
        "the same request is running, and {WAITERS_MAX} repeats wait for its response already; \
         wait for it too"
    );
    Failure::new(FailureCode::RateLimited, message)
}
