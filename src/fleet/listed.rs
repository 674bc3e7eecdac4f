//! A row of a gateway's device list. A device type that this build does not know keeps its number.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize, Serializer};

use super::status::{Mode, Status, name_or_number};
use crate::ids::DeviceId;

/// One row of a gateway's list (`gsdk.connect.DeviceInfo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub device_id: DeviceId,
    /// The status when the gateway made the list.
    pub status: Status,
    pub info: DeviceInfo,
}

/// A row of a gateway's list, besides ID and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    pub device_type: DeviceType,
    /// `None` if the gateway sent no address or none of IPv4.
    pub ip: Option<Ipv4Addr>,
    /// As sent.
    pub port: i32,
    pub mode: Mode,
    pub ssl: bool,
    /// Whether the gateway connects to the device again after a disconnect.
    pub auto_reconnect: bool,
}

impl DeviceInfo {
    /// With the type of an earlier row, where this one has none: a gateway does not know the type
    /// of a device that was registered again until it connects.
    pub(crate) fn or_type_of(self, earlier: Option<Self>) -> Self {
        match earlier {
            Some(Self { device_type, .. }) if self.device_type.is_undefined() => {
                Self { device_type, ..self }
            }
            _ => self,
        }
    }
}

/// A kind of device (`gsdk.device.Type`), by its number on the wire. In JSON it is the name, in the
/// log the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct DeviceType(i32);

impl DeviceType {
    /// The type with this number on the wire.
    pub const fn from_code(code: i32) -> Self {
        Self(code)
    }

    /// Its number on the wire.
    pub const fn code(self) -> i32 {
        self.0
    }

    fn row(self) -> Option<&'static (i32, &'static str, &'static str)> {
        TYPES.iter().find(|row| row.0 == self.0)
    }

    /// Whether the type is unknown to the gateway (yet).
    pub const fn is_undefined(self) -> bool {
        self.0 == 0
    }

    /// The product's name for people: `BioEntry W2`.
    pub fn product_name(self) -> String {
        match self.row() {
            Some(row) => row.2.to_owned(),
            None => format!("Unknown {:#x}", self.0),
        }
    }
}

impl fmt::Display for DeviceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(row) => f.write_str(row.1),
            None => write!(f, "unknown_{:#x}", self.0),
        }
    }
}

impl Serialize for DeviceType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        name_or_number(self, self.0, serializer)
    }
}

/// Number and name on the wire, and the name of the product (source: `gsdk.device.Type`).
#[rustfmt::skip]
const TYPES: [(i32, &str, &str); 45] = [
    (0x00, "undefined", "Device"),
    (0x01, "bioentry_plus", "BioEntry Plus"),
    (0x02, "bioentry_w", "BioEntry W"),
    (0x03, "biolite_net", "BioLite Net"),
    (0x04, "xpass", "Xpass"),
    (0x05, "xpass_s2", "Xpass S2"),
    (0x06, "secure_io_2", "Secure I/O 2"),
    (0x07, "door_module_20", "Door Module 20"),
    (0x08, "biostation_2", "BioStation 2"),
    (0x09, "biostation_a2", "BioStation A2"),
    (0x0A, "facestation_2", "FaceStation 2"),
    (0x0B, "io_device", "I/O Device"),
    (0x0C, "biostation_l2", "BioStation L2"),
    (0x0D, "bioentry_w2", "BioEntry W2"),
    (0x0E, "corestation_40", "CoreStation 40"),
    (0x0F, "output_module", "Output Module"),
    (0x10, "input_module", "Input Module"),
    (0x11, "bioentry_p2", "BioEntry P2"),
    (0x12, "biolite_n2", "BioLite N2"),
    (0x13, "xpass2", "XPass 2"),
    (0x14, "xpass_s3", "Xpass S3"),
    (0x15, "bioentry_r2", "BioEntry R2"),
    (0x16, "xpass_d2", "XPass D2"),
    (0x17, "door_module_21", "Door Module 21"),
    (0x18, "xpass_d2_keypad", "XPass D2 Keypad"),
    (0x19, "facelite", "FaceLite"),
    (0x1A, "xpass2_keypad", "XPass 2 Keypad"),
    (0x1B, "xpass_d2_rev", "XPass D2 Rev"),
    (0x1C, "xpass_d2_keypad_rev", "XPass D2 Keypad Rev"),
    (0x1D, "facestation_f2_fp", "FaceStation F2 FP"),
    (0x1E, "facestation_f2", "FaceStation F2"),
    (0x1F, "xstation_2_qr", "X-Station 2 QR"),
    (0x20, "xstation_2", "X-Station 2"),
    (0x21, "im_120", "IM-120"),
    (0x22, "xstation_2_fp", "X-Station 2 FP"),
    (0x23, "biostation_3", "BioStation 3"),
    (0x26, "biostation_2a", "BioStation 2a"),
    (0x2A, "bioentry_w3", "BioEntry W3"),
    (0x2B, "corestation_20", "CoreStation 20"),
    (0x2C, "door_interface_24", "Door Interface 24"),
    (0x2D, "biostation_3_max", "BioStation 3 Max"),
    (0x2E, "biostation_3_max_fp", "BioStation 3 Max FP"),
    (0x2F, "xpass_q2", "XPass Q2"),
    (0x80, "rs485_slave", "RS-485 Slave"),
    (0xFF, "unknown", "Unknown"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;

    #[test]
    fn a_stored_row_has_the_bytes_of_every_earlier_build() {
        let info = DeviceInfo {
            device_type: DeviceType::from_code(0x0D),
            ip: Some(Ipv4Addr::new(192, 168, 0, 104)),
            port: 51_211,
            mode: Mode::DeviceToServer,
            ssl: true,
            auto_reconnect: false,
        };
        let stored = [0x1A, 1, 192, 168, 0, 104, 0x96, 0xA0, 0x06, 0x02, 1, 0];
        assert_eq!(postcard::to_allocvec(&info).unwrap(), stored);
        assert_eq!(postcard::from_bytes::<DeviceInfo>(&stored), Ok(info));
        assert_eq!(serde_json::to_value(info.device_type).unwrap(), "bioentry_w2");
    }

    #[test]
    fn every_type_of_the_wire_has_its_name() {
        let wire = (0..0x200).filter_map(|code| proto::device::Type::try_from(code).ok());
        let mut count = 0;
        for known in wire {
            let ours = DeviceType::from_code(known as i32);
            assert_eq!(ours.to_string(), known.as_str_name().to_lowercase());
            count += 1;
        }
        assert_eq!(count, TYPES.len());
        assert_eq!(DeviceType::from_code(0x99).to_string(), "unknown_0x99");
    }
}
