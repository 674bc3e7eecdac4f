//! The master gateway: tokens, the data that it stores for its device gateways, and which are
//! connected.
//!
//! The device gateways themselves are in `World`. Data of the `...DB` calls is added again to a
//! device gateway whenever it reconnects; data of the plain calls is lost with the gateway.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;
use tokio::time::Instant;
use tonic::Status;
use x509_parser::prelude::{FromDer, X509Certificate, parse_x509_pem};

use super::gateway::{Millis, SimulatedGateway, checks};
use super::queue::{SubscriberStream, Subscriptions};
use super::settings::MasterSettings;
use super::world::World;
use crate::proto::connect::{AcceptFilter, AsyncConnectInfo, SlaveDeviceInfo};
use crate::proto::gateway::{GatewayInfo, Status as GatewayStatus, StatusChange};

/// The tenant to which the device gateways belong.
pub(crate) const TENANT: &str = "tenant1";
/// Most valid tokens; a new one replaces the oldest.
const TOKENS_MAX: usize = 10_000;

/// What is stored for one device gateway.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredForGateway {
    pub(crate) connections: BTreeMap<u32, AsyncConnectInfo>,
    pub(crate) filter: Option<AcceptFilter>,
    pub(crate) slaves: BTreeMap<u32, SlaveDeviceInfo>,
}

#[derive(Debug, Default)]
struct MasterState {
    tokens: VecDeque<(String, Instant)>,
    stored: Vec<StoredForGateway>,
    /// Device gateways that the tenant does not have.
    unlisted: BTreeSet<String>,
    subscriptions: Subscriptions<StatusChange>,
}

/// The master's own state.
pub(crate) struct SimulatedMaster {
    world: Arc<World>,
    token_lifetime: Duration,
    stored_is_applied: bool,
    state: Mutex<MasterState>,
}

impl SimulatedMaster {
    pub(crate) fn new(world: Arc<World>, settings: &MasterSettings) -> Arc<Self> {
        let stored = vec![StoredForGateway::default(); world.gateways_count()];
        let state = Mutex::new(MasterState { stored, ..MasterState::default() });
        let MasterSettings { token_lifetime, stored_is_applied, .. } = *settings;
        Arc::new(Self { world, token_lifetime, stored_is_applied, state })
    }

    fn lock(&self) -> MutexGuard<'_, MasterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new token for a tenant.
    pub(crate) fn login(&self, tenant: &str) -> Result<String, Status> {
        if tenant != TENANT {
            return Err(Status::permission_denied(format!("there is no tenant {tenant:?}")));
        }
        let token = token(tenant, self.world.unix_seconds(), self.token_lifetime);
        let mut state = self.lock();
        if state.tokens.len() >= TOKENS_MAX {
            state.tokens.pop_front();
        }
        state.tokens.push_back((token.clone(), Instant::now() + self.token_lifetime));
        Ok(token)
    }

    /// Whether a token is valid now.
    pub(crate) fn check(&self, token: Option<&str>) -> Result<(), Status> {
        let Some(token) = token else {
            return Err(Status::unauthenticated("token is missing: log in first"));
        };
        match self.lock().tokens.iter().find(|(known, _)| known == token) {
            Some((_, until)) if *until > Instant::now() => Ok(()),
            Some(_) => Err(Status::unauthenticated("token has expired")),
            None => Err(Status::unauthenticated("token is invalid")),
        }
    }

    pub(crate) fn logout(&self, token: Option<&str>) -> Result<(), Status> {
        self.check(token)?;
        self.lock().tokens.retain(|(known, _)| Some(known.as_str()) != token);
        Ok(())
    }

    /// Makes all tokens invalid, as after a restart or at the end of their lifetime.
    pub(crate) fn forget_tokens(&self) {
        self.lock().tokens.clear();
    }

    pub(crate) fn gateway_ids(&self) -> Vec<String> {
        let unlisted = self.lock().unlisted.clone();
        self.world.gateway_ids().into_iter().filter(|id| !unlisted.contains(id)).collect()
    }

