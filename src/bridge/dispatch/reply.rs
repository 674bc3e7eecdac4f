//! Replies: the answer to a request as an MQTT message within the broker's limit, and the audit
//! line of a change.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use crate::commands::{
    AnswerLimit, BridgeCommand, FailureCode, Outcome, Refused, Request, Response, Transaction,
};
use crate::ids::{CommandName, DeviceId, GatewayName};
use crate::mqtt::{self, Answer, ReplyTo};
use crate::payload::to_bytes;

/// Answers of this size and above carry a short one, for a broker that refuses them as too large.
const SHORT_FROM: usize = 1_024;
/// Devices named in an audit line, which counts the others.
const AUDITED_MAX: usize = 20;

/// Who gets the answer to a request.
#[derive(Debug)]
pub(crate) struct Requester {
    /// The name of the gateway, or of the bridge, that the request was sent to.
    owner: String,
    reply_to: ReplyTo,
    received: Instant,
    expires_at: Option<Instant>,
}

impl Requester {
    pub(crate) fn new(request: &mqtt::Request) -> Self {
        Self {
            owner: request.owner.clone(),
            reply_to: request.reply_to.clone(),
            received: request.received,
            expires_at: request.expires_at,
        }
    }

    pub(crate) const fn received(&self) -> Instant {
        self.received
    }

    pub(crate) const fn expires_at(&self) -> Option<Instant> {
        self.expires_at
    }

    /// The time since the request was received.
    pub(crate) fn elapsed(&self) -> Duration {
        self.received.elapsed()
    }

    /// The size of the packet of an answer.
    pub(crate) fn packet_size(&self, response: &Response) -> usize {
        self.reply_to.clone().answer(to_bytes(response)).packet_size()
    }
}

/// Who gets the answer to a request to the bridge itself.
#[derive(Debug)]
pub(crate) struct BridgeRequester {
    name: CommandName,
    transaction: Option<Transaction>,
    requested_by: Option<String>,
    requester: Requester,
}

impl BridgeRequester {
    pub(crate) fn new(
        request: Request<BridgeCommand>,
        requester: Requester,
    ) -> (BridgeCommand, Self) {
        let Request { name, command, transaction, requested_by, .. } = request;
        (command, Self { name, transaction, requested_by, requester })
    }

    /// The response, which is logged.
    pub(crate) fn response(
        self,
        gateway: Option<&GatewayName>,
        outcome: Outcome,
        device_ids: &BTreeSet<DeviceId>,
    ) -> (Response, Requester) {
        let Self { name, transaction, requested_by, requester } = self;
        let (gateway, duration) = (gateway.map(ToString::to_string), requester.elapsed());
        let response = Response::new(name.as_str(), gateway, transaction, outcome, duration);
        if name.changes() {
            audit(&response, device_ids, None, requested_by.as_deref());
        } else {
            tracing::info!(command = name.as_str(), "requested of the bridge");
        }
        (response, requester)
    }
}

/// An answer, and its labels in `gsdk_commands_total`.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    pub(crate) owner: String,
    pub(crate) command: &'static str,
    pub(crate) result: &'static str,
}

/// The limit on the size of answers on the present connection.
#[derive(Debug)]
pub(crate) struct AnswerLimits {
    current: AnswerLimit,
    /// `mqtt.max_answer`.
    setting: usize,
}

impl AnswerLimits {
    pub(crate) const fn new(setting: usize) -> Self {
        Self { current: AnswerLimit::Setting(setting), setting }
    }

    /// The packet size that the broker of a new connection has announced, if it has.
    pub(crate) fn announced(&mut self, packet_size: Option<u32>) {
        let announced = packet_size.and_then(|size| usize::try_from(size).ok());
        let setting = AnswerLimit::Setting(self.setting);
        self.current = announced.map_or(setting, AnswerLimit::Announced);
    }

    /// `closes_from`: the size at which the broker has closed the connection.
    pub(crate) fn get(&self, closes_from: Option<usize>) -> AnswerLimit {
        match closes_from {
            Some(size) if size <= self.current.size_max() => AnswerLimit::Closes(size),
            _ => self.current,
        }
    }

    /// The reply with this response, or with a short one where that exceeds the limit.
    pub(crate) fn reply(
        &self,
        response: &Response,
        requester: Requester,
        closes_from: Option<usize>,
    ) -> Reply {
        let Requester { owner, reply_to, .. } = requester;
        let command = response.command.parse().map_or("unknown", CommandName::as_str);
        let answer = reply_to.clone().answer(to_bytes(response));
        let (size, limit) = (answer.packet_size(), self.get(closes_from));
        let size_max = limit.size_max();
        if size > size_max {
            tracing::warn!(gateway = owner, command, size, size_max, "answer too large, not sent");
            let short = response.too_large(size, limit);
            let answer = reply_to.answer(to_bytes(&short));
            return Reply { answer, owner, command, result: short.label() };
        }
        let short = || to_bytes(&response.too_large(size, AnswerLimit::Refused));
        let answer = if size < SHORT_FROM { answer } else { answer.or_short(short()) };
        Reply { answer, owner, command, result: response.label() }
    }
}

/// The response to a request that is not run, which is logged.
pub(crate) fn refusal(command: &str, refused: Refused, requester: &Requester) -> Response {
    let Refused { transaction, failure } = refused;
    let (gateway, code, reason) = (requester.owner.as_str(), failure.code, &failure.message);
    if failure.code == FailureCode::RateLimited {
        tracing::debug!(gateway, command, %code, "a request was refused");
    } else {
        tracing::info!(gateway, command, %code, reason, "a request was refused");
    }
    let (gateway, outcome) = (Some(requester.owner.clone()), Outcome::failed(failure));
    Response::new(command, gateway, transaction, outcome, requester.elapsed())
}

/// Logs the audit line of a change, whatever its outcome; `target` is an address in place of
/// devices.
pub(crate) fn audit(
    response: &Response,
    device_ids: &BTreeSet<DeviceId>,
    target: Option<Ipv4Addr>,
    requested_by: Option<&str>,
) {
    let first: Vec<String> = device_ids.iter().take(AUDITED_MAX).map(ToString::to_string).collect();
    let devices = target.map_or_else(|| first.join(" "), |ip| ip.to_string());
    let claimed = requested_by.unwrap_or("nobody");
    tracing::info!(
        gateway = response.gateway.as_deref().map(tracing::field::display),
        command = %response.command,
        devices,
        count = device_ids.len(),
        requested_by = format!("{claimed:?} (a claim)"),
        outcome = response.label(),
        "a change was asked for"
    );
}
