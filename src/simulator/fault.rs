//! Faults as data: what a scenario's steps and the control API's requests order.
//!
//! May not act on a running simulation by itself: a fault of devices is applied to gateways handed
//! in, at a time handed in; the others go through `Control`. One type serves TOML and JSON, so
//! both have one reference (docs/simulator.md).

use serde::{Deserialize, Serialize};
use tonic::Code;

use super::building::{Mode, kind_of_name};
use super::storm::{Pattern, Storm};
use super::wire::front::Packages;
use crate::proto::connect::Status;

/// Something to befall the simulation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Devices lose their power; the gateway notices by its keep-alive.
    PowerOff {
        /// Which.
        #[serde(default)]
        devices: Devices,
    },
    /// Devices get their power back.
    PowerOn {
        /// Which.
        #[serde(default)]
        devices: Devices,
    },
    /// Connected devices lose their connection at once.
    Drop {
        /// Which.
        #[serde(default)]
        devices: Devices,
    },
    /// Managed devices change their status without a word to any stream.
    Silent {
        /// Which.
        #[serde(default)]
        devices: Devices,
        /// The status that the list shows from now on.
        status: StatusCode,
    },
    /// The streams are told a status that changes nothing.
    Tell {
        /// Which; IDs that nobody has are told too.
        #[serde(default)]
        devices: Devices,
        /// The status told.
        status: StatusCode,
    },
    /// Managed devices' status is told once more.
    Repeat {
        /// Which.
        #[serde(default)]
        devices: Devices,
    },
    /// The gateway's network to its devices goes or comes.
    DeviceNetwork {
        /// Whether it works.
        up: bool,
    },
    /// The gateway's clock is ahead of the truth (behind, if negative).
    ClockSkew {
        /// By so many seconds.
        seconds: i64,
    },
    /// All devices become managed, as if a client had asked.
    Manage,
    /// A device is hung on the wall.
    AddDevice {
        /// Its number.
        id: u32,
        /// Its kind, as `bioentry_w2`.
        #[serde(rename = "type")]
        kind: String,
        /// Its IPv4 address.
        ip: std::net::Ipv4Addr,
        /// Whether it speaks TLS.
        #[serde(default)]
        ssl: bool,
        /// Who dials.
        #[serde(default)]
        mode: Mode,
    },
    /// Devices are taken off the wall.
    RemoveDevice {
        /// Which.
        devices: Devices,
    },
    /// A storm of status changes.
    Storm {
        /// How many.
        changes: u64,
        /// How many a second; as fast as possible if absent.
        per_second: Option<u32>,
        /// Which devices in which order.
        #[serde(default)]
        pattern: Pattern,
        /// For the pattern `random`.
        #[serde(default)]
        seed: u64,
    },
    /// The gateway's network to its clients goes or comes.
    ClientNetwork {
        /// Whether it works.
        up: bool,
    },
    /// The gateway freezes towards its clients, or thaws.
    Freeze {
        /// Whether it is frozen.
        on: bool,
    },
    /// All clients' connections are cut by TCP reset.
    CutConnections,
    /// All status streams end.
    EndStreams {
        /// With this gRPC code.
        #[serde(default)]
        code: GrpcCode,
    },
    /// The gateway restarts and forgets.
    Restart {
        /// How long it is away.
        #[serde(default)]
        down_s: u32,
    },
    /// Calls of a method fail.
    Fail {
        /// The method as in the interface definition; `*` is any.
        method: String,
        /// The gRPC code.
        #[serde(default)]
        code: GrpcCode,
        /// The message beside it.
        message: Option<String>,
        /// For so many calls; without it until `heal`.
        times: Option<u64>,
    },
    /// Calls no longer fail.
    Heal,
    /// Every call is held up.
    Latency {
        /// For so many milliseconds.
        ms: u32,
    },
    /// Every answer is held back once it is made: a list is old when it arrives.
    LateAnswers {
        /// For so many milliseconds.
        ms: u32,
    },
    /// Only these package names are served.
    Packages {
        /// Which.
        serve: Packages,
    },
    /// Response headers of streams wait for the first message, or not.
    LazyHeaders {
        /// Whether they wait.
        on: bool,
    },
    /// With a master: a device gateway loses its connection to the master, or comes back.
    GatewayLink {
        /// The gateway's ID.
        gateway: String,
        /// Whether it is there.
        up: bool,
        /// Whether it restarts and forgets.
        #[serde(default)]
        forgets: bool,
    },
    /// With a master: all tokens become worthless.
    ExpireTokens,
}

/// Which devices a fault befalls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Devices {
    /// All of them.
    #[default]
    #[serde(skip)]
    All,
    /// `"all"`.
    Word(AllWord),
    /// These.
    Ids(Vec<u32>),
    /// `{ random = 5 }`: so many, drawn by the seed.
    Random {
        /// How many.
        random: usize,
    },
    /// `{ type = "bioentry_w2" }`: those of a kind.
    Kind {
        /// The kind's name.
        #[serde(rename = "type")]
        kind: String,
    },
}

/// The word `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AllWord {
    /// All devices.
    All,
}

/// A status by number or name (`tls_connected`, `0x203`, `unknown_0x203`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NumberOrName", into = "i32")]
pub struct StatusCode(pub i32);

/// A gRPC code by number or name (`unavailable`); UNAVAILABLE if not said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NumberOrName", into = "i32")]
pub struct GrpcCode(pub Code);

impl Default for GrpcCode {
    fn default() -> Self {
        Self(Code::Unavailable)
    }
}

