//! The commands of a gateway, and the fields of their requests.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Deserialize;

use super::failure::{Failure, FailureCode};
use super::request::{Fields, RefusedRequest, Request};
use super::values::{self, List};
use crate::desired::DesiredState;
use crate::fleet::{AcceptFilter, Effect, Mode, Slaves, Target};
use crate::ids::{CommandName, DEVICE_PORT, DeviceId, GatewayName};

/// The default duration of a search.
const SEARCH_WAIT_DEFAULT: Duration = Duration::from_secs(5);

/// A command with everything it needs, all of it valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The managed devices, read now.
    Devices,
    /// The devices of the gateway's subnet.
    Search {
        wait: Duration,
    },
    /// The devices that dialed the gateway and were not accepted.
    Pending,
    FilterGet,
    SlavesGet,
    /// Connects a device for as long as its connection holds.
    Connect(Target),
    Disconnect(BTreeSet<DeviceId>),
    DisconnectAll,
    /// Registers devices, which the gateway then dials whenever they are not connected.
    AsyncAdd(Vec<(DeviceId, Target)>),
    AsyncRemove(BTreeSet<DeviceId>),
    /// Replaces the whole accept filter.
    FilterSet(AcceptFilter),
    FilterAdd(BTreeSet<DeviceId>),
    FilterRemove(BTreeSet<DeviceId>),
    FilterAllowAll(bool),
    /// Sets the mode or SSL; `apply`: with all related steps.
    Set {
        device_ids: BTreeSet<DeviceId>,
        setting: ModeOrSsl,
        apply: bool,
    },
    SlavesSet(Vec<Slaves>),
}

