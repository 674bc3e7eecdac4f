//! Answers `history` from the store in a separate task, also while the gateway is offline.

use std::sync::Arc;

use jiff::tz::TimeZone;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::response::{Reply, respond};
use super::task::{TaskContext, TaskMessage, expired, run_caught, stopping};
use crate::commands::{
    Failure, FailureCode, Outcome, RefusedRequest, Request, Response, history, read_history,
};
use crate::ids::{GatewayName, Moment};
use crate::mqtt::{self, Requester};
use crate::payload::to_bytes;
use crate::store::history::{EventFilter, Reader};

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
pub(crate) struct StartedQuery {
    reader: Reader,
    /// `None`: the events of all gateways.
    gateway: Option<GatewayName>,
    request: Request<EventFilter>,
    requester: Requester,
    packet_size_max: usize,
    _slot: OwnedSemaphorePermit,
}

impl HistoryQueries {
    pub(crate) fn new(history: &Reader, zone: TimeZone) -> Self {
        let reader = history.with_own_limit();
        Self { reader, zone, slots: Arc::new(Semaphore::new(REQUESTS_MAX)) }
    }

    /// Reads a request for the events of a gateway, or (`None`) of all, whose answer is at most
    /// `packet_size_max` large.
    pub(crate) fn read(
        &self,
        request: &mqtt::ReceivedRequest,
        gateway: Option<GatewayName>,
        now: Moment,
        packet_size_max: usize,
    ) -> Result<StartedQuery, RefusedRequest> {
        let (reader, requester) = (self.reader.clone(), request.requester.clone());
        let request = read_history(&request.payload, &self.zone, now)?;
        let slot = self.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| {
            let transaction = request.transaction.clone();
            RefusedRequest { transaction, failure: too_many() }
        })?;
        let packet_size_max = packet_size_max.min(PACKET_SIZE_MAX);
        Ok(StartedQuery { reader, gateway, request, requester, packet_size_max, _slot: slot })
    }
}

impl StartedQuery {
    /// Reads the events and reports the reply.
    pub(crate) async fn run(self, context: TaskContext) {
        let empty = self.requester.answer(to_bytes(&self.response(Outcome::done(Value::Null))));
        let max_bytes = self.packet_size_max.saturating_sub(empty.packet_size() + PAGE_OVERHEAD);
        let gateways = self.gateway.iter().cloned().collect();
        let filter = EventFilter { gateways, max_bytes, ..self.request.command.clone() };
        let message = "timeout_s ran out before the events were read; raise it, or request a \
                       shorter period";
        let timed_out = Failure::new(FailureCode::Timeout, message);
        let outcome = tokio::select! {
            outcome = run_caught(history(&self.reader, filter)) => outcome,
            failure = expired(&self.requester, self.request.timeout, timed_out) => {
                Outcome::failed(failure)
            }
            () = context.stopped() => Outcome::failed(stopping()),
        };
        let response = self.response(outcome);
        let reply = Box::new(Reply { response, requester: self.requester, audit: None });
        context.report(TaskMessage::History(reply)).await;
    }

    fn response(&self, outcome: Outcome) -> Response {
        let gateway = self.gateway.as_ref().map(ToString::to_string);
        respond(&self.request, &self.requester, gateway, outcome)
    }
}

fn too_many() -> Failure {
    let message = format!(
        "{REQUESTS_MAX} requests for events run or wait already; send the request again after one \
         is answered"
    );
    Failure::new(FailureCode::RateLimited, message)
}
