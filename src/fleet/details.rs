//! Model, firmware and MAC address of a device.

use serde::{Deserialize, Serialize};

/// The details of a device; `None` for missing ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceDetails {
    pub model: Option<String>,
    pub firmware: Option<String>,
    pub mac: Option<String>,
}

impl DeviceDetails {
    /// These, with earlier values for missing ones.
    pub(crate) fn or(self, known: Option<&Self>) -> Self {
        let Some(known) = known else { return self };
        Self {
            model: self.model.or_else(|| known.model.clone()),
            firmware: self.firmware.or_else(|| known.firmware.clone()),
            mac: self.mac.or_else(|| known.mac.clone()),
        }
    }
}
