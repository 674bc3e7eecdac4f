//! What came of a request, as its requester reads it (contract, section 4).
//!
//! May not know how it gets there.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::failure::{Failure, code};
use super::transaction::Transaction;
use crate::fleet::{Effect, Listed};
use crate::ids::DeviceId;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All was done.
    Ok,
    /// Some devices failed.
    Partial,
    /// It was not done, or not known to be.
    Error,
}

/// What failed on one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceFailure {
    /// Which device.
    pub device_id: DeviceId,
    /// A gRPC code in snake case.
    pub code: &'static str,
    /// What failed and what to do.
    pub message: String,
}

impl DeviceFailure {
    /// The failure of the whole where it failed on every device: the first one's, which it names.
    #[must_use]
    pub fn as_whole(&self) -> Failure {
        let (id, said) = (self.device_id.to_string(), self.message.as_str());
        // Gateways often name the device themselves.
        let named = said
            .split("device ")
            .skip(1)
            .any(|rest| rest.split(|c: char| !c.is_ascii_digit()).next() == Some(id.as_str()));
        let message = if named { said.to_owned() } else { format!("device {id}: {said}") };
        Failure::new(self.code, message)
    }
}

/// What the requester should know although nothing failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Which device, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    /// `will_reconnect`, `kept_by_configuration` or `not_remembered`.
    pub code: &'static str,
    /// What it means.
    pub message: String,
}

/// What a command gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// As it is to be read.
    Json(Body),
    /// The gateway's list: who answers knows how to say it.
    Devices(Vec<Listed>),
}

/// The data of an answer.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// Made here.
    Value(Value),
    /// Text that is known to be JSON.
    Raw(Box<RawValue>),
}

impl Body {
    /// The value; null for text.
    #[must_use]
    pub const fn value(&self) -> &Value {
        match self {
            Self::Value(value) => value,
            Self::Raw(_) => &Value::Null,
        }
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Value(one), Self::Value(other)) => one == other,
            (Self::Raw(one), Self::Raw(other)) => one.get() == other.get(),
            _ => false,
        }
    }
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What it gave.
    pub data: Data,
    /// What failed on single devices.
    pub device_errors: Vec<DeviceFailure>,
    /// What is worth knowing.
    pub warnings: Vec<Warning>,
    /// Why it failed as a whole.
    pub error: Option<Failure>,
    /// What of it a restart of the gateway takes away.
    pub effects: Vec<Effect>,
}

impl Outcome {
    /// All was done, and gave this.
    #[must_use]
    pub fn done(data: Value) -> Self {
        Self {
            data: Data::Json(data.into()),
            device_errors: Vec::new(),
            warnings: Vec::new(),
            error: None,
            effects: Vec::new(),
        }
    }

    /// With an effect.
    #[must_use]
    pub(super) fn with_effect(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    /// Warns that a restart of the gateway takes it away, if it does: `why` nobody gives it again.
    pub fn warn_not_remembered(&mut self, why: &str) {
        if self.effects.iter().any(Effect::adds) {
            self.warnings.push(Warning {
                device_id: None,
                code: "not_remembered",
                message: format!(
                    "a gateway forgets this when it restarts, and {why}; ask again then"
                ),
            });
        }
    }

    /// It failed as a whole.
    #[must_use]
    pub fn failed(failure: Failure) -> Self {
        Self { error: Some(failure), ..Self::done(json!({})) }
    }

    /// How it ended.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match (&self.error, self.device_errors.is_empty()) {
            (Some(_), _) => Verdict::Error,
            (None, true) => Verdict::Ok,
            (None, false) => Verdict::Partial,
        }
    }
}

impl From<Result<Self, Failure>> for Outcome {
    fn from(result: Result<Self, Failure>) -> Self {
        result.unwrap_or_else(Self::failed)
    }
}

/// The limit that an answer is too large for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerLimit {
    /// The packet size that the broker has announced.
    Announced(usize),
    /// `mqtt.max_answer`, where the broker has announced none.
    Setting(usize),
    /// The broker has closed the connection over answers of this size.
    Closes(usize),
    /// The broker has refused the answer.
    Refused,
}

impl AnswerLimit {
    /// The largest packet within it.
    #[must_use]
    pub const fn size_max(self) -> usize {
        match self {
            Self::Announced(size) | Self::Setting(size) => size,
            Self::Closes(size) => size.saturating_sub(1),
            Self::Refused => 0,
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Setting(_) => "raise mqtt.max_answer if the broker takes more",
            _ => "raise max_packet_size in the broker's configuration",
        }
    }
}

impl fmt::Display for AnswerLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Announced(size) => write!(f, "the broker takes at most {size}"),
            Self::Setting(size) => write!(f, "mqtt.max_answer allows {size}"),
            Self::Closes(size) => write!(f, "the broker closes the connection over {size}"),
            Self::Refused => f.write_str("the broker refused it as too large"),
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Response {
    /// Which command, as asked for.
    pub command: String,
    /// Of which gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The request's own name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<Transaction>,
    /// How it ended.
    pub result: Verdict,
    /// What it gave.
    pub data: Body,
    /// What failed on single devices.
    pub device_errors: Vec<DeviceFailure>,
    /// What is worth knowing.
    pub warnings: Vec<Warning>,
    /// How long it took.
    #[serde(rename = "duration_s", serialize_with = "seconds")]
    pub duration: Duration,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Whether this is an answer from memory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
}

impl Response {
    /// The answer with this outcome; `say` puts a list of devices into words.
    #[must_use]
    pub fn new(
        command: impl Into<String>,
        gateway: Option<String>,
        transaction: Option<Transaction>,
        outcome: Outcome,
        duration: Duration,
        say: impl FnOnce(&[Listed]) -> Value,
    ) -> Self {
        Self {
            command: command.into(),
            gateway,
            transaction,
            result: outcome.verdict(),
            data: match outcome.data {
                Data::Json(data) => data,
                Data::Devices(rows) => json!({ "devices": say(&rows) }).into(),
            },
            device_errors: outcome.device_errors,
            warnings: outcome.warnings,
            duration,
            error: outcome.error,
            replayed: false,
        }
    }

    /// The short answer in place of this one, whose packet of `size` bytes is beyond `limit`.
    #[must_use]
    pub fn too_large(&self, size: usize, limit: AnswerLimit) -> Self {
        let (ended, remedy) = (self.word(), limit.remedy());
        let message = format!(
            "it ended with {ended}, but its answer has {size} bytes and {limit}; {remedy}, or ask \
             for fewer devices at once"
        );
        let outcome = Outcome::failed(Failure::new(code::ANSWER_TOO_LARGE, message));
        let (gateway, transaction) = (self.gateway.clone(), self.transaction.clone());
        let command = self.command.as_str();
        let short =
            Self::new(command, gateway, transaction, outcome, self.duration, |_| Value::Null);
        Self { replayed: self.replayed, ..short }
    }

    /// How it ended, in one word: `ok`, `partial`, or the error's code.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match (self.result, &self.error) {
            (_, Some(error)) => error.code,
            (Verdict::Ok, None) => "ok",
            (Verdict::Partial, None) => "partial",
            (Verdict::Error, None) => "error",
        }
    }
}

/// Seconds to the millisecond.
fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    serializer.serialize_f64(f64::from(millis) / 1000.0)
}
