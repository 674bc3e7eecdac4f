//! The handle for faults and for looking inside, cloneable.
//!
//! May not be reached by the gateway's clients. Every method acts at once; what takes time is
//! `async`. Methods on a device say `false` when there is no such device.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tonic::{Code, Status};

use super::building::Device;
use super::fault::Fault;
use super::gateway::{Gateway, Millis};
use super::hub::Hub;
use super::master::Master;
use super::queue::SubscriptionReport;
use super::storm::{NothingManaged, StormReport};
use super::wire::front::{CallFault, Front, Packages};
use super::wire::valve::Valves;
use crate::proto::connect::{AcceptFilter, DeviceInfo, PendingDeviceInfo, SlaveDeviceInfo};

struct Parts {
    hub: Arc<Hub>,
    master: Option<Arc<Master>>,
    front: Arc<Front>,
    valves: Arc<Valves>,
    up: watch::Sender<bool>,
    is_listening: watch::Receiver<bool>,
}

/// The handle for faults and for looking inside a running simulation.
#[derive(Clone)]
pub struct Control(Arc<Parts>);

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("connections", &self.connections_count()).finish()
    }
}

/// Devices: power, connections, words.
impl Control {
    pub(crate) fn new(
        hub: Arc<Hub>,
        master: Option<Arc<Master>>,
        front: Arc<Front>,
        valves: Arc<Valves>,
        up: watch::Sender<bool>,
        is_listening: watch::Receiver<bool>,
    ) -> Self {
        Self(Arc::new(Parts { hub, master, front, valves, up, is_listening }))
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// Acts on the gateway that has this device; `None` if none has.
    fn on<R>(&self, id: u32, act: impl FnOnce(&mut Gateway, Millis) -> R) -> Option<R> {
        let knows = |gateway: &mut Gateway, _| gateway.knows(id);
        let place = (0..self.0.hub.gateways_count())
            .find(|place| self.0.hub.with(*place, knows) == Some(true))?;
        self.0.hub.with(place, act)
    }

    /// Switches a device on or off. A connected one that goes dark is noticed by the gateway's
    /// keep-alive only (`Timing::keep_alive_ms`).
    pub fn power(&self, id: u32, on: bool) -> bool {
        self.on(id, |gateway, now| gateway.power(now, id, on)) == Some(true)
    }

    /// Switches every device on or off: a building that loses its power.
    pub fn power_all(&self, on: bool) {
        self.0.hub.with_all(|gateway, now| {
            let ids: Vec<u32> = gateway.building().map(|device| device.id).collect();
            for id in ids {
                gateway.power(now, id, on);
            }
        });
    }

    /// Ends a device's connection at once; what follows depends on how it was made. `false` if it
    /// had none.
    pub fn drop_device(&self, id: u32) -> bool {
        self.on(id, |gateway, now| gateway.drop_device(now, id)) == Some(true)
    }

    /// Changes a managed device's state without telling any stream: only `GetDeviceList` shows
    /// it. A status that means no connection ends the connection, one that means a connection
    /// makes it, any other number is only shown. `false` if not managed.
    pub fn change_silently(&self, id: u32, status: i32) -> bool {
        self.on(id, |gateway, now| gateway.change_silently(now, id, status)) == Some(true)
    }

    /// Tells the streams a status of any device, known or not, and any number, while the list
    /// stays as it is.
    pub fn tell(&self, id: u32, status: i32) {
        let told = self.on(id, |gateway, now| gateway.tell_only(now, id, status));
        if told.is_none() {
            self.0.hub.with(0, |gateway, now| gateway.tell_only(now, id, status));
        }
    }

    /// Tells a managed device's present status once more, as gateways before V1.9.1 do. `false`
    /// if not managed.
    pub fn repeat_status(&self, id: u32) -> bool {
        self.on(id, |gateway, now| gateway.repeat_status(now, id)) == Some(true)
    }

    /// Hangs another device on the wall of the first gateway's building. `false` if its ID or
    /// address is taken.
    pub fn add_device(&self, device: Device) -> bool {
        self.0.hub.with(0, |gateway, now| gateway.add_device(now, device)) == Some(true)
    }

    /// Takes a device off the wall; its connection ends.
    pub fn remove_device(&self, id: u32) -> bool {
        self.on(id, |gateway, now| gateway.remove_device(now, id)) == Some(true)
    }

    /// Answers `AddAsyncConnection` with INVALID_ARGUMENT where it names this device, all the
    /// others in the call too; or takes it again.
    pub fn refuse_registration(&self, id: u32, refused: bool) -> bool {
        self.on(id, |gateway, _| gateway.refuse_registration(id, refused)).is_some()
    }

    /// Does what a client would do to have all devices managed: registers those to be dialled as
    /// asynchronous, and lets in those that dial.
    pub fn manage_all(&self) {
        self.0.hub.with_all(Gateway::manage_all);
    }
}

/// The gateway: networks, connections, process.
impl Control {
    /// Takes away the gateway's network to its devices, or gives it back.
    pub fn device_network(&self, up: bool) {
        self.0.hub.with_all(|gateway, now| gateway.set_network(now, up));
    }

