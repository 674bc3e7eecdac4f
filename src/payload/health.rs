//! The bridge's health in `/readyz` and metrics (docs/troubleshooting.md).

use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};

/// Something is wrong although the bridge is ready.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
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
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The name in JSON and as a label.
    pub fn as_str(self) -> &'static str {
        self.into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_troubleshooting_page_has_every_reason() {
        let page = std::fs::read_to_string("docs/troubleshooting.md").unwrap();
        for reason in DegradedReason::ALL.iter().map(|reason| reason.as_str()) {
            assert!(
                page.contains(&format!("`{reason}`")),
                "docs/troubleshooting.md lacks {reason}"
            );
        }
    }
}
