//! Scenario files: the devices of a site and planned faults, in TOML. The same seed gives the same
//! sequence. Three scenarios are included.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

use serde::Deserialize;

use super::fault::ScenarioStep;
use super::gateway::GatewayTiming;
use super::settings::{MasterSettings, SimulatorSettings};
use super::site::{self, DialMode, SiteDevice, address_of};

/// The shipped scenarios.
const SHIPPED: [(&str, &str); 3] = [
    ("office", include_str!("scenarios/office.toml")),
    ("hospital", include_str!("scenarios/hospital.toml")),
    ("flapping", include_str!("scenarios/flapping.toml")),
];

/// Most devices of a scenario, all gateways together.
const DEVICES_MAX: usize = 200_000;
/// Most gateways of a master.
const GATEWAYS_MAX: usize = 100;

/// A site and the faults to come.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a sentence.
    #[serde(default)]
    pub about: String,
    /// For every random choice.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Whether all devices are managed from the start, as after requests of a client.
    #[serde(default)]
    pub managed: bool,
    /// Whether the gateway reports `TRY_TO_CONNECT`.
    #[serde(default = "default_true", rename = "tells_tries")]
    pub reports_tries: bool,
    /// With a number, a master gateway with so many device gateways, each with all the devices.
    #[serde(default)]
    pub gateways: Option<usize>,
    /// How long things take.
    #[serde(default)]
    pub timing: GatewayTiming,
    /// The devices, in groups of the same kind.
    pub devices: Vec<Group>,
    /// Faults to come.
    #[serde(default)]
    pub steps: Vec<ScenarioStep>,
}

const fn default_seed() -> u64 {
    1
}

const fn default_true() -> bool {
    true
}

/// Devices of the same kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    #[serde(default = "default_count")]
    pub count: usize,
    /// Their kind, a number of `gsdk.device.Type`; its name in the file, as `bioentry_w2`.
    #[serde(rename = "type", with = "site::kind")]
    pub kind: i32,
    /// The first one's number, the others' follow; chosen if absent.
    pub first_id: Option<u32>,
    /// The first one's address, the others' follow; chosen if absent.
    pub first_ip: Option<Ipv4Addr>,
    /// Who dials.
    #[serde(default)]
    pub mode: DialMode,
    /// Whether they use TLS.
    #[serde(default)]
    pub ssl: bool,
    /// Whether they are switched on at the start.
    #[serde(default = "default_true")]
    pub powered: bool,
}

const fn default_count() -> usize {
    1
}

impl Group {
    /// The addresses of its devices; none if they are chosen.
    fn given_ips(&self) -> impl Iterator<Item = Ipv4Addr> {
        let count = u32::try_from(self.count).unwrap_or(u32::MAX);
        let numbered = move |first| (0..count).map(move |n| u32::wrapping_add(first, n).into());
        self.first_ip.map(u32::from).into_iter().flat_map(numbered)
    }
}

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("no scenario {name:?}: shipped are {shipped}, anything else is a file")]
    Unknown { name: String, shipped: String, source: std::io::Error },
    #[error("cannot read scenario {name:?}")]
    Form { name: String, source: toml::de::Error },
    #[error("scenario {name:?}: {what}")]
    Content { name: String, what: String },
}

