//! The series of gateways and masters as text, family by family. Devices of a gateway that is not
//! online count as unknown.

use super::text::{Family, Sample, SamplesOf, Thousandths, families_text, optional, sample};
use crate::fleet::{GatewayCounts, GatewayIndex, GatewayState, LinkState, Status};
use crate::ids::{GatewayName, Moment};
use crate::payload::{GatewayEntry, LinkFacts, MasterFacts};

/// What metrics and status page show of a gateway, read at one instant.
#[derive(Clone, Debug)]
pub struct GatewayMeasures {
    pub index: GatewayIndex,
    /// Its configuration.
    pub entry: GatewayEntry,
    /// The state of the link and the counts of devices.
    pub state: GatewayState,
    /// Its counts.
    pub counts: GatewayCounts,
    /// The facts of its link.
    pub facts: LinkFacts,
}

impl GatewayMeasures {
    /// Why it is not online.
    pub fn last_error(&self) -> Option<&str> {
        let error = self.facts.last_error.as_ref().filter(|_| !self.state.live);
        error.map(|error| error.message.as_str())
    }
}

#[rustfmt::skip]
static GATEWAY_FAMILIES: [(Family, SamplesOf<GatewayMeasures>); 13] = [
    (Family { name: "gsdk_gateway_up", kind: "gauge",
        help: "Whether the bridge's view of the gateway is live (1) or not (0)." },
        |gateway| sample(Thousandths::whole(u64::from(gateway.state.live)))),
    (Family { name: "gsdk_gateway_since_timestamp_seconds", kind: "gauge",
        help: "When the gateway's present state began, by the bridge's clock." },
        |gateway| sample(Thousandths(gateway.state.since.millis()))),
    (Family { name: "gsdk_gateway_info", kind: "gauge",
        help: "Always 1; the label master is the gateway's master, or empty." },
        |gateway| {
            let master = gateway.entry.master.as_ref().map(|master| master.name.to_string());
            let label = Some(("master", master.unwrap_or_default()));
            vec![Sample { label, value: Thousandths::whole(1) }]
        }),
    (Family { name: "gsdk_gateway_devices", kind: "gauge",
        help: "Devices that are connected, or expected and not connected, or unknown." },
        |gateway| {
            let count = |connected, count: usize| Sample {
                label: Some(("connected", String::from(connected))),
                value: Thousandths::whole(count as u64),
            };
            let GatewayState { connected, disconnected, unknown, .. } = gateway.state;
            vec![count("true", connected), count("false", disconnected), count("unknown", unknown)]
        }),
    (Family { name: "gsdk_gateway_stream_starts_total", kind: "counter",
        help: "Links made to the gateway." },
        |gateway| sample(Thousandths::whole(gateway.counts.stream_starts))),
    (Family { name: "gsdk_gateway_last_list_timestamp_seconds", kind: "gauge",
        help: "When the gateway's list was last read; absent until then." },
        |gateway| optional(gateway.state.last_list_at.map(Moment::millis))),
    (Family { name: "gsdk_gateway_audit_interval_seconds", kind: "gauge",
        help: "How often the list is read, as configured; what is much older is stale." },
        |gateway| sample(Thousandths(gateway.state.audit_interval_ms))),
    (Family { name: "gsdk_gateway_clock_skew_seconds", kind: "gauge",
        help: "The gateway's clock minus the bridge's, an estimate; absent until there is one." },
        |gateway| optional(gateway.state.clock_skew_ms)),
    (Family { name: "gsdk_gateway_certificate_expiry_timestamp_seconds", kind: "gauge",
        help: "When the gateway's certificate ends; absent until it was seen." },
        |gateway| optional(gateway.facts.certificate_expires_at.map(Moment::millis))),
    (Family { name: "gsdk_status_changes_total", kind: "counter",
        help: "Status changes that became events; other: unknown codes beyond the first few." },
        status_changes),
    (Family { name: "gsdk_repeated_status_total", kind: "counter",
        help: "Status updates equal to the current status, and repeated attempts to connect." },
        |gateway| sample(Thousandths::whole(gateway.counts.repeated))),
    (Family { name: "gsdk_corrections_total", kind: "counter",
        help: "Differences that audits found." },
        |gateway| sample(Thousandths::whole(gateway.counts.corrections))),
    (Family { name: "gsdk_stranger_status_total", kind: "counter",
        help: "Statuses of devices neither listed nor configured." },
        |gateway| sample(Thousandths::whole(gateway.counts.strangers))),
];

fn status_changes(gateway: &GatewayMeasures) -> Vec<Sample> {
    let counts = &gateway.counts.status_changes;
    let known = Status::KNOWN.iter().map(|status| (*status, counts.get(status).copied()));
    let unknown = counts.iter().filter(|(status, _)| matches!(status, Status::Unknown(_)));
    let unknown = unknown.map(|(status, count)| (*status, Some(*count)));
    let other = Some(gateway.counts.status_changes_other).filter(|count| *count > 0);
    known
        .chain(unknown)
        .map(|(status, count)| (status.to_string(), count.unwrap_or(0)))
        .chain(other.map(|count| ("other".to_owned(), count)))
        .map(|(status, count)| Sample {
            label: Some(("status", status)),
            value: Thousandths::whole(count),
        })
        .collect()
}

/// All gateways' text, family by family.
pub fn gateways_text(gateways: &[GatewayMeasures]) -> String {
    families_text(&GATEWAY_FAMILIES, "gateway", gateways, |gateway| &gateway.entry.name)
}

/// What metrics and the API show of a master, read at one instant.
#[derive(Clone, Debug)]
pub struct MasterMeasures {
    /// Its name.
    pub name: GatewayName,
    /// What its link shows.
    pub facts: MasterFacts,
    /// The gateways behind it.
    pub gateways: usize,
    /// Those of them that are online.
    pub gateways_online: usize,
}

#[rustfmt::skip]
static MASTER_FAMILIES: [(Family, SamplesOf<MasterMeasures>); 3] = [
    (Family { name: "gsdk_master_up", kind: "gauge",
        help: "Whether the link to the master is live (1) or not (0)." },
        |master| sample(Thousandths::whole(u64::from(master.facts.state == LinkState::Online)))),
    (Family { name: "gsdk_master_since_timestamp_seconds", kind: "gauge",
        help: "When the master's present state began, by the bridge's clock." },
        |master| sample(Thousandths(master.facts.since.millis()))),
    (Family { name: "gsdk_master_certificate_expiry_timestamp_seconds", kind: "gauge",
        help: "When the master's certificate ends; absent until it was seen." },
        |master| optional(master.facts.certificate_expires_at.map(Moment::millis))),
];

/// All masters' text, family by family; empty where there is none.
pub fn masters_text(masters: &[MasterMeasures]) -> String {
    if masters.is_empty() {
        return String::new();
    }
    families_text(&MASTER_FAMILIES, "master", masters, |master| &master.name)
}
