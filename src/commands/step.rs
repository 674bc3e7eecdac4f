//! The steps of a change, as named in responses.

use serde::Serialize;

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
    /// The state at the gateway was read after a timeout.
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
    pub(crate) device_id: Option<DeviceId>,
    pub(crate) step: StepName,
    pub(crate) result: StepResult,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}