impl From<StatusCode> for i32 {
    fn from(status: StatusCode) -> Self {
        status.0
    }
}

impl From<GrpcCode> for i32 {
    fn from(code: GrpcCode) -> Self {
        code.0 as Self
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrName {
    Number(i32),
    Name(String),
}

/// A number in a name, decimal or hexadecimal: `7`, `0x203`, `unknown_0x203`.
fn number_in(name: &str) -> Option<i32> {
    let name = name.strip_prefix("unknown_").unwrap_or(name);
    match name.strip_prefix("0x") {
        Some(digits) => i32::from_str_radix(digits, 16).ok(),
        None => name.parse().ok(),
    }
}

impl TryFrom<NumberOrName> for StatusCode {
    type Error = String;

    fn try_from(value: NumberOrName) -> Result<Self, String> {
        match value {
            NumberOrName::Number(number) => Ok(Self(number)),
            NumberOrName::Name(name) => Status::from_str_name(&name.to_uppercase())
                .map(|status| Self(status.into()))
                .or_else(|| number_in(&name.to_lowercase()).map(Self))
                .ok_or_else(|| format!("{name:?} is no status, as `tls_connected` or `0x203`")),
        }
    }
}

impl TryFrom<NumberOrName> for GrpcCode {
    type Error = String;

    fn try_from(value: NumberOrName) -> Result<Self, String> {
        let wrong = |what: String| format!("{what} is no gRPC code, as `unavailable` or 14");
        match value {
            NumberOrName::Number(number @ 0..=16) => Ok(Self(Code::from(number))),
            NumberOrName::Number(number) => Err(wrong(number.to_string())),
            NumberOrName::Name(name) => {
                let squeezed = name.replace('_', "").to_lowercase();
                (0..=16)
                    .map(Code::from)
                    .find(|code| format!("{code:?}").to_lowercase() == squeezed)
                    .map(Self)
                    .ok_or_else(|| wrong(format!("{name:?}")))
            }
        }
    }
}

impl Fault {
    /// Whether it befalls devices inside gateways, at an exact moment; otherwise it is a matter
    /// of connections and calls.
    #[must_use]
    pub(crate) const fn is_of_devices(&self) -> bool {
        matches!(
            self,
            Self::PowerOff { .. }
                | Self::PowerOn { .. }
                | Self::Drop { .. }
                | Self::Silent { .. }
                | Self::Tell { .. }
                | Self::Repeat { .. }
                | Self::DeviceNetwork { .. }
                | Self::ClockSkew { .. }
                | Self::Manage
                | Self::AddDevice { .. }
                | Self::RemoveDevice { .. }
        )
    }

    /// What is wrong with it that its form does not show; `None` if nothing is.
    #[must_use]
    pub fn mistake(&self) -> Option<String> {
        let kind = match self {
            Self::AddDevice { kind, .. } => Some(kind),
            Self::PowerOff { devices }
            | Self::PowerOn { devices }
            | Self::Drop { devices }
            | Self::Silent { devices, .. }
            | Self::Tell { devices, .. }
            | Self::Repeat { devices }
            | Self::RemoveDevice { devices } => match devices {
                Devices::Kind { kind } => Some(kind),
                Devices::All | Devices::Word(_) | Devices::Ids(_) | Devices::Random { .. } => None,
            },
            _ => None,
        };
        let kind = kind.filter(|kind| kind_of_name(kind).is_none())?;
        Some(format!("{kind:?} is no device type, as `bioentry_w2`"))
    }

    /// The storm that this is.
    pub(crate) const fn storm(&self) -> Option<Storm> {
        match self {
            Self::Storm { changes, per_second, pattern, seed } => Some(Storm {
                changes: *changes,
                per_second: *per_second,
                pattern: *pattern,
                seed: *seed,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_json_and_toml() {
        let fault: Fault = serde_json::from_str(r#"{"do":"power_off","devices":[1,2]}"#).unwrap();
        assert_eq!(fault, Fault::PowerOff { devices: Devices::Ids(vec![1, 2]) });
        let fault: Fault = serde_json::from_str(r#"{"do":"power_on"}"#).unwrap();
        assert_eq!(fault, Fault::PowerOn { devices: Devices::All });
        let fault: Fault =
            toml::from_str("do = \"silent\"\ndevices = { random = 3 }\nstatus = \"0x203\"")
                .unwrap();
        let devices = Devices::Random { random: 3 };
        assert_eq!(fault, Fault::Silent { devices, status: StatusCode(0x203) });
        let fault: Fault =
            serde_json::from_str(r#"{"do":"end_streams","code":"resource_exhausted"}"#).unwrap();
        assert_eq!(fault, Fault::EndStreams { code: GrpcCode(Code::ResourceExhausted) });
        let fault: Fault = serde_json::from_str(r#"{"do":"drop","devices":"all"}"#).unwrap();
        assert_eq!(fault, Fault::Drop { devices: Devices::Word(AllWord::All) });
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            r#"{"do":"explode"}"#,
            r#"{"do":"power_off","device":[1]}"#,
            r#"{"do":"freeze"}"#,
            r#"{"do":"silent","status":"sleepy"}"#,
            r#"{"do":"fail","method":"Connect","code":99}"#,
            r#"{"do":"power_off","devices":"some"}"#,
        ] {
            assert!(serde_json::from_str::<Fault>(bad).is_err(), "{bad}");
        }
        let devices = Devices::Kind { kind: "toaster".to_owned() };
        assert!(Fault::PowerOff { devices }.mistake().is_some());
    }
}