    /// Gives a device gateway to the tenant or takes it away. `false` for an unknown one.
    pub(crate) fn set_listed(&self, id: &str, listed: bool) -> bool {
        let unlisted = &mut self.lock().unlisted;
        if listed {
            unlisted.remove(id)
        } else {
            unlisted.insert(id.to_owned())
        };
        self.world.find(id).is_some()
    }

    /// The index of a connected device gateway.
    pub(crate) fn present(&self, id: &str) -> Result<usize, Status> {
        let index = self.known(id)?;
        if self.world.is_linked(index) {
            return Ok(index);
        }
        Err(Status::unavailable(format!("gateway {id:?} is not connected")))
    }

    /// The index of a device gateway, connected or not.
    fn known(&self, id: &str) -> Result<usize, Status> {
        let unknown = || Status::not_found(format!("there is no gateway {id:?}"));
        let is_listed = !self.lock().unlisted.contains(id);
        self.world.find(id).filter(|_| is_listed).ok_or_else(unknown)
    }

    /// `Gateway.Get`.
    pub(crate) fn infos(&self, ids: &[String]) -> Result<Vec<GatewayInfo>, Status> {
        let info = |id: &String| {
            let index = self.known(id)?;
            let is_connected = self.world.is_linked(index);
            let managed = |gateway: &mut SimulatedGateway, _| {
                gateway.connections().managed().keys().copied().collect()
            };
            let device_i_ds = if is_connected {
                self.world.with(index, managed).unwrap_or_default()
            } else {
                self.stored_at(index).connections.into_keys().collect()
            };
            Ok(GatewayInfo { gateway_id: id.clone(), device_i_ds, is_connected })
        };
        ids.iter().map(info).collect()
    }

    /// Disconnects a device gateway from the master, with its own restart if it `forgets`, or
    /// connects it and sets what is stored for it. `false` for an unknown one.
    pub(crate) fn set_link(&self, id: &str, up: bool, forgets: bool) -> bool {
        let Some(index) = self.world.find(id) else { return false };
        if forgets {
            self.world.with(index, SimulatedGateway::restart);
        }
        if self.world.set_linked(index, up) == up {
            return true;
        }
        let status = if up { GatewayStatus::Connected } else { GatewayStatus::Disconnected };
        let timestamp = self.world.unix_seconds();
        let change = StatusChange { gateway_id: id.to_owned(), status: status.into(), timestamp };
        self.lock().subscriptions.offer(&[change]);
        if up {
            self.restore(index, self.stored_at(index));
        }
        true
    }

    fn restore(&self, index: usize, stored: StoredForGateway) {
        let connections: Vec<_> = stored.connections.into_values().collect();
        self.world.with(index, |gateway, now| {
            // It was checked when it was stored; what no longer fits is left out.
            let _ = gateway.add_async(now, &connections);
            if stored.filter.is_some() {
                let _ = gateway.set_filter(stored.filter);
            }
            for slave in stored.slaves.into_values() {
                let _ = gateway.set_slaves(&[slave]);
            }
        });
    }

    /// A new subscription to the device gateways' status.
    pub(crate) fn subscribe(
        &self,
        queue_size: i32,
    ) -> Result<SubscriberStream<StatusChange>, Status> {
        self.lock().subscriptions.open(queue_size)
    }

    pub(crate) fn end_streams(&self, outcome: &Result<(), Status>) {
        self.lock().subscriptions.end(outcome);
    }

    /// What is stored for a device gateway.
    pub(crate) fn stored(&self, id: &str) -> Result<StoredForGateway, Status> {
        Ok(self.stored_at(self.known(id)?))
    }

    fn stored_at(&self, index: usize) -> StoredForGateway {
        self.lock().stored.get(index).cloned().unwrap_or_default()
    }

    /// Changes what is stored for a device gateway, after the gateway itself if that is connected
    /// and the master applies it; otherwise when it reconnects.
    fn store(
        &self,
        index: usize,
        act: impl FnOnce(&mut SimulatedGateway, Millis) -> Result<(), Status>,
        change: impl FnOnce(&mut StoredForGateway),
    ) -> Result<(), Status> {
        if self.stored_is_applied && self.world.is_linked(index) {
            self.world.try_with(index, act)?;
        }
        if let Some(stored) = self.lock().stored.get_mut(index) {
            change(stored);
        }
        Ok(())
    }

