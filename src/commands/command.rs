//! The typed commands, and how each is read from its request's fields.
//!
//! May not call a gateway. What is in a command is within its limits.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::failure::Failure;
use super::fields::Fields;
use super::name::Name;
use crate::fleet::Mode;
use crate::gsdk::{AcceptFilter, Slaves, Target};
use crate::ids::DeviceId;

/// How long a search lasts where the request does not say.
const SEARCH_WAIT_DEFAULT: Duration = Duration::from_secs(5);
/// The least and the most that a search may last, in seconds.
const SEARCH_WAIT_S: (f64, f64) = (0.1, 60.0);

/// A command with everything it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The managed devices, read now.
    Devices,
    /// The devices of the gateway's subnet.
    Search {
        /// How long the gateway listens for them.
        wait: Duration,
    },
    /// The devices that dialled in and were not let in.
    Pending,
    /// The accept filter.
    FilterGet,
    /// The slaves behind the devices.
    SlavesGet,
    /// Connects a device for as long as its connection holds.
    Connect(Target),
    /// Disconnects devices.
    Disconnect(BTreeSet<DeviceId>),
    /// Disconnects all devices.
    DisconnectAll,
    /// Registers devices that the gateway is to dial and keep dialling.
    AsyncAdd(Vec<(DeviceId, Target)>),
    /// Takes registrations back.
    AsyncRemove(BTreeSet<DeviceId>),
    /// Replaces the whole accept filter.
    FilterSet(AcceptFilter),
    /// Lets these in too.
    FilterAdd(BTreeSet<DeviceId>),
    /// Lets these in no more.
    FilterRemove(BTreeSet<DeviceId>),
    /// Lets all in, or only those named.
    FilterAllowAll(bool),
    /// Sets who dials whom.
    ModeSet {
        /// On these devices.
        device_ids: BTreeSet<DeviceId>,
        /// To this mode.
        mode: Mode,
        /// Whether with all that belongs to it.
        apply: bool,
    },
    /// Switches SSL on or off.
    Ssl {
        /// On these devices.
        device_ids: BTreeSet<DeviceId>,
        /// Whether on.
        enable: bool,
        /// Whether with all that belongs to it.
        apply: bool,
    },
    /// Sets the slaves behind devices.
    SlavesSet(Vec<Slaves>),
}

impl Command {
    /// The devices it names, for the audit log and the answer.
    #[must_use]
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
            | Self::ModeSet { device_ids: ids, .. }
            | Self::Ssl { device_ids: ids, .. } => ids.clone(),
            Self::FilterSet(filter) => filter.device_ids.clone(),
            Self::AsyncAdd(devices) => devices.iter().map(|(id, _)| *id).collect(),
            Self::SlavesSet(slaves) => slaves.iter().map(|slaves| slaves.device_id).collect(),
        }
    }

    /// Whether it changes something at the gateway or a device.
    #[must_use]
    pub const fn changes(&self) -> bool {
        !matches!(
            self,
            Self::Devices | Self::Search { .. } | Self::Pending | Self::FilterGet | Self::SlavesGet
        )
    }

    /// Whether it is a change with steps, of which an end in between is to be told.
    #[must_use]
    pub const fn has_steps(&self) -> bool {
        matches!(self, Self::ModeSet { apply: true, .. } | Self::Ssl { apply: true, .. })
    }

    /// Reads the fields of this command, and leaves those that belong to all requests.
    pub(super) fn read(name: Name, fields: &mut Fields) -> Result<Self, Failure> {
        Ok(match name {
            Name::Devices => Self::Devices,
            Name::Search => {
                let (least, most) = SEARCH_WAIT_S;
                let wait = fields.seconds("wait_s", least, most)?;
                Self::Search { wait: wait.unwrap_or(SEARCH_WAIT_DEFAULT) }
            }
            Name::Pending => Self::Pending,
            Name::FilterGet => Self::FilterGet,
            Name::SlavesGet => Self::SlavesGet,
            Name::Connect => Self::Connect(fields.target()?),
            Name::Disconnect => Self::Disconnect(fields.device_ids()?),
            Name::DisconnectAll => Self::DisconnectAll,
            Name::AsyncAdd => Self::AsyncAdd(targets(fields)?),
            Name::AsyncRemove => Self::AsyncRemove(fields.device_ids()?),
            Name::FilterSet => Self::FilterSet(filter(fields)?),
            Name::FilterAdd => Self::FilterAdd(fields.device_ids()?),
            Name::FilterRemove => Self::FilterRemove(fields.device_ids()?),
            Name::FilterAllowAll => {
                let enabled = fields.boolean("enabled")?;
                let missing = || fields.missing("enabled", "true or false");
                Self::FilterAllowAll(enabled.ok_or_else(missing)?)
            }
            Name::ModeSet => {
                let mode = mode(fields)?;
                let device_ids = fields.device_ids()?;
                Self::ModeSet { device_ids, mode, apply: apply(fields)? }
            }
            Name::SslEnable | Name::SslDisable => {
                let enable = name == Name::SslEnable;
                let device_ids = fields.device_ids()?;
                Self::Ssl { device_ids, enable, apply: apply(fields)? }
            }
            Name::SlavesSet => Self::SlavesSet(slaves(fields)?),
        })
    }
}

