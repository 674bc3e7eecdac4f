//! A master gateway's info as JSON (docs/masters.md).

use serde::Serialize;

use super::{BridgeInfo, LastError};
use crate::fleet::LinkState;
use crate::ids::{GatewayName, Moment};

/// `<base>/<bridge>/master/<name>/info`, retained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MasterInfo<'a> {
    bridge: &'a str,
    master: &'a str,
    address: &'a str,
    state: &'static str,
    since: Moment,
    last_error: Option<&'a LastError>,
    gateways: usize,
    gateways_online: usize,
    certificate_expires_at: Option<Moment>,
    token_expires_at: Option<Moment>,
    clock_skew_s: Option<i64>,
}

/// What the link to a master shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterFacts {
    /// Host and port, as configured.
    pub address: String,
    /// `Connecting`, `Online` or `Lost`.
    pub state: LinkState,
    /// When that state began.
    pub since: Moment,
    /// Why the link was last down.
    pub last_error: Option<LastError>,
    /// When the certificate ends that it presented last.
    pub certificate_expires_at: Option<Moment>,
    /// When the present token ends, by the master's clock.
    pub token_expires_at: Option<Moment>,
    /// The master's clock minus the bridge's, an estimate.
    pub clock_skew_ms: Option<i64>,
}

impl<'a> MasterInfo<'a> {
    /// The info as it is now; `gateways` are those behind the master, `gateways_online` those of
    /// them that are online.
    pub fn new(
        bridge: &'a BridgeInfo,
        master: &'a GatewayName,
        facts: &'a MasterFacts,
        gateways: usize,
        gateways_online: usize,
    ) -> Self {
        Self {
            bridge: &bridge.bridge,
            master: master.as_str(),
            address: &facts.address,
            state: facts.state.name(),
            since: facts.since,
            last_error: facts.last_error.as_ref(),
            gateways,
            gateways_online,
            certificate_expires_at: facts.certificate_expires_at,
            token_expires_at: facts.token_expires_at,
            clock_skew_s: facts.clock_skew_ms.map(|skew| (skew + 500).div_euclid(1000)),
        }
    }
}
