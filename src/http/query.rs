//! The queries of the web server to the event loop. Each answer is small: the server filters, sorts
//! and renders by itself.

use std::ops::Bound;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::fleet::{DeviceMeasures, DeviceState, GatewayIndex};
use crate::ids::{DeviceId, GatewayName};
use crate::metrics::{GatewayMeasures, MasterMeasures};
use crate::payload::{BridgeInfo, GatewayEntry, Health};
use crate::store::history::Totals;

/// How long the event loop may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Queries that may wait for the event loop.
const QUERIES_MAX: usize = 64;
/// Devices in one answer: all of a gateway at its usual limit.
pub const DEVICES_PER_QUERY: usize = 1_024;

/// A query, with the channel for its answer.
#[derive(Debug)]
pub enum LoopQuery {
    /// The measures of the first gateway from this index on; `None` past the last.
    Gateway(GatewayIndex, oneshot::Sender<Option<GatewayMeasures>>),
    /// The measures of all masters.
    Masters(oneshot::Sender<Vec<MasterMeasures>>),
    /// At most [`DEVICES_PER_QUERY`] devices of a gateway, with IDs between these.
    Devices(GatewayIndex, DeviceIdRange, oneshot::Sender<Vec<DeviceMeasures>>),
    /// The measures of the gateway with this name.
    FindGateway(GatewayName, oneshot::Sender<Option<GatewayMeasures>>),
    /// The bridge itself.
    Bridge(oneshot::Sender<BridgeStatus>),
}

/// The IDs of devices, from and to.
pub type DeviceIdRange = (Bound<DeviceId>, Bound<DeviceId>);

/// The bridge itself.
#[derive(Clone, Debug)]
pub struct BridgeStatus {
    /// Its info, as published.
    pub info: BridgeInfo,
    /// Its health, as `/readyz` has it.
    pub health: Health,
    /// Whether the broker is connected.
    pub mqtt_connected: bool,
    /// What the history has.
    pub history: Totals,
    /// Changes of devices in this run: another number means that a page may show something else.
    pub device_changes: u64,
}

/// Why the event loop gave no answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("the bridge is stopping")]
    Stopping,
    #[error("the event loop has not answered for 10 s")]
    Timeout,
}

/// Sends a query to the event loop.
#[derive(Clone, Debug)]
pub struct LoopClient(mpsc::Sender<LoopQuery>);

impl LoopClient {
    /// A client, and the queue of its queries.
    pub fn new() -> (Self, mpsc::Receiver<LoopQuery>) {
        let (sender, receiver) = mpsc::channel(QUERIES_MAX);
        (Self(sender), receiver)
    }

    async fn ask<T>(
        &self,
        query: impl FnOnce(oneshot::Sender<T>) -> LoopQuery,
    ) -> Result<T, NoAnswer> {
        let (sender, answer) = oneshot::channel();
        let ask = async {
            self.0.send(query(sender)).await.ok()?;
            answer.await.ok()
        };
        timeout(ANSWER_DEADLINE, ask)
            .await
            .map_err(|_| NoAnswer::Timeout)?
            .ok_or(NoAnswer::Stopping)
    }

    /// The bridge itself.
    pub(crate) async fn bridge(&self) -> Result<BridgeStatus, NoAnswer> {
        self.ask(LoopQuery::Bridge).await
    }

    /// The measures of all masters.
    pub(crate) async fn masters(&self) -> Result<Vec<MasterMeasures>, NoAnswer> {
        self.ask(LoopQuery::Masters).await
    }

    /// The measures of all gateways.
    pub(crate) async fn gateways(&self) -> Result<Vec<GatewayMeasures>, NoAnswer> {
        let (mut gateways, mut from) = (Vec::<GatewayMeasures>::new(), GatewayIndex(0));
        while let Some(gateway) = self.ask(|answer| LoopQuery::Gateway(from, answer)).await? {
            from = GatewayIndex(gateway.index.0 + 1);
            gateways.push(gateway);
        }
        Ok(gateways)
    }

    /// The gateway with this name.
    pub(crate) async fn gateway(&self, name: &str) -> Result<Option<GatewayMeasures>, NoAnswer> {
        match name.parse() {
            Ok(name) => self.ask(|answer| LoopQuery::FindGateway(name, answer)).await,
            Err(_) => Ok(None),
        }
    }

    /// The device of a gateway with this ID.
    pub(crate) async fn device(
        &self,
        gateway: GatewayIndex,
        id: DeviceId,
    ) -> Result<Option<DeviceState>, NoAnswer> {
        let ids = (Bound::Included(id), Bound::Included(id));
        let devices = self.ask(|answer| LoopQuery::Devices(gateway, ids, answer)).await?;
        Ok(devices.into_iter().next().map(|device| device.state))
    }

    /// The devices of these gateways, in order of their IDs.
    pub(crate) const fn devices<'a>(&'a self, gateways: &'a [GatewayMeasures]) -> DeviceChunks<'a> {
        DeviceChunks { client: self, gateways, from: Bound::Unbounded }
    }
}

/// Devices, at most [`DEVICES_PER_QUERY`] of one gateway at a time.
pub(crate) struct DeviceChunks<'a> {
    client: &'a LoopClient,
    /// Those that are still to be asked for.
    gateways: &'a [GatewayMeasures],
    /// Where the first gateway is continued.
    from: Bound<DeviceId>,
}

/// Devices of one gateway.
pub(crate) struct DeviceChunk<'a> {
    pub(crate) index: GatewayIndex,
    pub(crate) gateway: &'a GatewayEntry,
    pub(crate) devices: Vec<DeviceMeasures>,
}

impl<'a> DeviceChunks<'a> {
    pub(crate) async fn next(&mut self) -> Result<Option<DeviceChunk<'a>>, NoAnswer> {
        let Some((gateway, rest)) = self.gateways.split_first() else { return Ok(None) };
        let index = gateway.index;
        let ids = (self.from, Bound::Unbounded);
        let devices = self.client.ask(|answer| LoopQuery::Devices(index, ids, answer)).await?;
        match devices.last() {
            Some(last) if devices.len() == DEVICES_PER_QUERY => {
                self.from = Bound::Excluded(last.state.device_id);
            }
            _ => (self.gateways, self.from) = (rest, Bound::Unbounded),
        }
        Ok(Some(DeviceChunk { index, gateway: &gateway.entry, devices }))
    }
}
