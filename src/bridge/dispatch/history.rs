//! Answers `history` from the store, beside the loop and whether or not the gateway is there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::reply::Requester;
use super::task::{TaskContext, TaskMessage, stopping};
use crate::commands::{
    Failure, FailureCode, HistoryQuery, Outcome, Refused, Response, Transaction, history,
};
use crate::ids::{CommandName, GatewayName, Moment};
use crate::mqtt;
use crate::store::history::{FILE_NAME, Filter, Reader};

/// Requests that run or wait. More are refused.
const REQUESTS_MAX: usize = 32;
/// The largest packet of an answer, where the broker accepts as much.
const PACKET_SIZE_MAX: usize = 64 << 10;
/// What the data have beside the events: `next`, `more` and `gap`.
const PAGE_OVERHEAD: usize = 1_024;

/// Reads recorded events on request.
#[derive(Debug)]
pub(crate) struct HistoryQueries {
    reader: Reader,
    zone: TimeZone,
    slots: Arc<Semaphore>,
}

/// A request for events that has a slot.
pub(crate) struct Query {
    reader: Reader,
    filter: Filter,
    answer: Answer,
    /// When it is answered without events, and why.
    deadline: Option<(Instant, Failure)>,
    _slot: OwnedSemaphorePermit,
}

struct Answer {
    gateway: Option<GatewayName>,
    transaction: Option<Transaction>,
    requester: Requester,
}

impl HistoryQueries {
    pub(crate) fn new(state_dir: &Path, zone: TimeZone) -> Self {
        let reader = Reader::new(state_dir.join(FILE_NAME));
        Self { reader, zone, slots: Arc::new(Semaphore::new(REQUESTS_MAX)) }
    }

    /// Reads a request for the events of a gateway, or (`None`) of all, whose answer is at most
    /// `packet_size_max` large.
    pub(crate) fn read(
        &self,
        request: &mqtt::Request,
        requester: Requester,
        gateway: Option<GatewayName>,
        now: Moment,
        packet_size_max: usize,
    ) -> Result<Query, Refused> {
        let typed = HistoryQuery::read_request(&request.payload, &self.zone, now)?;
        let slot = self
            .slots
            .clone()
            .try_acquire_owned()
            .map_err(|_| Refused { transaction: typed.transaction.clone(), failure: too_many() })?;
        let deadline = deadline(&requester, typed.timeout);
        let answer = Answer { gateway: gateway.clone(), transaction: typed.transaction, requester };
        let packet_size_max = packet_size_max.min(PACKET_SIZE_MAX);
        let overhead = answer.empty_packet_size() + PAGE_OVERHEAD;
        let max_bytes = packet_size_max.saturating_sub(overhead);
        Ok(Query {
            reader: self.reader.clone(),
            filter: typed.command.filter(gateway, max_bytes),
            answer,
            deadline,
            _slot: slot,
        })
    }
}

impl Query {
    /// Reads the events and reports the answer.
    pub(crate) async fn run(self, context: TaskContext) {
        let outcome = tokio::select! {
            outcome = history(&self.reader, self.filter) => outcome,
            outcome = expired(self.deadline) => outcome,
            () = context.stopped() => Outcome::failed(stopping()),
        };
        let response = Box::new(self.answer.response(outcome));
        let requester = self.answer.requester;
        context.report(TaskMessage::History { response, requester }).await;
    }
}

impl Answer {
    fn response(&self, outcome: Outcome) -> Response {
        let gateway = self.gateway.as_ref().map(ToString::to_string);
        let (name, transaction) = (CommandName::History.as_str(), self.transaction.clone());
        Response::new(name, gateway, transaction, outcome, self.requester.elapsed())
    }

    /// The size of the answer's packet without its data.
    fn empty_packet_size(&self) -> usize {
        self.requester.packet_size(&self.response(Outcome::done(Value::Null)))
    }
}

fn too_many() -> Failure {
    let message = format!(
        "{REQUESTS_MAX} requests for events run or wait already; send the request again after one \
         is answered"
    );
    Failure::new(FailureCode::RateLimited, message)
}

/// The earlier of the request's expiry and its `timeout_s`.
fn deadline(requester: &Requester, timeout: Option<Duration>) -> Option<(Instant, Failure)> {
    let expiry = requester.expires_at().map(|at| {
        let message = "the request expired before the events were read; send it again";
        (at, Failure::new(FailureCode::Expired, message))
    });
    let timeout = timeout.map(|timeout| {
        let message = "timeout_s ran out before the events were read; raise it, or request a \
                       shorter period";
        (requester.received() + timeout, Failure::new(FailureCode::Timeout, message))
    });
    expiry.into_iter().chain(timeout).min_by_key(|(at, _)| *at)
}

async fn expired(deadline: Option<(Instant, Failure)>) -> Outcome {
    match deadline {
        Some((at, failure)) => {
            sleep_until(at).await;
            Outcome::failed(failure)
        }
        None => std::future::pending().await,
    }
}
