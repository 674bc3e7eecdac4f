//! A device's connection status and mode. The enums are open: a number that this build does not
//! know keeps its value. In JSON a value is its name, in the log its number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

/// A device's connection status (`gsdk.connect.Status`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, strum::IntoStaticStr,
)]
#[serde(from = "i32")]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    /// 0x00
    Disconnected,
    /// 0x01: connected, plain
    TcpConnected,
    /// 0x02: connected, with SSL
    TlsConnected,
    /// 0x04: an asynchronous connection is being tried (newer gateways)
    TryToConnect,
    /// 0x100
    TcpCannotConnect,
    /// 0x101
    TcpNotAllowed,
    /// 0x200
    TlsCannotConnect,
    /// 0x201
    TlsNotAllowed,
    /// A number that is unknown to this build.
    Unknown(i32),
}

impl Status {
    /// Every status known to this build.
    pub const KNOWN: [Self; 8] = [
        Self::Disconnected,
        Self::TcpConnected,
        Self::TlsConnected,
        Self::TryToConnect,
        Self::TcpCannotConnect,
        Self::TcpNotAllowed,
        Self::TlsCannotConnect,
        Self::TlsNotAllowed,
    ];

    /// Its number on the wire.
    pub const fn code(self) -> i32 {
        match self {
            Self::Disconnected => 0x00,
            Self::TcpConnected => 0x01,
            Self::TlsConnected => 0x02,
            Self::TryToConnect => 0x04,
            Self::TcpCannotConnect => 0x100,
            Self::TcpNotAllowed => 0x101,
            Self::TlsCannotConnect => 0x200,
            Self::TlsNotAllowed => 0x201,
            Self::Unknown(code) => code,
        }
    }

    /// Whether the device is connected; `None` for a status that is unknown to this build.
    pub const fn connected(self) -> Option<bool> {
        match self {
            Self::TcpConnected | Self::TlsConnected => Some(true),
            Self::Disconnected
            | Self::TryToConnect
            | Self::TcpCannotConnect
            | Self::TcpNotAllowed
            | Self::TlsCannotConnect
            | Self::TlsNotAllowed => Some(false),
            Self::Unknown(_) => None,
        }
    }

    /// Whether it reports a failed attempt to connect.
    pub(crate) const fn is_failure(self) -> bool {
        match self {
            Self::TcpCannotConnect
            | Self::TlsCannotConnect
            | Self::TcpNotAllowed
            | Self::TlsNotAllowed => true,
            Self::Disconnected
            | Self::TcpConnected
            | Self::TlsConnected
            | Self::TryToConnect
            | Self::Unknown(_) => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Unknown(code) = self {
            return write!(f, "unknown_{code:#x}");
        }
        f.write_str(self.into())
    }
}

impl FromStr for Status {
    type Err = ();

    /// Reads what [`fmt::Display`] writes, in any case.
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.to_ascii_lowercase();
        if let Some(known) = Self::KNOWN.into_iter().find(|known| <&str>::from(known) == text) {
            return Ok(known);
        }
        unknown_code(&text).map(Self::from).ok_or(())
    }
}

/// The number in `unknown_0x...`.
fn unknown_code(text: &str) -> Option<i32> {
    let digits = text.strip_prefix("unknown_0x")?;
    u32::from_str_radix(digits, 16).ok().map(u32::cast_signed)
}

/// Whether the gateway or the device dials (`gsdk.connect.ConnectionMode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "i32")]
pub enum Mode {
    /// 0: the gateway dials the device.
    ServerToDevice,
    /// 1: the device dials the gateway.
    DeviceToServer,
    /// A number that is unknown to this build.
    Unknown(i32),
}

impl Mode {
    /// Its number on the wire.
    pub const fn code(self) -> i32 {
        match self {
            Self::ServerToDevice => 0,
            Self::DeviceToServer => 1,
            Self::Unknown(code) => code,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerToDevice => f.write_str("server_to_device"),
            Self::DeviceToServer => f.write_str("device_to_server"),
            Self::Unknown(code) => write!(f, "unknown_{code:#x}"),
        }
    }
}

impl FromStr for Mode {
    type Err = ();

    /// Reads what [`fmt::Display`] writes, in any case.
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().as_str() {
            "server_to_device" => Ok(Self::ServerToDevice),
            "device_to_server" => Ok(Self::DeviceToServer),
            other => unknown_code(other).map(Self::from).ok_or(()),
        }
    }
}

impl From<i32> for Status {
    fn from(code: i32) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| known.code() == code);
        known.unwrap_or(Self::Unknown(code))
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        name_or_number(self, self.code(), serializer)
    }
}

impl From<i32> for Mode {
    fn from(code: i32) -> Self {
        match code {
            0 => Self::ServerToDevice,
            1 => Self::DeviceToServer,
            other => Self::Unknown(other),
        }
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        name_or_number(self, self.code(), serializer)
    }
}

/// Writes the name into JSON, the number into the log.
pub(crate) fn name_or_number<S: Serializer>(
    name: &impl fmt::Display,
    number: i32,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match serializer.is_human_readable() {
        true => serializer.collect_str(name),
        false => serializer.serialize_i32(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;

    #[test]
    fn every_status_of_the_wire_has_its_name() {
        for known in Status::KNOWN {
            let wire = proto::connect::Status::try_from(known.code()).unwrap();
            assert_eq!(wire.as_str_name().to_lowercase(), known.to_string());
            assert_eq!(known.to_string().to_uppercase().parse(), Ok(known));
        }
        assert_eq!(Status::from(0x203).to_string(), "unknown_0x203");
        assert_eq!("unknown_0x203".parse(), Ok(Status::Unknown(0x203)));
        assert_eq!("unknown_0xffffffff".parse(), Ok(Status::Unknown(-1)));
        assert_eq!("unknown".parse::<Status>(), Err(()));
    }

    #[test]
    fn json_has_the_name_and_the_log_the_number() {
        for status in Status::KNOWN.into_iter().chain([Status::Unknown(0x203)]) {
            let stored = postcard::to_allocvec(&status).unwrap();
            assert_eq!(stored, postcard::to_allocvec(&status.code()).unwrap());
            assert_eq!(postcard::from_bytes::<Status>(&stored), Ok(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.to_string());
        }
        for mode in [Mode::ServerToDevice, Mode::DeviceToServer, Mode::Unknown(7)] {
            let stored = postcard::to_allocvec(&mode).unwrap();
            assert_eq!(stored, postcard::to_allocvec(&mode.code()).unwrap());
            assert_eq!(postcard::from_bytes::<Mode>(&stored), Ok(mode));
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.to_string());
        }
    }
}
