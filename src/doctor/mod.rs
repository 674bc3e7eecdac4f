//! `check --connect`: tries what the bridge will need, and says what mends what fails.
//!
//! May not change anything at a gateway, leave anything retained, use the bridge's client ID, or
//! make anything in the state directory that stays: a running bridge is not to notice.

mod broker;
mod gateway;
mod local;
mod retained;
mod words;

use std::fmt;

use tokio::task::JoinSet;

use crate::certificate::Certificate;
use crate::config::{Loaded, Origin, Setting};
use crate::mqtt;
use words::{count, day, days_until};

/// A certificate that ends within this many days is worth a warning.
const EXPIRES_SOON_DAYS: i64 = 30;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing, nothing to do.
    Note,
    /// It works, but not for ever or not all of it.
    Warn,
    /// The bridge cannot do its work.
    Fail,
}

/// One thing that was looked at: what was found and, where it is not well, what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// In one line.
    pub text: String,
    /// The key that says so, where one does.
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

    /// About this key, unless the text names one that is more to the point.
    fn about(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With the place where the key was set.
    fn placed(mut self, loaded: &Loaded) -> Self {
        if self.level < Level::Warn {
            return self;
        }
        let named = loaded.settings.iter().filter(|setting| self.text.contains(&setting.key));
        // A key that was set before one that was not; of two alike the one that is named last.
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

/// Whom a certificate names and how long it is good; a warning where it ends soon.
fn certificate(of: &str, shown: &Certificate, remedy: &str) -> Finding {
    let days = days_until(shown.not_after);
    let text = format!(
        "{of}: its certificate names {}, is signed by {:?} and valid from {} to {} ({})",
        shown.names.join(", "),
        shown.issuer,
        day(shown.not_before),
        day(shown.not_after),
        count(usize::try_from(days).unwrap_or(0), "day")
    );
    if days < EXPIRES_SOON_DAYS {
        return Finding::warn(format!("{text}; {remedy}"));
    }
    Finding::ok(text)
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        write!(f, "{level:<5} {}", self.text)?;
        match (&self.key, &self.place) {
            (Some(key), Some(Origin::Default)) => write!(f, " [{key}, default]"),
            (Some(key), Some(place)) => write!(f, " [{place}: {key}]"),
            _ => Ok(()),
        }
    }
}

/// Looks at everything, at most half a minute long; findings in the order of the configuration.
pub async fn examine(loaded: &Loaded, session: mqtt::Settings) -> Vec<Finding> {
    let config = &loaded.config;
    let mut gateways = JoinSet::new();
    for (at, (name, gateway)) in config.gateways.iter().enumerate() {
        let options = crate::bridge::gateway_options(name, gateway);
        gateways.spawn(async move { (at, gateway::examine(options).await) });
    }
    let (local, broker) = tokio::join!(local::examine(config), broker::examine(config, session));
    let mut of_gateways = gateways.join_all().await;
    of_gateways.sort_by_key(|(at, _)| *at);
    let of_gateways = of_gateways.into_iter().flat_map(|(_, findings)| findings);
    let all = local.into_iter().chain(broker).chain(of_gateways);
    all.map(|finding| finding.placed(loaded)).collect()
}
