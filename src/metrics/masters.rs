//! The masters' series as text, family by family.

use super::text::{Family, Thousandths, begin, end, label};
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

/// A family's sample of one master, if it has one.
type SampleOf = fn(&MasterMeasures) -> Option<Thousandths>;

#[rustfmt::skip]
static MASTER_FAMILIES: [(Family, SampleOf); 3] = [
    (Family { name: "gsdk_master_up", kind: "gauge",
        help: "Whether the link to the master is live (1) or not (0)." },
        |master| Some(Thousandths::whole(u64::from(master.facts.state == LinkState::Online)))),
    (Family { name: "gsdk_master_since_timestamp_seconds", kind: "gauge",
        help: "When the master's present state began, by the bridge's clock." },
        |master| Some(Thousandths(master.facts.since.millis()))),
    (Family { name: "gsdk_master_certificate_expiry_timestamp_seconds", kind: "gauge",
        help: "When the master's certificate ends; absent until it was seen." },
        |master| master.facts.certificate_expires_at.map(Moment::millis).map(Thousandths)),
];

/// All masters' text, family by family; empty where there is none.
#[must_use]
pub fn masters_text(masters: &[MasterMeasures]) -> String {
    let mut text = String::new();
    if masters.is_empty() {
        return text;
    }
    for (family, sample) in &MASTER_FAMILIES {
        text.push_str(&family.head());
        for master in masters {
            let Some(value) = sample(master) else { continue };
            let mut master_label = String::new();
            label(&mut master_label, "master", master.name.as_str());
            begin(&mut text, family.name, &master_label);
            end(&mut text, value);
        }
    }
    text
}