    /// Takes away the gateway's network to its clients, or gives it back: connections go silent
    /// without an end, and new ones are refused.
    pub fn client_network(&self, up: bool) {
        self.0.valves.stall(!up);
        self.0.up.send_replace(up);
    }

    /// Freezes the gateway towards its clients, or thaws it: it accepts connections and answers
    /// nothing, not even HTTP/2 pings or a TLS handshake.
    pub fn freeze(&self, frozen: bool) {
        self.0.valves.stall(frozen);
    }

    /// Cuts all clients' connections by TCP reset. New ones are welcome.
    pub fn cut_connections(&self) {
        self.0.valves.cut();
    }

    /// Ends all status streams with this code (`Ok`: as if the gateway were done).
    pub fn end_streams(&self, code: Code) {
        let outcome = match code {
            Code::Ok => Ok(()),
            code => Err(Status::new(code, "the gateway ended the stream")),
        };
        self.0.hub.end_streams(&outcome);
        if let Some(master) = &self.0.master {
            master.end_streams(&outcome);
        }
    }

    /// Restarts the gateway: cuts everything, forgets what clients gave it, stays away for
    /// `down`, and listens again on the same port when this returns.
    pub async fn restart(&self, down: Duration) {
        self.stop_listening();
        self.listening(false).await;
        tokio::time::sleep(down).await;
        self.start_listening();
        self.listening(true).await;
    }

    /// Waits until the port is listened on (or not).
    async fn listening(&self, wanted: bool) {
        // The error means that the gateway has been stopped: nothing more to wait for.
        let _ = self.0.is_listening.clone().wait_for(|is| *is == wanted).await;
    }

    /// The first half of a restart: the gateway is gone, and everything forgotten.
    pub fn stop_listening(&self) {
        self.0.up.send_replace(false);
        self.0.valves.cut();
        self.end_streams(Code::Ok);
        self.0.hub.give_up_all();
        match &self.0.master {
            // The device gateways are other processes and run on; what is stored is stored.
            Some(master) => master.forget_tokens(),
            None => drop(self.0.hub.with_all(Gateway::restart)),
        }
    }

    /// The second half of a restart: the gateway begins anew, on the same port.
    pub fn start_listening(&self) {
        // What devices did meanwhile, they did without this gateway.
        if self.0.master.is_none() {
            self.0.hub.with_all(Gateway::restart);
        }
        self.0.up.send_replace(true);
    }

    /// With a master: a device gateway loses its connection to it, with its own restart if it
    /// `forgets`, or comes back. `false` if there is no such gateway, or no master.
    pub fn gateway_link(&self, gateway: &str, up: bool, forgets: bool) -> bool {
        let master = self.0.master.as_ref();
        master.is_some_and(|master| master.set_link(gateway, up, forgets))
    }

    /// With a master: makes all its tokens worthless, as when their time has run out.
    pub fn expire_tokens(&self) {
        if let Some(master) = &self.0.master {
            master.forget_tokens();
        }
    }

    /// Moves the gateway's clock ahead of the truth (behind, if negative), in milliseconds.
    pub fn clock_skew(&self, skew_ms: i64) {
        self.0.hub.with_all(|gateway, _| gateway.set_clock_skew(skew_ms));
    }
}

/// Calls: errors, latency, package ages.
impl Control {
    /// Answers calls of a method, named as in the interface definition (`GetDeviceList`; `*`: any
    /// method), with an error.
    pub fn fail(&self, method: &str, fault: CallFault) {
        self.0.front.fail(method, fault);
    }

    /// Takes all ordered errors away.
    pub fn heal(&self) {
        self.0.front.heal();
    }

    /// Holds every call up for this long before the gateway looks at it.
    pub fn latency(&self, latency: Duration) {
        self.0.front.set_latency(latency);
    }

    /// Holds every answer back for this long once it is made: a list is old when it arrives.
    pub fn late_answers(&self, lateness: Duration) {
        self.0.front.set_lateness(lateness);
    }

