//! The masters' series as text, family by family.

use super::text::{Family, SamplesOf, Thousandths, families_text, optional, sample};
use crate::fleet::LinkState;
use crate::ids::{GatewayName, Moment};
use crate::payload::MasterFacts;

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
