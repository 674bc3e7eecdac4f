//! The outcome of a command, and the answer to its request (docs/commands.md).

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tonic::Code;

use super::failure::{Failure, FailureCode};
use super::request::Transaction;
use crate::fleet::{Effect, Listed};
use crate::ids::{CommandName, DeviceId, GatewayName};

/// `result` of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultKind {
    Ok,
    /// It failed on some devices.
    Partial,
    /// It was not done, or is not known to be.
    Error,
}

/// A failure on one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceFailure {
    pub device_id: DeviceId,
    pub code: FailureCode,
    /// What failed and what to do.
    pub message: String,
}

impl DeviceFailure {
    pub fn new(device_id: DeviceId, failure: Failure) -> Self {
        Self { device_id, code: failure.code, message: failure.message }
    }

    /// The failure of a command that failed on every device: that of the first, which it names.
    pub fn as_whole(&self) -> Failure {
        let (id, message) = (self.device_id.to_string(), self.message.as_str());
        // Messages of gateways often name the device.
        let is_named = message
            .split("device ")
            .skip(1)
            .any(|rest| rest.split(|c: char| !c.is_ascii_digit()).next() == Some(id.as_str()));
        let message = if is_named { message.to_owned() } else { format!("device {id}: {message}") };
        Failure::new(self.code, message)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningCode {
    WillReconnect,
    KeptByConfiguration,
    NotRemembered,
}

/// A warning to the requester although nothing failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    pub code: WarningCode,
    pub message: String,
}

impl Warning {
    /// A command removed what the configuration declares: an accepted device, or (`None`) all of
    /// them.
    pub fn kept_by_configuration(gateway: &GatewayName, device_id: Option<DeviceId>) -> Self {
        let (what, key) = match device_id {
            Some(id) => ("this device", format!("devices.{id}.connect")),
            None => ("every device", "accept_filter.allow_all".to_owned()),
        };
        let message = format!(
            "the configuration declares {what} as accepted, and the bridge adds it again at the \
             next link to the gateway; change gateways.{gateway}.{key} there too"
        );
        Self { device_id, code: WarningCode::KeptByConfiguration, message }
    }
}

/// `data` of an answer.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Data {
    Value(Value),
    /// JSON as text.
    Raw(Box<RawValue>),
}

