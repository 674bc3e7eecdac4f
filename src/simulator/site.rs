//! The site: the physical devices of a gateway's subnet, whether or not a gateway manages them, and
//! how they are generated.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::proto::device::Type;

/// The port on which a device listens in mode server-to-device.
pub const DEVICE_PORT: u16 = 51211;

/// The types of generated devices, in order.
const KINDS: [Type; 10] = [
    Type::BioentryW2,
    Type::BiostationL2,
    Type::BioliteN2,
    Type::BiostationA2,
    Type::Xpass2,
    Type::Facestation2,
    Type::Biostation3,
    Type::BioentryP2,
    Type::Corestation40,
    Type::XpassD2,
];

/// Which side dials (`ConnectionMode` on the wire).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::FromRepr,
)]
#[serde(rename_all = "snake_case")]
#[repr(i32)]
pub enum DialMode {
    /// The gateway dials the device.
    #[default]
    ServerToDevice = 0,
    /// The device dials the gateway.
    DeviceToServer = 1,
}

impl DialMode {
    /// The number on the wire.
    pub const fn code(self) -> i32 {
        self as i32
    }
}

/// One physical device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteDevice {
    /// The number on its sticker; never 0, unique within a simulation.
    pub id: u32,
    /// Its kind, a number of `gsdk.device.Type`.
    pub kind: i32,
    /// Its address; unique with `port` within a gateway's subnet.
    pub ip: Ipv4Addr,
    /// The port on which it listens in mode server-to-device.
    pub port: u16,
    pub mode: DialMode,
    /// Whether it uses TLS to its gateway.
    pub ssl: bool,
    /// Whether its address came by DHCP (shown by a search, of no further effect).
    pub dhcp: bool,
    /// Whether it is switched on.
    pub powered: bool,
    /// Its firmware, where that is not the one of its kind.
    pub firmware: Option<String>,
}

impl SiteDevice {
    /// A plain device that waits to be dialed on port 51211, switched on.
    pub fn new(id: u32, kind: impl Into<i32>, ip: Ipv4Addr) -> Self {
        Self {
            id,
            kind: kind.into(),
            ip,
            port: DEVICE_PORT,
            mode: DialMode::ServerToDevice,
            ssl: false,
            dhcp: true,
            powered: true,
            firmware: None,
        }
    }
}

/// The address of the `index`th device in the subnet of the gateway numbered `gateway`.
///
/// The first gateway has 192.168.0.0/16 for its first 60,000 devices; all else is in 10.0.0.0/8.
pub fn address_of(gateway: usize, index: usize) -> Ipv4Addr {
    let place = index + 100;
    let low = u8::try_from(place % 250 + 1).unwrap_or(1);
    let high = place / 250;
    if gateway == 0 && index < 60_000 {
        let high = u8::try_from(high).unwrap_or(255);
        return Ipv4Addr::new(192, 168, high, low);
    }
    let block = (gateway * 4) % 256 + high / 256;
    let block = u8::try_from(block % 256).unwrap_or(255);
    Ipv4Addr::new(10, block, u8::try_from(high % 256).unwrap_or(255), low)
}

/// `count` devices for the gateway numbered `gateway`, of mixed kinds: of every ten, two with
/// SSL, one that dials in, and one that dials in with SSL; the rest plain and to be dialed.
///
/// The same arguments give the same devices; `first_index` keeps the IDs of several gateways
/// apart.
pub fn mixed_devices(gateway: usize, first_index: usize, count: usize) -> Vec<SiteDevice> {
    let one = |index: usize| {
        // Sticker numbers are nine digits long and not consecutive on one floor.
        let step = u32::try_from(first_index + index).unwrap_or(u32::MAX / 64);
        let id = 540_092_578_u32.wrapping_add(step.wrapping_mul(37));
        let kind = KINDS[index % KINDS.len()];
        let mut device = SiteDevice::new(id, kind, address_of(gateway, index));
        device.ssl = matches!(index % 10, 1 | 5 | 8);
        if matches!(index % 10, 3 | 8) {
            device.mode = DialMode::DeviceToServer;
        }
        device
    };
    (0..count).map(one).collect()
}

/// The name of a kind as on the wire, in lower case: `bioentry_w2`, or `unknown_0x99`.
pub fn kind_name(kind: i32) -> String {
    Type::try_from(kind)
        .map_or_else(|_| format!("unknown_{kind:#x}"), |known| known.as_str_name().to_lowercase())
}

/// The type of this name, in any case; `None` if there is none.
pub fn kind_of_name(name: &str) -> Option<i32> {
    Type::from_str_name(&name.to_uppercase()).map(i32::from)
}

/// A kind in JSON and TOML: its name.
pub(crate) mod kind {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(kind: &i32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::kind_name(*kind))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
        let name = String::deserialize(from)?;
        let unknown = || D::Error::custom(format!("{name:?} is no device type, as `bioentry_w2`"));
        super::kind_of_name(&name).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_hundred_thousand_devices_share_no_id_and_no_address() {
        let mut ids = BTreeSet::new();
        for gateway in 0..100 {
            let devices = mixed_devices(gateway, gateway * 1_000, 1_000);
            let addresses: BTreeSet<_> = devices.iter().map(|device| device.ip).collect();
            assert_eq!(addresses.len(), 1_000);
            ids.extend(devices.iter().map(|device| device.id));
        }
        assert_eq!(ids.len(), 100_000);
        let one_gateway: BTreeSet<_> =
            mixed_devices(0, 0, 100_000).iter().map(|device| device.ip).collect();
        assert_eq!(one_gateway.len(), 100_000);
    }

    #[test]
    fn kinds_are_named_as_on_the_wire() {
        assert_eq!(kind_name(0x0D), "bioentry_w2");
        assert_eq!(kind_of_name("BioEntry_W2"), Some(0x0D));
        assert_eq!(kind_name(0x99), "unknown_0x99");
        assert_eq!(kind_of_name("toaster"), None);
    }
}
