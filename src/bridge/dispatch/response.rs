//! Responses to requests, and the response's message within the broker's limit.

use std::collections::BTreeSet;

use super::audit::{Audit, AuditTarget};
use crate::commands::{
    AnswerLimit, BridgeCommand, FailureCode, Outcome, RefusedRequest, Request, Response,
    Transaction,
};
use crate::ids::{CommandName, DeviceId};
use crate::mqtt::{Answer, Requester};
use crate::payload::to_bytes;

/// Answers of this size and above carry a short one, for a broker that refuses them as too large.
const SHORT_FROM: usize = 1_024;

/// A response and who gets it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) response: Response,
    pub(crate) requester: Requester,
    /// Published as an event; `None` where no change was requested, and for a replayed response.
    pub(crate) audit: Option<Audit>,
}

impl Reply {
    /// The name of the command, as a label.
    pub(crate) fn command(&self) -> &'static str {
        self.response.command.parse().map_or("unknown", CommandName::as_str)
    }

    /// The answer with the response, or with a short one where that exceeds the limit; and its
    /// result, as a label.
    pub(crate) fn answer(&self, limit: AnswerLimit) -> (Answer, &'static str) {
        let Self { response, requester, .. } = self;
        let answer = requester.answer(to_bytes(response));
        let (size, size_max) = (answer.packet_size(), limit.size_max());
        if size > size_max {
            let (gateway, command) = (&requester.owner, self.command());
            tracing::warn!(gateway, command, size, size_max, "response too large; not sent");
            let short = response.too_large(size, limit);
            return (requester.answer(to_bytes(&short)), short.label());
        }
        let short = || to_bytes(&response.too_large(size, AnswerLimit::Refused));
        let error = response.error.as_ref().map(|error| error.code);
        let is_rate_limited = error == Some(FailureCode::RateLimited);
        let answer = Answer { is_rate_limited, ..answer };
        let answer = if size < SHORT_FROM { answer } else { answer.or_short(short()) };
        (answer, response.label())
    }
}

/// A request to the bridge itself, which the loop runs.
#[derive(Debug)]
pub(crate) struct BridgeRequest {
    pub(crate) parsed: Request<BridgeCommand>,
    pub(crate) requester: Requester,
}

impl BridgeRequest {
    /// The reply to the request, which was about these devices.
    pub(crate) fn reply(self, outcome: Outcome, device_ids: BTreeSet<DeviceId>) -> Reply {
        let Self { parsed: request, requester } = self;
        let gateway = match &request.command {
            BridgeCommand::Republish => None,
            BridgeCommand::Forget { gateway, .. } => Some(gateway.to_string()),
        };
        let response = respond(&request, &requester, gateway, outcome);
        let audit = Audit::ended(&request, &response, AuditTarget::devices(device_ids));
        Reply { response, requester, audit }
    }
}

/// The response to a request that was admitted.
pub(crate) fn respond<C>(
    request: &Request<C>,
    requester: &Requester,
    gateway: Option<String>,
    outcome: Outcome,
) -> Response {
    response(request.name.as_str(), gateway, request.transaction.clone(), outcome, requester)
}

/// The response to a request that is not run, which is logged; `gateway` is `None` for one to the
/// bridge itself.
pub(crate) fn refusal(
    command: &str,
    gateway: Option<String>,
    refused: RefusedRequest,
    requester: &Requester,
) -> Response {
    let RefusedRequest { transaction, failure } = refused;
    let (owner, code, reason) = (requester.owner.as_str(), failure.code, &failure.message);
    if failure.code == FailureCode::RateLimited {
        tracing::debug!(gateway = owner, command, %code, "request refused");
    } else {
        tracing::info!(gateway = owner, command, %code, reason, "request refused");
    }
    response(command, gateway, transaction, Outcome::failed(failure), requester)
}

/// Names the bridge if the request was to the bridge itself.
fn response(
    command: &str,
    gateway: Option<String>,
    transaction: Option<Transaction>,
    outcome: Outcome,
    requester: &Requester,
) -> Response {
    let (owner, duration) = (&requester.owner, requester.received.elapsed());
    let bridge = (gateway.as_ref() != Some(owner)).then(|| owner.clone());
    let response = Response::new(command, gateway, transaction, outcome, duration);
    Response { bridge, ..response }
}
