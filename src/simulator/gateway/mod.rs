//! One device gateway as a pure state machine: clients' calls, devices, time and faults go in,
//! status changes and answers come out.
//!
//! May not touch tokio, sockets or a clock: `now` is an argument of everything that takes time,
//! and the same calls with the same seed give the same outputs. What a reader would get wrong:
//! the *building* (`Machine`) and the *managed list* (`Managed`) are two things. A device may
//! hang on the wall unmanaged, and a managed entry may have no device behind it.

mod calls;
mod faults;
mod links;
mod time;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use serde::Serialize;

use super::building::{Device, Mode};
use crate::proto::connect::{AcceptFilter, SlaveDeviceInfo, Status, StatusChange};
pub(crate) use calls::{Change, check_async, check_filter};
pub use time::Timing;
pub(crate) use time::{Clock, Millis};
use time::{Timers, Wake};

/// Most entries of a managed list. A real gateway is good for about 1,000; the bound is against
/// requests that would eat the machine.
pub(crate) const MANAGED_MAX: usize = 200_000;

/// Why a call is refused, as a gRPC code and a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub(crate) code: tonic::Code,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: tonic::Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What a gateway has to say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// For every subscription.
    Status(StatusChange),
    /// The end of a synchronous `Connect`.
    Connected { attempt: u64, result: Result<u32, Refusal> },
}

/// How a device came into the managed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// By `Connect`: leaves the list when the connection is lost.
    Sync,
    /// By `AddAsyncConnection`: stays until it is deleted.
    Async,
    /// It dialled in and the filter allowed it: leaves the list when the connection is lost.
    Accepted,
}

/// What the gateway is doing about a managed device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connected,
    /// Dialling; the timer with this token ends it.
    Trying(u64),
    /// Between two tries; the timer with this token ends it.
    Waiting(u64),
}

/// An entry of the managed list.
#[derive(Clone, Debug)]
struct Managed {
    origin: Origin,
    /// As the client gave it, which need not be an address.
    ip: Box<str>,
    port: i32,
    ssl: bool,
    mode: Mode,
    /// 0 until the device has told its kind.
    kind: i32,
    /// The status as the list shows it; the stream's last word unless a fault hid that.
    status: i32,
    phase: Phase,
    /// The timer that will find a silent device dead; 0 while none runs.
    dead_token: u64,
}

/// A physical device with its side of the connection.
#[derive(Clone, Debug)]
struct Machine {
    device: Device,
    /// It has a connection to this gateway: never more than one.
    linked: bool,
    dial_token: u64,
}

/// A synchronous `Connect` under way.
#[derive(Clone, Debug)]
struct Attempt {
    ip: Ipv4Addr,
    port: u16,
    ssl: bool,
}

/// How a gateway behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) timing: Timing,
    /// Whether it tells `TRY_TO_CONNECT`, as newer gateways do (wire, section 2).
    pub(crate) tells_tries: bool,
}

/// A simulated device gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    id: String,
    rules: Rules,
    clock: Clock,
    rng: fastrand::Rng,
    machines: BTreeMap<u32, Machine>,
    by_address: HashMap<(Ipv4Addr, u16), u32>,
    managed: BTreeMap<u32, Managed>,
    filter: AcceptFilter,
    /// The filter's IDs, to be asked quickly.
    allowed: BTreeSet<u32>,
    /// Refused devices with their last try in Unix seconds.
    pending: BTreeMap<u32, u32>,
    slaves: BTreeMap<u32, SlaveDeviceInfo>,
    attempts: BTreeMap<u64, Attempt>,
    timers: Timers,
    /// Whether the gateway's network to its devices works.
    network: bool,
    /// Devices of which no registration is taken, by a fault.
    unwelcome: BTreeSet<u32>,
    out: Vec<Output>,
}