    pub(crate) fn add_async(&self, id: &str, infos: &[AsyncConnectInfo]) -> Result<(), Status> {
        let index = self.known(id)?;
        checks::async_connections(infos)?;
        let by_id = infos.iter().map(|info| (info.device_id, info.clone()));
        self.store(
            index,
            |gateway, now| gateway.add_async(now, infos),
            |stored| stored.connections.extend(by_id),
        )
    }

    pub(crate) fn delete_async(&self, id: &str, ids: &[u32]) -> Result<(), Status> {
        let index = self.known(id)?;
        let stored = self.stored_at(index).connections;
        if let Some(unknown) = ids.iter().find(|id| !stored.contains_key(id)) {
            return Err(Status::not_found(format!("no stored connection of device {unknown}")));
        }
        // A plain call may have deleted it at the gateway already.
        self.store(
            index,
            |gateway, now| gateway.delete_async(now, ids).or(Ok(())),
            |stored| stored.connections.retain(|id, _| !ids.contains(id)),
        )
    }

    pub(crate) fn set_filter(&self, id: &str, filter: Option<AcceptFilter>) -> Result<(), Status> {
        let index = self.known(id)?;
        let filter = filter.unwrap_or_default();
        checks::accept_filter(&filter)?;
        self.store(
            index,
            |gateway, _| gateway.set_filter(Some(filter.clone())),
            |stored| stored.filter = Some(filter.clone()),
        )
    }

    pub(crate) fn add_slaves(&self, id: &str, infos: &[SlaveDeviceInfo]) -> Result<(), Status> {
        let by_id = infos.iter().map(|info| (info.device_id, info.clone()));
        self.store(
            self.known(id)?,
            |gateway, _| gateway.set_slaves(infos),
            |stored| stored.slaves.extend(by_id),
        )
    }

    pub(crate) fn delete_slaves(&self, id: &str, ids: &[u32]) -> Result<(), Status> {
        let none = |id: &u32| SlaveDeviceInfo { device_id: *id, ..SlaveDeviceInfo::default() };
        let infos: Vec<_> = ids.iter().map(none).collect();
        self.store(
            self.known(id)?,
            |gateway, _| gateway.set_slaves(&infos).or(Ok(())),
            |stored| stored.slaves.retain(|id, _| !ids.contains(id)),
        )
    }
}

/// A token in the form of a JWT. Its signature is random and never verified: the master compares
/// whole tokens.
fn token(tenant: &str, now_unix_s: u32, lifetime: Duration) -> String {
    let header = json!({ "alg": "HS256", "typ": "JWT" }).to_string();
    let expires = u64::from(now_unix_s).saturating_add(lifetime.as_secs());
    let claims = json!({ "tenantID": tenant, "iat": now_unix_s, "exp": expires }).to_string();
    let signature: [u8; 32] = std::array::from_fn(|_| fastrand::u8(..));
    let parts = [header.as_bytes(), claims.as_bytes(), &signature];
    parts.map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".")
}

/// The tenant of a certificate, which must be the one that the connection was made with: TLS has
/// checked that one against the root, and the vendor's clients use one for both.
pub(crate) fn tenant_of(client: Option<&[u8]>, pem: &str) -> Result<String, Status> {
    let (_, pem) = parse_x509_pem(pem.as_bytes())
        .map_err(|_| Status::invalid_argument("the tenant certificate is not PEM"))?;
    if client != Some(pem.contents.as_slice()) {
        let message = "the tenant certificate is not the one that the connection was made with";
        return Err(Status::permission_denied(message));
    }
    let (_, certificate) = X509Certificate::from_der(&pem.contents)
        .map_err(|_| Status::invalid_argument("the tenant certificate cannot be read"))?;
    let name = certificate.subject().iter_common_name().next();
    let name = name.and_then(|name| name.as_str().ok()).map(str::to_owned);
    name.ok_or_else(|| Status::invalid_argument("the tenant certificate names no tenant"))
}
