//! Queries to the event loop that several handlers use.

use super::super::App;
use super::super::query::{LoopQuery, NoAnswer};
use super::problem::{Problem, quoted};
use crate::fleet::GatewayIndex;
use crate::metrics::GatewayMeasures;
use crate::payload::{BridgeInfo, Directory};

impl From<NoAnswer> for Problem {
    fn from(error: NoAnswer) -> Self {
        Self::unavailable(error.to_string())
    }
}

/// The names that payloads have of the bridge.
pub(crate) async fn directory(app: &App) -> Result<Directory, NoAnswer> {
    let info = app.settings.event_loop.ask(LoopQuery::Bridge).await?.info;
    let BridgeInfo { bridge, instance_id, chain, .. } = info;
    let (masters, removed_masters, gateways) = Default::default();
    Ok(Directory { bridge, instance_id, chain, masters, removed_masters, gateways })
}

/// The gateway with this name.
pub(crate) async fn find_gateway(
    app: &App,
    name: &str,
) -> Result<(GatewayIndex, GatewayMeasures), Problem> {
    let found = match name.parse() {
        Ok(name) => {
            app.settings.event_loop.ask(|answer| LoopQuery::FindGateway(name, answer)).await?
        }
        Err(_) => None,
    };
    found.ok_or_else(|| no_gateway(name))
}

pub(crate) fn no_gateway(name: &str) -> Problem {
    let name = quoted(name);
    let detail =
        format!("this bridge has no gateway {name:?}; /api/v1/gateways lists those it has");
    Problem::not_found("gateway", detail)
}