impl Gateway {
    /// A gateway just started, with these devices in its subnet.
    ///
    /// A device whose ID or address another one has already is left out.
    pub(crate) fn new(
        id: impl Into<String>,
        rules: Rules,
        devices: Vec<Device>,
        clock: Clock,
        seed: u64,
    ) -> Self {
        let mut gateway = Self {
            id: id.into(),
            rules,
            clock,
            rng: fastrand::Rng::with_seed(seed),
            machines: BTreeMap::new(),
            by_address: HashMap::new(),
            managed: BTreeMap::new(),
            filter: AcceptFilter::default(),
            allowed: BTreeSet::new(),
            pending: BTreeMap::new(),
            slaves: BTreeMap::new(),
            attempts: BTreeMap::new(),
            timers: Timers::default(),
            network: true,
            unwelcome: BTreeSet::new(),
            out: Vec::new(),
        };
        for device in devices {
            gateway.add_device(0, device);
        }
        gateway
    }

    /// The gateway's ID, by which a master knows it.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether the managed list has this device.
    pub(crate) fn manages(&self, id: u32) -> bool {
        self.managed.contains_key(&id)
    }

    /// What its clock shows at `now`, in Unix seconds.
    pub(crate) fn unix_seconds(&self, now: Millis) -> u32 {
        self.clock.unix_seconds(now)
    }

    /// What has been said since the last call.
    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// Whether anything has been said since the last take.
    pub(crate) fn has_outputs(&self) -> bool {
        !self.out.is_empty()
    }

    /// When `advance` has something to do next.
    pub(crate) fn next_wake(&self) -> Option<Millis> {
        self.timers.next()
    }

    /// Does all that is due at `now`.
    pub(crate) fn advance(&mut self, now: Millis) {
        while let Some((due, wake)) = self.timers.pop(now) {
            match wake {
                Wake::Attempt(attempt) => self.finish_attempt(due, attempt),
                Wake::Async { id, token } => self.wake_async(due, id, token),
                Wake::Dial { id, token } => self.wake_dial(due, id, token),
                Wake::Dead { id, token } => self.wake_dead(due, id, token),
            }
        }
    }

    /// Sets a managed device's status and tells it to every subscription.
    fn tell(&mut self, now: Millis, id: u32, status: i32) {
        if let Some(entry) = self.managed.get_mut(&id) {
            entry.status = status;
        }
        self.say(now, id, status);
    }

    /// Tells a status without touching the list.
    fn say(&mut self, now: Millis, id: u32, status: i32) {
        let timestamp = self.clock.unix_seconds(now);
        self.out.push(Output::Status(StatusChange { device_id: id, status, timestamp }));
    }

    /// Whether a managed device has a connection.
    pub(crate) fn is_connected(&self, id: u32) -> bool {
        self.managed.get(&id).is_some_and(|entry| entry.phase == Phase::Connected)
    }

    /// What must always hold, as a list of what does not: empty when all is well.
    #[cfg(test)]
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (id, entry) in &self.managed {
            let linked = self.machines.get(id).is_some_and(|machine| machine.linked);
            if linked != (entry.phase == Phase::Connected) {
                wrong.push(format!("{id}: list {:?}, device linked {linked}", entry.phase));
            }
            if entry.origin != Origin::Async && entry.phase != Phase::Connected {
                wrong.push(format!("{id}: {:?} and not connected, yet listed", entry.origin));
            }
            if entry.phase == Phase::Connected && self.pending.contains_key(id) {
                wrong.push(format!("{id}: connected and pending"));
            }
        }
        for (id, machine) in &self.machines {
            if machine.linked && !self.managed.contains_key(id) {
                wrong.push(format!("{id}: linked and not listed"));
            }
        }
        wrong
    }
}

/// The status of a connection that is up.
const fn connected_status(ssl: bool) -> i32 {
    if ssl { Status::TlsConnected as i32 } else { Status::TcpConnected as i32 }
}

/// The status of a try that failed.
const fn cannot_connect_status(ssl: bool) -> i32 {
    if ssl { Status::TlsCannotConnect as i32 } else { Status::TcpCannotConnect as i32 }
}

/// The status of a device turned away.
const fn not_allowed_status(ssl: bool) -> i32 {
    if ssl { Status::TlsNotAllowed as i32 } else { Status::TcpNotAllowed as i32 }
}

/// Whether a status on the wire means a connection.
pub(crate) const fn means_connected(status: i32) -> bool {
    status == Status::TcpConnected as i32 || status == Status::TlsConnected as i32
}
