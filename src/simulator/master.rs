//! The master gateway: tokens, what it keeps for its device gateways, and who of them is there.
//!
//! May not know gRPC services. The device gateways themselves live in the hub; this is what the
//! master has beside them (wire, section 4). What the `...DB` calls store is given again to a
//! device gateway whenever it comes back; the plain calls are forgotten with the gateway.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

use super::building::Device;
use super::gateway::Refusal;
use super::hub::Hub;
use super::queue::{Queue, Subscription};
use super::token;
use crate::proto::connect::{AcceptFilter, AsyncConnectInfo, SlaveDeviceInfo};
use crate::proto::gateway::{GatewayInfo, Status as GatewayStatus, StatusChange};

/// The tenant that may do everything.
pub(crate) const ADMINISTRATOR: &str = "administrator";

/// Tokens remembered at once; the oldest gives way to a new one.
const TOKENS_MAX: usize = 10_000;

/// What a simulated master gateway is started with.
#[derive(Clone, Debug)]
pub struct MasterSettings {
    /// The device gateways: IDs, and the devices in their subnets. IDs of devices are unique in
    /// the whole fleet.
    pub gateways: Vec<(String, Vec<Device>)>,
    /// The ID of the tenant to whom the device gateways belong.
    pub tenant: String,
    /// How long a token is good.
    pub token_lifetime: Duration,
}

impl Default for MasterSettings {
    fn default() -> Self {
        Self {
            gateways: Vec::new(),
            tenant: "tenant1".to_owned(),
            token_lifetime: Duration::from_secs(60 * 60),
        }
    }
}

/// What is kept for one device gateway.
#[derive(Clone, Debug, Default)]
struct Kept {
    connections: BTreeMap<u32, AsyncConnectInfo>,
    filter: Option<AcceptFilter>,
    slaves: BTreeMap<u32, SlaveDeviceInfo>,
}

#[derive(Debug, Default)]
struct Inner {
    tokens: VecDeque<(String, Instant)>,
    kept: Vec<Kept>,
    subscriptions: Vec<Arc<Queue<StatusChange>>>,
    subscriptions_made: u64,
}

/// The master's own state.
pub(crate) struct Master {
    hub: Arc<Hub>,
    tenant: String,
    token_lifetime: Duration,
    inner: Mutex<Inner>,
}