/// A setting of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeOrSsl {
    /// Whether the gateway or the device dials.
    Mode(Mode),
    Ssl(bool),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchFields {
    #[serde(default, deserialize_with = "values::seconds::<_, 60>")]
    wait_s: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectFields {
    #[serde(deserialize_with = "values::ip")]
    ip: Ipv4Addr,
    #[serde(default, deserialize_with = "values::port")]
    port: Option<u16>,
    ssl: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DevicesFields {
    device_id: Option<DeviceId>,
    device_ids: Option<List<DeviceId>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AsyncAddFields {
    devices: List<Registration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object in braces")]
struct Registration {
    device_id: DeviceId,
    #[serde(deserialize_with = "values::ip")]
    ip: Ipv4Addr,
    #[serde(default, deserialize_with = "values::port")]
    port: Option<u16>,
    ssl: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterSetFields {
    allow_all: Option<bool>,
    device_ids: Option<List<DeviceId>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterAllowAllFields {
    enabled: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModeSetFields {
    device_id: Option<DeviceId>,
    device_ids: Option<List<DeviceId>>,
    #[serde(deserialize_with = "values::mode")]
    mode: Mode,
    apply: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SslFields {
    device_id: Option<DeviceId>,
    device_ids: Option<List<DeviceId>>,
    apply: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlavesSetFields {
    slaves: List<SlavesFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object in braces")]
struct SlavesFields {
    device_id: DeviceId,
    rs485: Option<List<DeviceId>>,
    wiegand: Option<List<DeviceId>>,
}

impl Command {
    /// Reads a request to a gateway.
    ///
    /// # Errors
    /// With a message that names the mistake and the remedy.
    pub fn read_request(
        name: CommandName,
        payload: &[u8],
    ) -> Result<Request<Self>, RefusedRequest> {
        let request = Request::read(name, payload, |fields| Self::read(name, fields))?;
        match (&request.command, request.timeout) {
            (Self::Search { wait }, Some(timeout)) if timeout <= *wait => {
                let failure = Failure::invalid(
                    "timeout_s is not longer than wait_s, and a search is answered only after \
                     that; raise timeout_s or omit it",
                );
                Err(RefusedRequest { transaction: request.transaction, failure })
            }
            _ => Ok(request),
        }
    }

    fn read(name: CommandName, fields: Fields) -> Result<Self, Failure> {
        let devices = |fields: Fields| {
            let DevicesFields { device_id, device_ids } = fields.read()?;
            values::devices(device_id, device_ids)
        };
        let bare = |fields: Fields, command| fields.none().map(|()| command);
        match name {
            CommandName::Devices => bare(fields, Self::Devices),
            CommandName::Pending => bare(fields, Self::Pending),
            CommandName::FilterGet => bare(fields, Self::FilterGet),
            CommandName::SlavesGet => bare(fields, Self::SlavesGet),
            CommandName::DisconnectAll => bare(fields, Self::DisconnectAll),
            CommandName::Search => {
                let SearchFields { wait_s } = fields.read()?;
                Ok(Self::Search { wait: wait_s.unwrap_or(SEARCH_WAIT_DEFAULT) })
            }
            CommandName::Connect => {
                let ConnectFields { ip, port, ssl } = fields.read()?;
                Ok(Self::Connect(target(ip, port, ssl)))
            }
            CommandName::Disconnect => devices(fields).map(Self::Disconnect),
            CommandName::AsyncAdd => async_add(fields.read()?),
            CommandName::AsyncRemove => devices(fields).map(Self::AsyncRemove),
            CommandName::FilterSet => filter_set(fields),
            CommandName::FilterAdd => devices(fields).map(Self::FilterAdd),
            CommandName::FilterRemove => devices(fields).map(Self::FilterRemove),
            CommandName::FilterAllowAll => {
                let FilterAllowAllFields { enabled } = fields.read()?;
                Ok(Self::FilterAllowAll(enabled))
            }
            CommandName::ModeSet => {
                let ModeSetFields { device_id, device_ids, mode, apply } = fields.read()?;
                let device_ids = values::devices(device_id, device_ids)?;
                let (setting, apply) = (ModeOrSsl::Mode(mode), apply.unwrap_or(true));
                Ok(Self::Set { device_ids, setting, apply })
            }
            CommandName::SslEnable => ssl(fields, true),
            CommandName::SslDisable => ssl(fields, false),
            CommandName::SlavesSet => slaves_set(fields.read()?),
            CommandName::Republish | CommandName::Forget | CommandName::History => {
                let message = format!("{name} is not run by a gateway; request it of the bridge");
                Err(Failure::new(FailureCode::UnknownCommand, message))
            }
        }
    }

    /// The devices it names, for the audit log and the answer.
    pub fn device_ids(&self) -> BTreeSet<DeviceId> {
        match self {
            Self::Devices
            | Self::Search { .. }
            | Self::Pending
            | Self::FilterGet
            | Self::SlavesGet
            | Self::Connect(_)
            | Self::DisconnectAll
            | Self::FilterAllowAll(_) => BTreeSet::new(),
            Self::Disconnect(ids)
            | Self::AsyncRemove(ids)
            | Self::FilterAdd(ids)
            | Self::FilterRemove(ids)
            | Self::Set { device_ids: ids, .. } => ids.clone(),
            Self::FilterSet(filter) => filter.device_ids.clone(),
            Self::AsyncAdd(devices) => devices.iter().map(|(id, _)| *id).collect(),
            Self::SlavesSet(slaves) => slaves.iter().map(|slaves| slaves.device_id).collect(),
        }
    }

    /// Refuses it if it contradicts how the gateway's table in the configuration declares a device:
    /// as registered, or as accepted.
    pub fn check_declared(
        &self,
        gateway: &GatewayName,
        declared: &DesiredState,
    ) -> Result<(), Failure> {
        let DesiredState { registered, accepted, .. } = declared;
        let contradicted = match self {
            Self::AsyncAdd(devices) => {
                let is_other = |(id, target): &&(DeviceId, Target)| {
                    accepted.contains(id) || registered.get(id).is_some_and(|it| it != target)
                };
                devices.iter().find(is_other).map(|(id, _)| *id)
            }
            Self::AsyncRemove(ids) => ids.iter().copied().find(|id| registered.contains_key(id)),
            Self::Set { device_ids: ids, .. } => {
                ids.iter().copied().find(|id| registered.contains_key(id) || accepted.contains(id))
            }
            _ => None,
        };
        contradicted.map_or(Ok(()), |id| Err(Failure::declared_by_configuration(gateway, id)))
    }

    pub(crate) const fn name(&self) -> CommandName {
        match self {
            Self::Devices => CommandName::Devices,
            Self::Search { .. } => CommandName::Search,
            Self::Pending => CommandName::Pending,
            Self::FilterGet => CommandName::FilterGet,
            Self::SlavesGet => CommandName::SlavesGet,
            Self::Connect(_) => CommandName::Connect,
            Self::Disconnect(_) => CommandName::Disconnect,
            Self::DisconnectAll => CommandName::DisconnectAll,
            Self::AsyncAdd(_) => CommandName::AsyncAdd,
            Self::AsyncRemove(_) => CommandName::AsyncRemove,
            Self::FilterSet(_) => CommandName::FilterSet,
            Self::FilterAdd(_) => CommandName::FilterAdd,
            Self::FilterRemove(_) => CommandName::FilterRemove,
            Self::FilterAllowAll(_) => CommandName::FilterAllowAll,
            Self::Set { setting: ModeOrSsl::Mode(_), .. } => CommandName::ModeSet,
            Self::Set { setting: ModeOrSsl::Ssl(true), .. } => CommandName::SslEnable,
            Self::Set { setting: ModeOrSsl::Ssl(false), .. } => CommandName::SslDisable,
            Self::SlavesSet(_) => CommandName::SlavesSet,
        }
    }

    /// What it makes of items that are added again; a change with steps says so in its progress.
    pub(crate) fn effect(&self) -> Option<Effect> {
        Some(match self {
            Self::AsyncAdd(devices) => Effect::Registered(devices.clone()),
            Self::AsyncRemove(ids) => Effect::Unregistered(ids.clone()),
            Self::FilterSet(filter) => Effect::Filter(filter.clone()),
            Self::FilterAdd(ids) => Effect::Accepted(ids.clone()),
            Self::FilterRemove(ids) => Effect::Unaccepted(ids.clone()),
            Self::FilterAllowAll(enabled) => Effect::AllowAll(*enabled),
            Self::SlavesSet(slaves) => Effect::Slaves(slaves.clone()),
            _ => return None,
        })
    }
}

fn target(ip: Ipv4Addr, port: Option<u16>, ssl: Option<bool>) -> Target {
    Target { ip, port: port.unwrap_or(DEVICE_PORT), ssl: ssl.unwrap_or(false) }
}

fn async_add(AsyncAddFields { devices }: AsyncAddFields) -> Result<Command, Failure> {
    if devices.0.is_empty() {
        return Err(Failure::invalid("devices is empty; give at least one device and its ip"));
    }
    values::check_unique(devices.0.iter().map(|device| device.device_id))?;
    let target = |Registration { device_id, ip, port, ssl }| (device_id, target(ip, port, ssl));
    Ok(Command::AsyncAdd(devices.0.into_iter().map(target).collect()))
}

fn filter_set(fields: Fields) -> Result<Command, Failure> {
    if let Some(key) = ["ips", "subnets"].into_iter().find(|key| fields.has(key)) {
        return Err(Failure::invalid(format!(
            "{key}: gateways do not support this in their filter; omit it and give device_ids"
        )));
    }
    let FilterSetFields { allow_all, device_ids } = fields.read()?;
    if allow_all.is_none() && device_ids.is_none() {
        return Err(Failure::invalid(
            "the whole filter is replaced, so the request must say what it becomes: give \
             allow_all or device_ids (an empty list, at the shell --none, accepts no device)",
        ));
    }
    Ok(Command::FilterSet(AcceptFilter {
        allow_all: allow_all.unwrap_or(false),
        device_ids: device_ids.unwrap_or_default().0.into_iter().collect(),
        ..AcceptFilter::default()
    }))
}

fn ssl(fields: Fields, enable: bool) -> Result<Command, Failure> {
    let SslFields { device_id, device_ids, apply } = fields.read()?;
    let device_ids = values::devices(device_id, device_ids)?;
    let (setting, apply) = (ModeOrSsl::Ssl(enable), apply.unwrap_or(true));
    Ok(Command::Set { device_ids, setting, apply })
}

fn slaves_set(SlavesSetFields { slaves }: SlavesSetFields) -> Result<Command, Failure> {
    if slaves.0.is_empty() {
        return Err(Failure::invalid("slaves is empty; give at least one device and its slaves"));
    }
    values::check_unique(slaves.0.iter().map(|slaves| slaves.device_id))?;
    let slaves = slaves.0.into_iter().map(|SlavesFields { device_id, rs485, wiegand }| {
        let (rs485, wiegand) = (rs485.unwrap_or_default().0, wiegand.unwrap_or_default().0);
        values::check_unique([&device_id].into_iter().chain(&rs485).chain(&wiegand).copied())?;
        Ok(Slaves { device_id, rs485, wiegand })
    });
    slaves.collect::<Result<_, _>>().map(Command::SlavesSet)
}
