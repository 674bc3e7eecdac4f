//! Parameters of faults: devices, storms, and statuses and codes by number or name.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tonic::Code;

use super::gateway::SimulatedGateway;
use super::site;
use crate::proto::connect::Status;

/// The devices that a fault affects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "`devices` is \"all\", a list of IDs, { random = 5 } or \
                 { type = \"bioentry_w2\" } with a type that exists"
)]
pub enum DeviceSelector {
    /// `"all"`.
    All(AllWord),
    /// These.
    Ids(Vec<u32>),
    /// `{ random = 5 }`: so many, chosen by the seed.
    Random {
        /// How many.
        random: usize,
    },
    /// `{ type = "bioentry_w2" }`: those of a type.
    Kind {
        /// A number of `gsdk.device.Type`.
        #[serde(rename = "type", with = "site::kind")]
        #[schemars(with = "String")]
        kind: i32,
    },
}

impl Default for DeviceSelector {
    fn default() -> Self {
        Self::All(AllWord::All)
    }
}

impl From<u32> for DeviceSelector {
    fn from(id: u32) -> Self {
        Self::Ids(vec![id])
    }
}

impl DeviceSelector {
    /// Acts on each chosen device, through its gateway; returns how many it affected.
    pub(crate) fn each(
        &self,
        gateways: &mut [SimulatedGateway],
        rng: &mut fastrand::Rng,
        act: impl Fn(&mut SimulatedGateway, u32) -> bool,
    ) -> usize {
        let chosen = self.choose(gateways, rng);
        let affected = |&(index, id): &(usize, u32)| {
            gateways.get_mut(index).is_some_and(|gateway| act(gateway, id))
        };
        chosen.into_iter().filter(affected).count()
    }

    /// The chosen devices, each with the index of its gateway.
    ///
    /// An unknown ID belongs to the first gateway, which can still report a status of it.
    fn choose(&self, gateways: &[SimulatedGateway], rng: &mut fastrand::Rng) -> Vec<(usize, u32)> {
        if let Self::Ids(ids) = self {
            let gateway =
                |id| gateways.iter().position(|one| one.connections().has(id)).unwrap_or(0);
            return ids.iter().map(|&id| (gateway(id), id)).collect();
        }
        let wanted = match self {
            Self::Kind { kind } => Some(*kind),
            _ => None,
        };
        let mut chosen = Vec::new();
        for (index, gateway) in gateways.iter().enumerate() {
            let devices = gateway.connections().subnet().devices();
            let of_kind = devices.filter(|one| wanted.is_none_or(|kind| one.kind == kind));
            chosen.extend(of_kind.map(|device| (index, device.id)));
        }
        if let Self::Random { random } = self {
            rng.shuffle(&mut chosen);
            chosen.truncate(*random);
        }
        chosen
    }
}

/// The word `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllWord {
    /// All devices.
    All,
}

/// Which devices a storm flips, in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// All in turn: they lose their connections one after the other, then they reconnect, and so
    /// on.
    #[default]
    #[serde(rename = "building")]
    InTurn,
    /// One in twenty (at least one), repeatedly.
    Flapping,
    /// Chosen by the seed.
    Random,
    /// No status changes: each device's status is reported again, in turn.
    Repeat,
}

/// Many status changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// How many changes to report.
    pub changes: u64,
    /// How many a second; as fast as possible if absent.
    #[serde(default)]
    pub per_second: Option<NonZeroU32>,
    /// Which devices.
    #[serde(default)]
    pub pattern: Pattern,
    /// For the pattern `random`.
    #[serde(default)]
    pub seed: u64,
}

impl Storm {
    /// This many changes, as fast as possible, of all devices in turn.
    pub const fn of(changes: u64) -> Self {
        Self { changes, per_second: None, pattern: Pattern::InTurn, seed: 0 }
    }
}

/// A status by number or name (`tls_connected`, `0x203`, `unknown_0x203`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "NumberOrName", into = "i32")]
#[schemars(with = "NumberOrName")]
pub struct StatusCode(pub i32);

/// A gRPC code by number or name (`unavailable`); UNAVAILABLE by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "NumberOrName", into = "i32")]
#[schemars(with = "NumberOrName")]
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

/// A number, or a name in any case.
#[derive(Deserialize, JsonSchema)]
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