impl Master {
    pub(crate) fn new(hub: Arc<Hub>, settings: &MasterSettings) -> Arc<Self> {
        let kept = vec![Kept::default(); hub.gateways_count()];
        let inner = Mutex::new(Inner { kept, ..Inner::default() });
        let (tenant, token_lifetime) = (settings.tenant.clone(), settings.token_lifetime);
        Arc::new(Self { hub, tenant, token_lifetime, inner })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Access.
impl Master {
    /// A new token for a tenant, if there is such a tenant.
    pub(crate) fn login(&self, tenant: &str) -> Result<String, Refusal> {
        if tenant != self.tenant && tenant != ADMINISTRATOR {
            let message = format!("there is no tenant {tenant:?}");
            return Err(Refusal::new(Code::PermissionDenied, message));
        }
        let lifetime_s = self.token_lifetime.as_secs();
        let token = token::make(tenant, self.hub.unix_seconds(), lifetime_s);
        let now = Instant::now();
        let mut inner = self.lock();
        if inner.tokens.len() >= TOKENS_MAX {
            inner.tokens.pop_front();
        }
        inner.tokens.push_back((token.clone(), now + self.token_lifetime));
        Ok(token)
    }

    /// Whether a token is good now.
    pub(crate) fn check(&self, token: Option<&str>) -> Result<(), Status> {
        let Some(token) = token else {
            return Err(Status::unauthenticated("token is missing: log in first"));
        };
        let inner = self.lock();
        match inner.tokens.iter().find(|(known, _)| known == token) {
            Some((_, until)) if *until > Instant::now() => Ok(()),
            Some(_) => Err(Status::unauthenticated("token has expired")),
            None => Err(Status::unauthenticated("token is invalid")),
        }
    }

    /// Makes a token worthless.
    pub(crate) fn logout(&self, token: &str) {
        self.lock().tokens.retain(|(known, _)| known != token);
    }

    /// Makes all tokens worthless, as after the master's restart or when time has run out.
    pub(crate) fn forget_tokens(&self) {
        self.lock().tokens.clear();
    }
}

/// Device gateways.
impl Master {
    /// The IDs of all device gateways.
    pub(crate) fn gateway_ids(&self) -> Vec<String> {
        self.hub.gateway_ids()
    }

    /// The place of a device gateway that is there.
    pub(crate) fn present(&self, id: &str) -> Result<usize, Status> {
        let place = self.known(id)?;
        if self.hub.is_linked(place) {
            return Ok(place);
        }
        Err(Status::unavailable(format!("gateway {id:?} is not connected")))
    }

    /// The place of a device gateway, there or not.
    pub(crate) fn known(&self, id: &str) -> Result<usize, Status> {
        let unknown = || Status::not_found(format!("there is no gateway {id:?}"));
        self.hub.find(id).ok_or_else(unknown)
    }

    /// `Gateway.Get`.
    pub(crate) fn infos(&self, ids: &[String]) -> Result<Vec<GatewayInfo>, Status> {
        let info = |id: &String| {
            let place = self.known(id)?;
            let is_connected = self.hub.is_linked(place);
            let mut device_i_ds = Vec::new();
            if is_connected {
                device_i_ds = self.hub.with(place, |one, _| one.managed_ids()).unwrap_or_default();
            } else if let Some(kept) = self.lock().kept.get(place) {
                device_i_ds.extend(kept.connections.keys());
            }
            Ok(GatewayInfo { gateway_id: id.clone(), device_i_ds, is_connected })
        };
        ids.iter().map(info).collect()
    }

    /// A device gateway loses its connection to the master, with its own restart if it `forgets`,
    /// or comes back and is given again what is kept for it. `false` for an unknown one.
    pub(crate) fn set_link(&self, id: &str, up: bool, forgets: bool) -> bool {
        let Some(place) = self.hub.find(id) else { return false };
        if forgets {
            self.hub.with(place, super::gateway::Gateway::restart);
        }
        if self.hub.set_linked(place, up) == up {
            return true;
        }
        let status = if up { GatewayStatus::Connected } else { GatewayStatus::Disconnected };
        let timestamp = self.hub.unix_seconds();
        let change = StatusChange { gateway_id: id.to_owned(), status: status.into(), timestamp };
        let mut inner = self.lock();
        inner.subscriptions.retain(|queue| queue.offer(std::slice::from_ref(&change)));
        let kept = inner.kept.get(place).cloned().unwrap_or_default();
        drop(inner);
        if up {
            self.give_again(place, &kept);
        }
        true
    }

    fn give_again(&self, place: usize, kept: &Kept) {
        let connections: Vec<_> = kept.connections.values().cloned().collect();
        let slaves: Vec<_> = kept.slaves.values().cloned().collect();
        self.hub.with(place, |gateway, now| {
            // What is kept was checked when it was given; what no longer fits is left out.
            let _ = gateway.add_async(now, &connections);
            if let Some(filter) = &kept.filter {
                let _ = gateway.set_filter(Some(filter.clone()));
            }
            for slave in slaves {
                let _ = gateway.set_slaves(&[slave]);
            }
        });
    }

    /// A new subscription to the device gateways' status.
    pub(crate) fn subscribe(&self, queue_size: i32) -> Result<Subscription<StatusChange>, Status> {
        let mut inner = self.lock();
        inner.subscriptions_made += 1;
        let (queue, stream) = Queue::open(inner.subscriptions_made, queue_size)?;
        inner.subscriptions.push(queue);
        Ok(stream)
    }

    /// Ends every subscription to the device gateways' status.
    pub(crate) fn end_streams(&self, outcome: &Result<(), Status>) {
        for queue in self.lock().subscriptions.drain(..) {
            queue.end(outcome.clone());
        }
    }
}

/// What the `...DB` calls store.
impl Master {
    fn keep(&self, place: usize, change: impl FnOnce(&mut Kept)) {
        if let Some(kept) = self.lock().kept.get_mut(place) {
            change(kept);
        }
    }

    fn kept(&self, place: usize) -> Kept {
        self.lock().kept.get(place).cloned().unwrap_or_default()
    }

    /// Acts on a device gateway if it is there; one that is away gets it when it comes back.
    fn pass_on(
        &self,
        place: usize,
        act: impl FnOnce(&mut super::gateway::Gateway, u64) -> Result<(), Refusal>,
    ) -> Result<(), Status> {
        if self.hub.is_linked(place) {
            self.hub.with(place, act).unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    pub(crate) fn add_async(&self, id: &str, infos: Vec<AsyncConnectInfo>) -> Result<(), Status> {
        let place = self.known(id)?;
        super::gateway::check_async(&infos)?;
        self.pass_on(place, |gateway, now| gateway.add_async(now, &infos))?;
        self.keep(place, |kept| {
            kept.connections.extend(infos.into_iter().map(|info| (info.device_id, info)));
        });
        Ok(())
    }

    pub(crate) fn delete_async(&self, id: &str, ids: &[u32]) -> Result<(), Status> {
        let place = self.known(id)?;
        let kept = self.kept(place).connections;
        if let Some(unknown) = ids.iter().find(|id| !kept.contains_key(id)) {
            return Err(Status::not_found(format!("no stored connection of device {unknown}")));
        }
        self.keep(place, |kept| kept.connections.retain(|id, _| !ids.contains(id)));
        // A device that a plain call has deleted already is gone as wanted.
        let _ = self.pass_on(place, |gateway, now| gateway.delete_async(now, ids));
        Ok(())
    }

    pub(crate) fn connections(&self, id: &str) -> Result<Vec<AsyncConnectInfo>, Status> {
        Ok(self.kept(self.known(id)?).connections.into_values().collect())
    }

    pub(crate) fn set_filter(&self, id: &str, filter: Option<AcceptFilter>) -> Result<(), Status> {
        let place = self.known(id)?;
        super::gateway::check_filter(&filter.clone().unwrap_or_default())?;
        self.pass_on(place, |gateway, _| gateway.set_filter(filter.clone()))?;
        self.keep(place, |kept| kept.filter = Some(filter.unwrap_or_default()));
        Ok(())
    }

    pub(crate) fn filter(&self, id: &str) -> Result<AcceptFilter, Status> {
        Ok(self.kept(self.known(id)?).filter.unwrap_or_default())
    }

    pub(crate) fn add_slaves(&self, id: &str, infos: Vec<SlaveDeviceInfo>) -> Result<(), Status> {
        let place = self.known(id)?;
        self.pass_on(place, |gateway, _| gateway.set_slaves(&infos))?;
        self.keep(place, |kept| {
            kept.slaves.extend(infos.into_iter().map(|info| (info.device_id, info)));
        });
        Ok(())
    }

    pub(crate) fn delete_slaves(&self, id: &str, ids: &[u32]) -> Result<(), Status> {
        let place = self.known(id)?;
        self.keep(place, |kept| kept.slaves.retain(|id, _| !ids.contains(id)));
        let none = |id: &u32| SlaveDeviceInfo { device_id: *id, ..SlaveDeviceInfo::default() };
        let infos: Vec<_> = ids.iter().map(none).collect();
        let _ = self.pass_on(place, |gateway, _| gateway.set_slaves(&infos));
        Ok(())
    }

    pub(crate) fn slaves(&self, id: &str) -> Result<Vec<SlaveDeviceInfo>, Status> {
        Ok(self.kept(self.known(id)?).slaves.into_values().collect())
    }
}
