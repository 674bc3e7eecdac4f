//! The stored value of a device: what the core remembers of it, and its details.

use crate::fleet::{DeviceDetails, Remembered};
use crate::store::{decode, encode};

pub(crate) fn encode_device(device: &Remembered, details: Option<&DeviceDetails>) -> Vec<u8> {
    encode(&(device, details))
}

/// `None` if the value cannot be read.
pub(crate) fn decode_device(value: &[u8]) -> Option<(Remembered, Option<DeviceDetails>)> {
    decode(value)
}
