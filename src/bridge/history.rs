//! Answers `history` from the store, beside the loop and whether or not the gateway is there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::running::{Asked, Word, stopping};
use crate::commands::{
    Failure, FailureCode, HistoryQuery, Outcome, Refused, Response, Transaction, history,
};
use crate::ids::{CommandName, GatewayName, Moment};
use crate::mqtt;
use crate::payload::to_bytes;
use crate::store::history::{FILE_NAME, Reader};

/// Requests that run or wait. More are refused.
const REQUESTS_MAX: usize = 32;
/// The largest packet of an answer, where the broker takes as much.
const PACKET_SIZE_MAX: usize = 64 << 10;
/// What the data have beside the events: `next`, `more` and `gap`.
const PAGE_OVERHEAD: usize = 1_024;

/// Reads recorded events on request.
#[derive(Debug)]
pub(super) struct HistoryQueries {
    reader: Reader,
    zone: TimeZone,
    places: Arc<Semaphore>,
}

/// An answer on its way to the loop.
#[derive(Debug)]
pub(super) struct HistoryAnswer {
    /// Whose events were asked for: a gateway's name, or the bridge's.
    pub(super) owner: String,
    pub(super) response: Response,
    pub(super) asked: Asked,
}

/// What a query is given by the loop.
pub(super) struct Context {
    /// The gateway whose events are asked for; `None`: all events.
    pub(super) gateway: Option<GatewayName>,
    pub(super) now: Moment,
    /// The largest packet that the broker takes.
    pub(super) packet_size_max: usize,
    pub(super) answers: mpsc::Sender<Word>,
    pub(super) stop: watch::Receiver<bool>,
}

/// A request whose answer is being read.
struct Query {
    owner: String,
    gateway: Option<GatewayName>,
    transaction: Option<Transaction>,
    asked: Asked,
    /// When it is answered without events, and why.
    deadline: Option<(Instant, Failure)>,
}

impl HistoryQueries {
    pub(super) fn new(state_dir: &Path, zone: TimeZone) -> Self {
        let reader = Reader::new(state_dir.join(FILE_NAME));
        Self { reader, zone, places: Arc::new(Semaphore::new(REQUESTS_MAX)) }
    }

    /// Starts a query, whose answer goes to the loop.
    pub(super) fn start(&self, request: &mqtt::Request, context: Context) -> Result<(), Refused> {
        let Context { gateway, now, packet_size_max, answers, mut stop } = context;
        let typed = HistoryQuery::read_request(&request.payload, &self.zone, now)?;
        let place = self
            .places
            .clone()
            .try_acquire_owned()
            .map_err(|_| Refused { transaction: typed.transaction.clone(), failure: too_many() })?;
        let query = Query {
            owner: request.owner.clone(),
            gateway: gateway.clone(),
            transaction: typed.transaction.clone(),
            asked: Asked::of(request),
            deadline: deadline(request, typed.timeout),
        };
        let packet_size_max = packet_size_max.min(PACKET_SIZE_MAX);
        let max_bytes = packet_size_max.saturating_sub(query.empty_packet_size() + PAGE_OVERHEAD);
        let (reader, filter) = (self.reader.clone(), typed.command.filter(gateway, max_bytes));
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = history(&reader, filter) => outcome,
                outcome = expired(query.deadline.clone()) => outcome,
                // Without a sender the loop has ended.
                _ = stop.wait_for(|stop| *stop) => Outcome::failed(stopping()),
            };
            drop(place);
            let answer = query.answered(outcome);
            // At the end of the process there is no loop.
            _ = answers.send(Word::History(Box::new(answer))).await;
        });
        Ok(())
    }
}

impl Query {
    fn response(&self, outcome: Outcome) -> Response {
        let gateway = self.gateway.as_ref().map(ToString::to_string);
        let duration = self.asked.received.elapsed();
        let transaction = self.transaction.clone();
        Response::new(CommandName::History.as_str(), gateway, transaction, outcome, duration)
    }

    /// The size of the answer's packet without its data.
    fn empty_packet_size(&self) -> usize {
        let response = self.response(Outcome::done(Value::Null));
        self.asked.reply_to.clone().answer(to_bytes(&response)).packet_size()
    }

    fn answered(self, outcome: Outcome) -> HistoryAnswer {
        let response = self.response(outcome);
        HistoryAnswer { owner: self.owner, response, asked: self.asked }
    }
}

fn too_many() -> Failure {
    let message = format!(
        "{REQUESTS_MAX} requests for events run or wait already; wait for their answers, then ask \
         again"
    );
    Failure::new(FailureCode::RateLimited, message)
}

/// The earlier of the request's expiry and its `timeout_s`.
fn deadline(request: &mqtt::Request, timeout: Option<Duration>) -> Option<(Instant, Failure)> {
    let expiry = request.expires_at.map(|at| {
        let message = "the request's expiry ran out before the events were read; ask again";
        (at, Failure::new(FailureCode::Expired, message))
    });
    let timeout = timeout.map(|timeout| {
        let message = "timeout_s ran out before the events were read; raise it, or ask for a \
                       shorter period";
        (request.received + timeout, Failure::new(FailureCode::Timeout, message))
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