impl Scenario {
    /// The shipped scenario of this name, or the one in the file of this path.
    ///
    /// # Errors
    ///
    /// When there is neither, or it is not a scenario.
    pub fn load(name: &str) -> Result<Self, ScenarioError> {
        if let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            return Self::parse(name, text);
        }
        let text = std::fs::read_to_string(Path::new(name)).map_err(|source| {
            let shipped = SHIPPED.map(|(name, _)| name).join(", ");
            ScenarioError::Unknown { name: name.to_owned(), shipped, source }
        })?;
        Self::parse(name, &text)
    }

    /// The scenario in this text; `name` is for messages.
    ///
    /// # Errors
    ///
    /// When it is not a scenario.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)
            .map_err(|source| ScenarioError::Form { name: name.to_owned(), source })?;
        match scenario.problem() {
            None => Ok(scenario),
            Some(what) => Err(ScenarioError::Content { name: name.to_owned(), what }),
        }
    }

    fn problem(&self) -> Option<String> {
        if let Some(gateways) = self.gateways
            && !(1..=GATEWAYS_MAX).contains(&gateways)
        {
            return Some(format!("{gateways} gateways; a master has 1 to {GATEWAYS_MAX}"));
        }
        let each = self.devices.iter().fold(0_usize, |sum, group| sum.saturating_add(group.count));
        let devices = each.saturating_mul(self.gateways.unwrap_or(1));
        if devices > DEVICES_MAX {
            return Some(format!("{devices} devices; {DEVICES_MAX} are the most"));
        }
        for (number, step) in self.steps.iter().enumerate() {
            let wrong = |what: &str| Some(format!("step {}: {what}", number + 1));
            if !step.at_s.is_finite() || step.at_s < 0.0 {
                return wrong("`at_s` is no time from the start");
            }
            if step.every_s.is_some_and(|every| !every.is_finite() || every < 0.001) {
                return wrong("`every_s` is at least 0.001");
            }
        }
        let (mut ids, mut addresses) = (BTreeSet::from([0]), BTreeSet::new());
        for device in self.devices_of(0) {
            if !ids.insert(device.id) {
                return Some(format!("{} is no device's ID, or two have it", device.id));
            }
            if !addresses.insert(device.ip) {
                return Some(format!("two devices have the address {}", device.ip));
            }
        }
        None
    }

    /// The devices of the gateway numbered `gateway`.
    ///
    /// Groups with given IDs keep them at the first gateway; further gateways count on from where
    /// the fleet before them ended.
    pub fn devices_of(&self, gateway: usize) -> Vec<SiteDevice> {
        let each: usize = self.devices.iter().map(|group| group.count).sum();
        let given_ips: BTreeSet<Ipv4Addr> =
            self.devices.iter().flat_map(Group::given_ips).collect();
        let mut skipped = 0;
        let mut devices = Vec::with_capacity(each);
        for group in &self.devices {
            let mut given_ips_of_group = group.given_ips();
            for number in 0..group.count {
                let place = devices.len();
                let overall = u32::try_from(gateway * each + place).unwrap_or(u32::MAX);
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                let given = group.first_id.filter(|_| gateway == 0);
                let id = given.map_or(600_000_001_u32.wrapping_add(overall), |first| {
                    first.wrapping_add(number)
                });
                let ip = given_ips_of_group.next().unwrap_or_else(|| {
                    while given_ips.contains(&address_of(gateway, place + skipped)) {
                        skipped += 1;
                    }
                    address_of(gateway, place + skipped)
                });
                let Group { kind, mode, ssl, powered, .. } = *group;
                devices.push(SiteDevice { mode, ssl, powered, ..SiteDevice::new(id, kind, ip) });
            }
        }
        devices
    }

    /// `settings` with this site and these faults.
    #[must_use]
    pub fn settings(&self, settings: SimulatorSettings) -> SimulatorSettings {
        let numbered = |count| MasterSettings::numbered(count, |number| self.devices_of(number));
        let master = self.gateways.map(numbered);
        SimulatorSettings {
            devices: if master.is_some() { Vec::new() } else { self.devices_of(0) },
            master,
            managed: self.managed,
            timing: self.timing.clone(),
            reports_tries: self.reports_tries,
            seed: self.seed,
            steps: self.steps.clone(),
            ..settings
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_scenarios_are_valid() {
        for (name, _) in SHIPPED {
            let scenario = Scenario::load(name).unwrap();
            assert!(!scenario.about.is_empty() && !scenario.steps.is_empty(), "{name}");
        }
        assert_eq!(Scenario::load("hospital").unwrap().devices_of(0).len(), 1_000);
    }

    #[test]
    fn errors_name_the_mistake() {
        for (text, word) in [
            ("devices = [{ type = 'toaster' }]", "toaster"),
            ("devices = [{ type = 'xpass', cuont = 3 }]", "cuont"),
            ("devices = [{ type = 'xpass', first_id = 5 }, { type = 'xpass', first_id = 5 }]", "5"),
            ("devices = [{ type = 'xpass', first_id = 0 }]", "0"),
            ("gateways = 101\ndevices = []", "101"),
            ("devices = [{ type = 'xpass', count = 900000 }]", "900000"),
            ("devices = []\nsteps = [{ at_s = -1, fault = { do = 'heal' } }]", "step 1"),
            ("devices = []\nsteps = [{ at_s = 1, fault = { do = 'hael' } }]", "hael"),
        ] {
            let error = Scenario::parse("mine", text).unwrap_err();
            let text = match &error {
                ScenarioError::Form { source, .. } => source.to_string(),
                ScenarioError::Unknown { .. } | ScenarioError::Content { .. } => error.to_string(),
            };
            assert!(text.contains(word), "{text}");
        }
        assert!(Scenario::load("no such file").unwrap_err().to_string().contains("office"));
    }

    #[test]
    fn chosen_addresses_are_not_those_that_are_given() {
        let first = Scenario::parse("mine", "devices = [{ type = 'xpass' }]").unwrap();
        let taken = first.devices_of(0)[0].ip;
        let given = format!("{{ type = 'xpass', count = 2, first_ip = '{taken}' }}");
        let text = format!("devices = [{{ type = 'xpass', count = 5 }}, {given}]");
        assert_eq!(Scenario::parse("mine", &text).unwrap().devices_of(0).len(), 7);
        let text = format!("devices = [{given}, {given}]");
        assert!(Scenario::parse("mine", &text).is_err());
    }

    #[test]
    fn further_gateways_have_devices_of_their_own() {
        let text = "gateways = 2\ndevices = [{ type = 'xpass', count = 3, first_id = 7 }]";
        let scenario = Scenario::parse("mine", text).unwrap();
        let ids = |gateway| -> Vec<u32> {
            scenario.devices_of(gateway).iter().map(|device| device.id).collect()
        };
        assert_eq!(ids(0), [7, 8, 9]);
        assert!(ids(1).iter().all(|id| !ids(0).contains(id)));
    }
}