    /// Serves only these package names from now on.
    pub fn packages(&self, packages: Packages) {
        self.0.front.set_packages(packages);
    }

    /// Sends response headers of new streams only with the first message, or at once.
    pub fn lazy_headers(&self, lazy: bool) {
        self.0.front.set_lazy_headers(lazy);
    }

    /// How often each method was called, both package ages together.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.0.front.calls()
    }
}

/// What an ordered fault has done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// How many devices it befell (for faults of gateways: how many gateways).
    pub affected: usize,
    /// What a storm has done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm: Option<StormReport>,
}

/// Faults as data.
impl Control {
    /// Has a fault happen and waits for its end: a restart until the gateway is back, a storm
    /// until it is over.
    ///
    /// # Errors
    ///
    /// A storm fails when the gateway manages no devices.
    pub async fn order(&self, fault: &Fault) -> Result<Outcome, NothingManaged> {
        if fault.is_of_devices() {
            return Ok(Outcome { affected: self.0.hub.apply(fault), storm: None });
        }
        if let Some(storm) = fault.storm() {
            let report = self.storm(storm).await?;
            let affected = usize::try_from(report.changes).unwrap_or(usize::MAX);
            return Ok(Outcome { affected, storm: Some(report) });
        }
        match fault {
            Fault::ClientNetwork { up } => self.client_network(*up),
            Fault::Freeze { on } => self.freeze(*on),
            Fault::CutConnections => self.cut_connections(),
            Fault::EndStreams { code } => self.end_streams(code.0),
            Fault::Restart { down_s } => self.restart(Duration::from_secs((*down_s).into())).await,
            Fault::Fail { method, code, message, times } => {
                let message = message.clone().unwrap_or_else(|| "ordered by a fault".to_owned());
                self.fail(method, CallFault { code: code.0, message, times: *times });
            }
            Fault::Heal => self.heal(),
            Fault::Latency { ms } => self.latency(Duration::from_millis((*ms).into())),
            Fault::LateAnswers { ms } => self.late_answers(Duration::from_millis((*ms).into())),
            Fault::Packages { serve } => self.packages(*serve),
            Fault::LazyHeaders { on } => self.lazy_headers(*on),
            Fault::GatewayLink { gateway, up, forgets } => {
                let affected = self.gateway_link(gateway, *up, *forgets).into();
                return Ok(Outcome { affected, storm: None });
            }
            Fault::ExpireTokens => self.expire_tokens(),
            _ => {}
        }
        Ok(Outcome { affected: self.0.hub.gateways_count(), storm: None })
    }
}

/// Looking inside.
impl Control {
    /// The managed devices, as `GetDeviceList` gives them.
    #[must_use]
    pub fn managed(&self) -> Vec<DeviceInfo> {
        self.0.hub.with_all(|gateway, _| gateway.list()).concat()
    }

    /// The physical devices, managed or not, in order of their IDs within a gateway.
    #[must_use]
    pub fn building(&self) -> Vec<Device> {
        let all = |gateway: &mut Gateway, _| gateway.building().cloned().collect::<Vec<_>>();
        self.0.hub.with_all(all).concat()
    }

    /// The refused devices, as `GetPendingList` gives them.
    #[must_use]
    pub fn pending(&self) -> Vec<PendingDeviceInfo> {
        self.0.hub.with_all(|gateway, _| gateway.pending()).concat()
    }

    /// Replaces the first gateway's accept filter, as another client would. `false` if it is none.
    pub fn set_filter(&self, filter: AcceptFilter) -> bool {
        let set = self.0.hub.with(0, |gateway, _| gateway.set_filter(Some(filter)));
        set.is_some_and(|set| set.is_ok())
    }

    /// The first gateway's accept filter.
    #[must_use]
    pub fn filter(&self) -> AcceptFilter {
        self.0.hub.with(0, |gateway, _| gateway.filter()).unwrap_or_default()
    }

    /// The slaves behind each device, as `GetSlaveDevice` gives them.
    #[must_use]
    pub fn slaves(&self) -> Vec<SlaveDeviceInfo> {
        self.0.hub.with_all(|gateway, _| gateway.slaves()).concat()
    }

    /// What the living subscriptions have been given so far, and what was discarded.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<SubscriptionReport> {
        self.0.hub.subscriptions()
    }

    /// How many client connections are open.
    #[must_use]
    pub fn connections_count(&self) -> usize {
        self.0.valves.open_count()
    }
}