fn apply(fields: &mut Fields) -> Result<bool, Failure> {
    Ok(fields.boolean("apply")?.unwrap_or(true))
}

fn mode(fields: &mut Fields) -> Result<Mode, Failure> {
    const WORDS: &str = "\"server_to_device\" or \"device_to_server\"";
    let text = fields.text("mode")?.ok_or_else(|| fields.missing("mode", WORDS))?;
    match text.parse() {
        Ok(mode @ (Mode::ServerToDevice | Mode::DeviceToServer)) => Ok(mode),
        Ok(Mode::Unknown(_)) | Err(()) => {
            let text = super::fields::quoted(&Value::from(text));
            Err(Failure::invalid(format!("mode is {text}; it must be {WORDS}")))
        }
    }
}

fn targets(fields: &mut Fields) -> Result<Vec<(DeviceId, Target)>, Failure> {
    const WANTED: &str = "a list, as in [{\"device_id\":544114231,\"ip\":\"192.168.0.104\"}]";
    let objects = fields.objects("devices")?.filter(|objects| !objects.is_empty());
    let objects = objects.ok_or_else(|| fields.missing("devices", WANTED))?;
    let mut seen = BTreeSet::new();
    let mut targets = Vec::with_capacity(objects.len());
    for mut object in objects {
        let device_id = object.device_id()?;
        let target = object.target()?;
        object.finish()?;
        once(&mut seen, device_id)?;
        targets.push((device_id, target));
    }
    Ok(targets)
}

fn once(seen: &mut BTreeSet<DeviceId>, device_id: DeviceId) -> Result<(), Failure> {
    if seen.insert(device_id) {
        return Ok(());
    }
    Err(Failure::invalid(format!("device {device_id} is named twice; name each once")))
}

fn filter(fields: &mut Fields) -> Result<AcceptFilter, Failure> {
    for key in ["ips", "subnets"] {
        if fields.take(key).is_some() {
            return Err(Failure::invalid(format!(
                "gateways do not support {key} in their filter; leave it out and name device_ids"
            )));
        }
    }
    let allow_all = fields.boolean("allow_all")?;
    let device_ids = fields.ids("device_ids")?;
    if allow_all.is_none() && device_ids.is_none() {
        return Err(Failure::invalid(
            "the whole filter is replaced, so say what it is to be: give allow_all or device_ids \
             (an empty list, at the shell --none, lets nobody in)",
        ));
    }
    Ok(AcceptFilter {
        allow_all: allow_all.unwrap_or(false),
        device_ids: device_ids.unwrap_or_default().into_iter().collect(),
        ..AcceptFilter::default()
    })
}

fn slaves(fields: &mut Fields) -> Result<Vec<Slaves>, Failure> {
    const WANTED: &str = "a list, as in [{\"device_id\":544114231,\"rs485\":[7]}]";
    let objects = fields.objects("slaves")?.filter(|objects| !objects.is_empty());
    let objects = objects.ok_or_else(|| fields.missing("slaves", WANTED))?;
    let mut seen = BTreeSet::new();
    let mut all = Vec::with_capacity(objects.len());
    for mut object in objects {
        let device_id = object.device_id()?;
        let rs485 = object.ids("rs485")?.unwrap_or_default();
        let wiegand = object.ids("wiegand")?.unwrap_or_default();
        object.finish()?;
        once(&mut seen, device_id)?;
        all.push(Slaves { device_id, rs485, wiegand });
    }
    Ok(all)
}
