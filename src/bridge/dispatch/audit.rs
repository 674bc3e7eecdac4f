//! The audit of changes: each is one line in the log and one event, whatever its outcome.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::admission::command_name;
use crate::commands::{
    BridgeCommand, Command, FailureCode, Request, Response, ResultKind, Transaction,
};
use crate::ids::DeviceId;

/// Devices named in an audit line, which counts the others.
const LOGGED_MAX: usize = 20;

/// What was requested, and what became of it.
#[derive(Debug, Serialize)]
pub(crate) struct Audit {
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    command: String,
    #[serde(flatten)]
    target: AuditTarget,
    requested_by: Option<String>,
    transaction: Option<Transaction>,
    result: ResultKind,
    /// Why it was refused or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<FailureCode>,
}

/// What a change was about.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct AuditTarget {
    device_ids: BTreeSet<DeviceId>,
    /// The address that `connect` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<Ipv4Addr>,
}

impl AuditTarget {
    pub(crate) const fn devices(device_ids: BTreeSet<DeviceId>) -> Self {
        Self { device_ids, ip: None }
    }

    /// `connect` names no device; a response that is `ok` does.
    pub(crate) fn new(command: &Command, response: Option<&Response>) -> Self {
        let Command::Connect(target) = command else {
            return Self::devices(command.device_ids());
        };
        let connected = response.and_then(|response| response.data.value().get("device_id"));
        let device_id = connected.and_then(|id| DeviceId::deserialize(id).ok());
        Self { device_ids: device_id.into_iter().collect(), ip: Some(target.ip) }
    }
}

impl Audit {
    /// Of a change that was admitted, which is logged.
    pub(crate) fn ended<C>(
        request: &Request<C>,
        response: &Response,
        target: AuditTarget,
    ) -> Option<Self> {
        if !request.name.changes() {
            return None;
        }
        let first: Vec<String> =
            target.device_ids.iter().take(LOGGED_MAX).map(ToString::to_string).collect();
        let devices = target.ip.map_or_else(|| first.join(" "), |ip| ip.to_string());
        let claimed = request.requested_by.as_ref();
        tracing::info!(
            gateway = response.gateway.as_deref().map(tracing::field::display),
            command = %response.command,
            devices,
            count = target.device_ids.len(),
            requested_by = claimed.map_or("not given".into(), |by| format!("{by:?} (a claim)")),
            outcome = response.label(),
            "change requested"
        );
        let gateway = response.gateway.clone();
        Some(Self::new(gateway, response, target, request.requested_by.clone()))
    }

    /// Of a change that was refused, with what can be read of its request; `gateway` is `None` for
    /// a request to the bridge itself.
    pub(crate) fn refused(
        gateway: Option<String>,
        response: &Response,
        payload: &[u8],
    ) -> Option<Self> {
        let name = command_name(&response.command, gateway.is_some()).ok()?;
        if !name.changes() {
            return None;
        }
        let is_too_large =
            response.error.as_ref().is_some_and(|error| error.code == FailureCode::TooLarge);
        let read = || {
            if gateway.is_some() {
                let request = Command::read_request(name, payload).ok()?;
                Some((None, AuditTarget::new(&request.command, None), request.requested_by))
            } else {
                let request = BridgeCommand::read_request(name, payload).ok()?;
                let BridgeCommand::Forget { gateway, device_ids } = request.command else {
                    return None;
                };
                let target = AuditTarget::devices(device_ids.unwrap_or_default());
                Some((Some(gateway.to_string()), target, request.requested_by))
            }
        };
        // One that is too large is not parsed.
        let known = (!is_too_large).then(read).flatten();
        let (named, target, requested_by) = known.unwrap_or_default();
        Some(Self::new(gateway.or(named), response, target, requested_by))
    }

    fn new(
        gateway: Option<String>,
        response: &Response,
        target: AuditTarget,
        requested_by: Option<String>,
    ) -> Self {
        Self {
            gateway,
            command: response.command.clone(),
            target,
            requested_by,
            transaction: response.transaction.clone(),
            result: response.result,
            code: response.error.as_ref().map(|error| error.code),
        }
    }
}
