//! The calls of a link to a master beside its streams. They run in parallel, and the link handles
//! their results.

use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};

use super::client::GatewayClient;
use super::error::Error;
use super::master_client::MasterClient;
use super::places::Reading;
use super::types::ListedGateway;
use crate::fleet::{AcceptFilter, Listed};

/// The result of a call. A list belongs to the link of its gateway with this number.
pub(crate) enum CallResult {
    List(usize, u64, Result<Vec<Listed>, Error>),
    Filter(usize, u64, Result<AcceptFilter, Error>),
    /// With the number of gateway statuses read when it was requested.
    Gateways(u64, Result<Vec<ListedGateway>, Error>),
    /// Whether there is another token.
    Renewed(Result<bool, Error>),
}

pub(crate) struct MasterCalls {
    master: Arc<MasterClient>,
    running: JoinSet<CallResult>,
}

impl MasterCalls {
    pub(crate) fn new(master: Arc<MasterClient>) -> Self {
        Self { master, running: JoinSet::new() }
    }

    /// The result of the next call that ends; `None` if none runs. A panic of a call continues
    /// here. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<CallResult> {
        match self.running.join_next().await?.map_err(JoinError::try_into_panic) {
            Ok(result) => Some(result),
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => None,
        }
    }

    /// Reads the list of a gateway.
    pub(crate) fn read_list(&mut self, Reading { at, link, client }: Reading) {
        self.running.spawn(async move { CallResult::List(at, link, client.device_list().await) });
    }

    /// Reads the accept filter of a gateway.
    pub(crate) fn read_filter(&mut self, at: usize, link: u64, client: GatewayClient) {
        self.running
            .spawn(async move { CallResult::Filter(at, link, client.accept_filter().await) });
    }

    /// Reads the master's list of all gateways; `changes`: how many statuses of gateways have been
    /// read.
    pub(crate) fn read_gateways(&mut self, changes: u64) {
        let master = self.master.clone();
        self.running.spawn(async move { CallResult::Gateways(changes, master.gateways().await) });
    }

    pub(crate) fn renew_token(&mut self) {
        let master = self.master.clone();
        self.running.spawn(async move {
            let token = master.token();
            CallResult::Renewed(master.replace(&token).await)
        });
    }
}
