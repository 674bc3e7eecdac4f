//! What a device says of itself when it is asked.

use serde::{Deserialize, Serialize};

/// What a device has said of itself; `None` for what it has not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceDetails {
    pub model: Option<String>,
    pub firmware: Option<String>,
    pub mac: Option<String>,
}

impl DeviceDetails {
    /// These, and what was known before where they say nothing.
    pub(crate) fn or(self, known: Option<&Self>) -> Self {
        let Some(known) = known else { return self };
        Self {
            model: self.model.or_else(|| known.model.clone()),
            firmware: self.firmware.or_else(|| known.firmware.clone()),
            mac: self.mac.or_else(|| known.mac.clone()),
        }
    }
}
