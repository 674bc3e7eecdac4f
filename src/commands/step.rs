//! The steps of a change, as named in responses.

use serde::Serialize;

use crate::fleet::Effect;
use crate::ids::DeviceId;

/// A step's name in answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StepName {
    /// Nothing had to be changed.
    Already,
    AddressKnown,
    FilterAdded,
    ModeSet,
    SslEnabled,
    SslDisabled,
    AsyncAdded,
    Connected,
    AsyncRemoved,
    FilterRemoved,
    /// The state at the gateway was read after a change without an answer. The payloads' name for
    /// it is `looked`.
    #[serde(rename = "looked")]
    Verified,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StepResult {
    Ok,
    Error,
}

/// One step in an answer, of one device if it is about one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CommandStep {
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<DeviceId>,
    step: StepName,
    result: StepResult,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// What a change has done so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub(crate) steps: Vec<CommandStep>,
    pub(crate) effects: Vec<Effect>,
    /// The effect of the call that is under way.
    pub(crate) attempted: Option<Effect>,
}

impl CommandStep {
    pub(crate) const fn new(
        device_id: Option<DeviceId>,
        step: StepName,
        result: StepResult,
        message: Option<String>,
    ) -> Self {
        Self { device_id, step, result, message }
    }
}
