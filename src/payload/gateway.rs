//! The infos of gateways and of master gateways, and the content of a gateway's events, as JSON
//! (docs/topics.md, docs/masters.md).

use serde::Serialize;

use super::{BridgeInfo, GatewayEntry};
use crate::fleet::{GatewayEvent, GatewayState, LinkState};
use crate::ids::{GatewayName, Moment};

/// `<base>/<gw>/info`, retained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GatewayInfo<'a> {
    bridge: &'a str,
    gateway: &'a str,
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    master: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_id: Option<&'a str>,
    state: &'static str,
    since: Moment,
    devices: usize,
    /// `None` while that cannot be known.
    connected: Option<usize>,
    package: Option<&'a str>,
    last_error: Option<&'a LastError>,
    clock_skew_s: Option<i64>,
    certificate_expires_at: Option<Moment>,
    accept_filter: Option<AcceptFilterInfo>,
}

/// The last error of a gateway's link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// A gRPC code or one of the link's own, in snake case.
    pub code: &'static str,
    /// What happened and what mends it.
    pub message: String,
    /// It names a configured file that is missing or cannot be read.
    #[serde(skip)]
    pub is_file_missing: bool,
}

/// The accept filter in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AcceptFilterInfo {
    /// Every device is accepted.
    pub allow_all: bool,
    /// How many are accepted by ID.
    pub device_count: usize,
}

/// Facts of a gateway from its link, not from the core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// The package name that it answers to: `gsdk.connect` or `connect`.
    pub package: Option<String>,
    /// Why the link was last down.
    pub last_error: Option<LastError>,
    /// When the certificate ends that it presented last.
    pub certificate_expires_at: Option<Moment>,
    /// Its accept filter, when it was last read.
    pub accept_filter: Option<AcceptFilterInfo>,
    /// Whether its master does not list it any more.
    pub is_removed: bool,
}

impl LinkFacts {
    /// The name of the gateway's state.
    pub fn state_name(&self, state: &GatewayState) -> &'static str {
        let is_removed = self.is_removed && !state.live;
        if is_removed { "removed" } else { state.state.name() }
    }
}

impl<'a> GatewayInfo<'a> {
    /// The info as it is now.
    pub fn new(
        bridge: &'a BridgeInfo,
        gateway: &'a GatewayEntry,
        state: &GatewayState,
        facts: &'a LinkFacts,
    ) -> Self {
        let master = gateway.master.as_ref();
        Self {
            bridge: &bridge.bridge,
            gateway: gateway.name.as_str(),
            address: &gateway.address,
            master: master.map(|master| master.name.as_str()),
            gateway_id: master.map(|master| master.gateway_id.as_str()),
            state: facts.state_name(state),
            since: state.since,
            devices: state.devices(),
            connected: state.live.then_some(state.connected),
            package: facts.package.as_deref(),
            last_error: facts.last_error.as_ref(),
            // Whole seconds, as the timestamps have, so that the info changes less often.
            clock_skew_s: state.clock_skew_ms.map(|skew| (skew + 500).div_euclid(1000)),
            certificate_expires_at: facts.certificate_expires_at,
            accept_filter: facts.accept_filter,
        }
    }

    /// The info after a clean stop `at` this time, until a process has connected.
    #[must_use]
    pub fn stopped(self, at: Moment) -> Self {
        let state = LinkState::Connecting.name();
        Self { state, since: at, connected: None, clock_skew_s: None, ..self }
    }
}

/// What an event of a gateway contains besides the fields of [`super::EventPayload`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GatewayEventContent<'a> {
    /// Its name.
    pub gateway: &'a GatewayName,
    #[serde(flatten)]
    pub event: &'a GatewayEvent,
}

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

    /// The info after a clean stop `at` this time, until a process has connected.
    #[must_use]
    pub fn stopped(self, at: Moment) -> Self {
        let state = LinkState::Connecting.name();
        Self { state, since: at, gateways_online: 0, clock_skew_s: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{ChangedItems, Status};
    use crate::ids::DeviceId;

    #[test]
    fn events_have_the_fields_of_the_contract() {
        let gateway: GatewayName = "lobby".parse().unwrap();
        let device_id = DeviceId::new(7).unwrap();
        let (count, device_ids) = (2, [device_id].into());
        for (event, json) in [
            (GatewayEvent::Reachable, r#"{"gateway":"lobby"}"#),
            (GatewayEvent::Unreachable, r#"{"gateway":"lobby"}"#),
            (GatewayEvent::Corrected { count }, r#"{"gateway":"lobby","count":2}"#),
            (
                GatewayEvent::Restored(ChangedItems { what: "slaves", count, device_ids }),
                r#"{"gateway":"lobby","what":"slaves","count":2,"device_ids":[7]}"#,
            ),
            (
                GatewayEvent::Withdrawn(ChangedItems {
                    what: "slaves",
                    count,
                    device_ids: [].into(),
                }),
                r#"{"gateway":"lobby","what":"slaves","count":2,"device_ids":[]}"#,
            ),
            (
                GatewayEvent::Stranger { device_id, status: Status::TcpConnected },
                r#"{"gateway":"lobby","device_id":7,"status":"tcp_connected"}"#,
            ),
        ] {
            let content = GatewayEventContent { gateway: &gateway, event: &event };
            assert_eq!(serde_json::to_string(&content).unwrap(), json);
        }
    }
}