impl Data {
    /// The value; null for text.
    pub const fn value(&self) -> &Value {
        match self {
            Self::Value(value) => value,
            Self::Raw(_) => &Value::Null,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Outcome {
    pub data: Data,
    /// The gateway's list, which the caller renders into `data`.
    pub listed: Option<Vec<Listed>>,
    pub device_errors: Vec<DeviceFailure>,
    pub warnings: Vec<Warning>,
    /// Why it failed as a whole.
    pub error: Option<Failure>,
    /// What it made at the gateway that a restart of the gateway loses.
    pub effects: Vec<Effect>,
    /// Whether a repeat gets this answer too. It does not after a change that failed before it
    /// began.
    pub is_replayable: bool,
}

impl Outcome {
    pub const fn done(data: Value) -> Self {
        Self {
            data: Data::Value(data),
            listed: None,
            device_errors: Vec::new(),
            warnings: Vec::new(),
            error: None,
            effects: Vec::new(),
            is_replayable: true,
        }
    }

    pub fn failed(failure: Failure) -> Self {
        Self { error: Some(failure), ..Self::done(json!({})) }
    }

    /// A command that failed on every device.
    pub(crate) fn failed_on_all(device_errors: Vec<DeviceFailure>) -> Self {
        let error = device_errors.first().map(DeviceFailure::as_whole);
        Self { error, device_errors, ..Self::done(json!({})) }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.code.grpc() == Some(Code::NotFound))
    }

    #[must_use]
    pub(crate) fn with_effect(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    /// Renders the gateway's list into the data, if there is one.
    pub fn render_devices(&mut self, render: impl FnOnce(&[Listed]) -> Value) {
        if let Some(rows) = self.listed.take() {
            self.data = Data::Value(json!({ "devices": render(&rows) }));
        }
    }

    /// Warns that a restart of the gateway loses the change and that it is not made again; `why`.
    pub fn warn_not_remembered(&mut self, why: &str) {
        if self.effects.iter().any(Effect::adds) {
            self.warnings.push(Warning {
                device_id: None,
                code: WarningCode::NotRemembered,
                message: format!(
                    "a gateway loses this when it restarts, and {why}; send the command again \
                     after that"
                ),
            });
        }
    }

    const fn result(&self) -> ResultKind {
        match (&self.error, self.device_errors.is_empty()) {
            (Some(_), _) => ResultKind::Error,
            (None, true) => ResultKind::Ok,
            (None, false) => ResultKind::Partial,
        }
    }
}

/// The limit that an answer exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerLimit {
    /// The packet size that the broker announced.
    Announced(usize),
    /// `mqtt.max_answer`, where the broker announced none.
    Setting(usize),
    /// The broker refused the answer.
    Refused,
}

impl AnswerLimit {
    /// The size of the largest packet within it.
    pub const fn size_max(self) -> usize {
        match self {
            Self::Announced(size) | Self::Setting(size) => size,
            Self::Refused => 0,
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Setting(_) => "raise mqtt.max_answer if the broker accepts more",
            _ => "raise max_packet_size in the broker's configuration",
        }
    }
}

impl fmt::Display for AnswerLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Announced(size) => write!(f, "the broker accepts at most {size}"),
            Self::Setting(size) => write!(f, "mqtt.max_answer allows {size}"),
            Self::Refused => f.write_str("the broker refused it as too large"),
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, Serialize)]
pub struct Response {
    /// As requested.
    pub command: String,
    /// The bridge whose own command it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<Transaction>,
    pub result: ResultKind,
    pub data: Data,
    pub device_errors: Vec<DeviceFailure>,
    pub warnings: Vec<Warning>,
    #[serde(rename = "duration_s", serialize_with = "seconds")]
    pub duration: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Whether it is from the replay cache.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
}

impl Response {
    pub fn new(
        command: impl Into<String>,
        gateway: Option<String>,
        transaction: Option<Transaction>,
        outcome: Outcome,
        duration: Duration,
    ) -> Self {
        Self {
            command: command.into(),
            bridge: None,
            gateway,
            transaction,
            result: outcome.result(),
            data: outcome.data,
            device_errors: outcome.device_errors,
            warnings: outcome.warnings,
            duration,
            error: outcome.error,
            replayed: false,
        }
    }

    /// The short answer in place of this one, whose packet of `size` bytes exceeds `limit`.
    #[must_use]
    pub fn too_large(&self, size: usize, limit: AnswerLimit) -> Self {
        let (label, remedy) = (self.label(), limit.remedy());
        let other = match self.command.parse() {
            Ok(
                CommandName::Disconnect
                | CommandName::AsyncAdd
                | CommandName::AsyncRemove
                | CommandName::ModeSet
                | CommandName::SslEnable
                | CommandName::SslDisable
                | CommandName::Forget,
            ) => ", or name fewer devices in one request",
            Ok(CommandName::Republish | CommandName::History) | Err(_) => "",
            Ok(_) => ", or use `gsdk2mqtt ctl`, which has no limit",
        };
        let message = format!(
            "it ended with {label}, but its answer has {size} bytes and {limit}; {remedy}{other}"
        );
        let outcome = Outcome::failed(Failure::new(FailureCode::AnswerTooLarge, message));
        let (gateway, transaction) = (self.gateway.clone(), self.transaction.clone());
        let short = Self::new(self.command.as_str(), gateway, transaction, outcome, self.duration);
        Self { bridge: self.bridge.clone(), replayed: self.replayed, ..short }
    }

    /// The result in metrics and the audit log: `ok`, `partial`, or the error's code.
    pub fn label(&self) -> &'static str {
        match (self.result, &self.error) {
            (_, Some(error)) => error.code.as_str(),
            (ResultKind::Ok, None) => "ok",
            (ResultKind::Partial, None) => "partial",
            (ResultKind::Error, None) => "error",
        }
    }
}

/// Seconds with milliseconds.
fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    serializer.serialize_f64(f64::from(millis) / 1000.0)
}
