//! The bridge's health in `/readyz` and metrics (docs/troubleshooting.md).

use serde::Serialize;

/// Something is wrong although the bridge is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DegradedReason {
    /// The broker refuses events, states or infos.
    MessagesRefused,
    /// The broker does not keep retained messages.
    RetainedNotKept,
    /// The broker refuses discovery for Home Assistant.
    DiscoveryRefused,
    /// The state directory cannot be written, or its disk does not answer.
    StoreInMemory,
    /// The history cannot be written.
    HistoryNotWritten,
    /// Another instance publishes under this bridge's name.
    AnotherInstance,
    /// A file that the configuration names cannot be read.
    FileMissing,
}

impl DegradedReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::MessagesRefused,
        Self::RetainedNotKept,
        Self::DiscoveryRefused,
        Self::StoreInMemory,
        Self::HistoryNotWritten,
        Self::AnotherInstance,
        Self::FileMissing,
    ];

    /// The name in JSON and as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MessagesRefused => "messages_refused",
            Self::RetainedNotKept => "retained_not_kept",
            Self::DiscoveryRefused => "discovery_refused",
            Self::StoreInMemory => "store_in_memory",
            Self::HistoryNotWritten => "history_not_written",
            Self::AnotherInstance => "another_instance",
            Self::FileMissing => "file_missing",
        }
    }
}

/// One thing that is wrong although the bridge is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Degraded {
    /// Which one.
    pub reason: DegradedReason,
    /// What is wrong and what to do, for people.
    pub message: String,
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether the bridge does its work.
    pub ready: bool,
    /// Why it does not.
    pub reasons: Vec<String>,
    /// What else is wrong.
    pub degraded: Vec<Degraded>,
}
