//! Answers the web server's queries in the event loop.

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::gateways::Gateways;
use super::state::State;
use crate::fleet::GatewayIndex;
use crate::http::{BridgeStatus, DEVICES_PER_QUERY, LoopQuery};
use crate::ids::GatewayName;
use crate::metrics::{GatewayMeasures, MasterMeasures};
use crate::payload::{Health, MasterFacts};

/// The task of the web server, and its queries.
#[derive(Debug)]
pub(crate) struct Web {
    task: JoinHandle<()>,
    queries: mpsc::Receiver<LoopQuery>,
    /// Why files of the web server cannot be used.
    file_problems: watch::Receiver<Vec<String>>,
}

impl Web {
    pub(crate) const fn new(
        task: JoinHandle<()>,
        queries: mpsc::Receiver<LoopQuery>,
        file_problems: watch::Receiver<Vec<String>>,
    ) -> Self {
        Self { task, queries, file_problems }
    }

    pub(crate) fn file_problems(&self) -> Vec<String> {
        self.file_problems.borrow().clone()
    }

    /// The next query. Cancel safe.
    pub(crate) async fn query(&mut self) -> Option<LoopQuery> {
        self.queries.recv().await
    }

    /// A query that waits already.
    pub(crate) fn waiting_query(&mut self) -> Option<LoopQuery> {
        self.queries.try_recv().ok()
    }

    /// The next query, until the server has ended. Cancel safe.
    pub(crate) async fn query_or_end(&mut self) -> Option<LoopQuery> {
        tokio::select! {
            // It has ended or panicked.
            _ = &mut self.task => None,
            Some(query) = self.queries.recv() => Some(query),
        }
    }

    /// No more queries are taken.
    pub(crate) fn close(&mut self) {
        self.queries.close();
    }
}

/// Answers a query; sending fails where the client has left.
pub(crate) fn answer(
    query: LoopQuery,
    state: &mut State,
    gateways: &Gateways,
    mqtt_connected: bool,
    health: impl FnOnce(&State) -> Health,
) {
    match query {
        LoopQuery::Gateway(from, answer) => {
            let next = state.directory.gateways.range(from..).next();
            _ = answer.send(next.and_then(|(gateway, _)| measures(state, *gateway)));
        }
        LoopQuery::Masters(answer) => _ = answer.send(masters(state)),
        LoopQuery::Devices(gateway, ids, answer) => {
            // A gateway that is silent may be gone.
            let (now, clock) = (state.clock.steady(), state.clock.steady_clock());
            let seen = gateways.last_activity(gateway).map(|at| clock.at(at.into_std()));
            let devices = state.fleet.measures(gateway, ids, seen.map_or(now, |at| at.min(now)));
            _ = answer.send(devices.take(DEVICES_PER_QUERY).collect());
        }
        LoopQuery::FindGateway(name, answer) => {
            let index = state.directory.find(&name);
            _ = answer.send(index.and_then(|index| measures(state, index)));
        }
        LoopQuery::Bridge(answer) => {
            _ = answer.send(BridgeStatus {
                info: state.directory.info.clone(),
                health: health(state),
                mqtt_connected,
                history: state.persistence.history().totals,
                device_changes: state.device_changes,
            });
        }
    }
}

fn masters(state: &State) -> Vec<MasterMeasures> {
    let master = |(name, facts): (&GatewayName, &MasterFacts)| {
        let behind = state.directory.behind(name).map(|(gateway, _)| gateway);
        let is_online = |gateway: &GatewayIndex| state.fleet.gateway_is_live(*gateway);
        MasterMeasures {
            name: name.clone(),
            facts: facts.clone(),
            gateways: behind.clone().count(),
            gateways_online: behind.filter(is_online).count(),
        }
    };
    state.directory.masters.iter().map(master).collect()
}

fn measures(state: &State, gateway: GatewayIndex) -> Option<GatewayMeasures> {
    let of_core = state.fleet.gateway(gateway)?;
    Some(GatewayMeasures {
        index: gateway,
        entry: state.directory.gateway(gateway)?.clone(),
        state: of_core.state(),
        counts: of_core.counts().clone(),
        facts: state.facts.get(gateway.0)?.clone(),
    })
}
