//! `check --connect`: tests what the bridge needs, with the same code as `run`, and reports
//! remedies. It does not disturb a running bridge: it changes nothing at a gateway, uses another
//! client ID, and leaves neither retained messages nor files.

mod broker;
mod gateway;
mod local;
mod master;
mod probe;

use std::fmt;

use futures_util::future::join_all;

use crate::bridge::gateway_target;
use crate::certificate::Certificate;
use crate::config::{Loaded, Origin, Setting};
use crate::gsdk::GatewayTarget;
use crate::{mqtt, net};

pub(crate) use broker::examine as examine_broker;
pub(crate) use gateway::examine as examine_gateway;
pub(crate) use local::unusable_files;
pub(crate) use master::examine as examine_master;

/// A certificate that expires within this many days is a warning.
const EXPIRES_SOON_DAYS: i64 = 30;
const DAY_MS: i64 = 86_400_000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing, nothing to do.
    Note,
    /// It works partly, or not for long.
    Warn,
    /// The bridge cannot do its work.
    Fail,
}

/// What was found and, unless it is as it should be, the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// In one line.
    pub text: String,
    /// The key that it is about.
    key: Option<String>,
    /// Where that key was set.
    place: Option<Origin>,
}

impl Finding {
    fn new(level: Level, text: impl Into<String>) -> Self {
        Self { level, text: text.into(), key: None, place: None }
    }

    fn ok(text: impl Into<String>) -> Self {
        Self::new(Level::Ok, text)
    }

    fn note(text: impl Into<String>) -> Self {
        Self::new(Level::Note, text)
    }

    fn warn(text: impl Into<String>) -> Self {
        Self::new(Level::Warn, text)
    }

    fn fail(text: impl Into<String>) -> Self {
        Self::new(Level::Fail, text)
    }

    /// Sets the key that it is about, unless the text names a more specific one.
    fn about(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds where the key was set.
    fn placed(mut self, loaded: &Loaded) -> Self {
        if self.level < Level::Warn {
            return self;
        }
        let named = loaded.settings.iter().filter(|setting| self.text.contains(&setting.key));
        // A key that was set comes before one with its default; then the more specific one.
        let rank =
            |it: &&Setting| (it.origin != Origin::Default, it.key.len(), self.text.find(&it.key));
        let named = named.max_by_key(rank);
        let about = || loaded.settings.iter().find(|it| Some(&it.key) == self.key.as_ref());
        if let Some(setting) = named.or_else(about) {
            self.place = Some(setting.origin.clone());
            self.key = Some(setting.key.clone());
        }
        self
    }
}

/// The names and dates of a certificate; a warning where it expires soon, a failure where it has
/// expired.
fn certificate(owner: &str, certificate: &Certificate, remedy: &str) -> Finding {
    let days = (certificate.not_after.millis() - net::wall_time().millis()) / DAY_MS;
    let text = format!(
        "{owner}: its certificate names {}, is signed by {:?} and valid from {} to {} ({})",
        certificate.names.join(", "),
        certificate.issuer,
        certificate.not_before.utc_day(),
        certificate.not_after.utc_day(),
        count(usize::try_from(days).unwrap_or(0), "day")
    );
    if certificate.not_after < net::wall_time() {
        let expired = certificate.not_after.utc_day();
        return Finding::fail(format!(
            "{owner}: its certificate has expired on {expired}; {remedy}"
        ));
    }
    if days < EXPIRES_SOON_DAYS {
        return Finding::warn(format!("{text}; {remedy}"));
    }
    Finding::ok(text)
}

/// `1 device`, `2 devices`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<5} {}", self.level, self.text)?;
        match (&self.key, &self.place) {
            (Some(key), Some(Origin::Default)) => write!(f, " [{key}, default]"),
            (Some(key), Some(place)) => write!(f, " [{place}: {key}]"),
            _ => Ok(()),
        }
    }
}

/// Checks everything at the same time, for at most half a minute. Findings are in the order of the
/// configuration.
pub async fn examine(loaded: &Loaded, session: mqtt::SessionSettings) -> Vec<Finding> {
    let config = &loaded.config;
    let masters = config.masters.iter().map(|(name, master)| {
        master::examine(crate::bridge::master_options(name, master), config, name)
    });
    let direct = config.gateways.iter().filter_map(|(name, gateway)| {
        match gateway_target(&config.masters, name, gateway) {
            Ok(GatewayTarget::Direct(options)) => Some(gateway::examine(options)),
            _ => None,
        }
    });
    let (local, broker, masters, direct) = tokio::join!(
        local::examine(loaded),
        broker::examine(config, session),
        join_all(masters),
        join_all(direct),
    );
    let gateways = masters.into_iter().chain(direct).flatten();
    let all = local.into_iter().chain(broker).chain(gateways);
    all.map(|finding| finding.placed(loaded)).collect()
}
