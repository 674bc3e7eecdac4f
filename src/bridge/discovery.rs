//! Home Assistant: heard when it begins anew, and what the broker keeps of earlier discovery.
//!
//! May not publish: the publisher is told. What earlier runs published is read from the broker, on
//! each connection: so it is cleared also by a bridge whose store is new, and what is there already
//! is not published twice. Where discovery is off, that is done once.

use std::time::Duration;

use tokio::time::Instant;

use super::Bridge;
use crate::config::{Config, HomeAssistant};
use crate::homeassistant::{self, Controls};
use crate::ids::CommandName;
use crate::mqtt::{DiscoverySettings, Message, Retained};

/// What Home Assistant says when it is up.
const BIRTH: &[u8] = b"online";
/// How long after it discovery is published again, at most: not all bridges at one moment.
const JITTER_MS: u64 = 5_000;

/// What is heard of Home Assistant.
#[derive(Debug)]
pub(super) struct Discovery {
    enabled: bool,
    status_topic: String,
    /// So many were found in this reading that are to be cleared.
    stale: usize,
    /// A broker sends a reader only so many at once: what is cleared makes room for others.
    read_again: bool,
    /// Nothing is left of earlier runs.
    done: bool,
    born_at: Option<Instant>,
}

/// What the publisher is to know.
pub(super) fn settings(config: &Config, version: &'static str) -> DiscoverySettings {
    let HomeAssistant { enabled, discovery_prefix, controls, .. } = &config.home_assistant;
    let permitted = |command| *controls && config.commands.allow.permits(command);
    let controls = Controls {
        republish: permitted(CommandName::Republish),
        disconnect: permitted(CommandName::Disconnect),
        disconnect_all: permitted(CommandName::DisconnectAll),
        allow_all: permitted(CommandName::FilterAllowAll),
    };
    let base_topic = &config.mqtt.base_topic;
    DiscoverySettings {
        enabled: *enabled,
        prefix: discovery_prefix.clone(),
        discovery: homeassistant::Discovery::new(base_topic, version, controls),
    }
}

impl Discovery {
    pub(super) fn new(config: &HomeAssistant) -> Self {
        Self {
            enabled: config.enabled,
            status_topic: config.status_topic.clone(),
            stale: 0,
            read_again: false,
            done: false,
            born_at: None,
        }
    }

    /// Whether it is to be known what the broker keeps of it.
    pub(super) const fn is_wanted(&self) -> bool {
        self.enabled || !self.done
    }

    /// Whether what cannot be subscribed to is worth a warning: many have no Home Assistant.
    pub(super) const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// When Home Assistant is to be answered.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.born_at
    }
}

impl Bridge {
    /// A new connection: listens for Home Assistant.
    pub(super) fn listen_for_home_assistant(&mut self) {
        (self.discovery.read_again, self.discovery.stale) = (false, 0);
        let status = vec![(self.discovery.status_topic.clone(), Retained::Skipped)];
        if self.discovery.enabled
            && let Some(connection) = &mut self.connection
            && let Err(error) = connection.subscribe(status)
        {
            tracing::warn!("{error}");
        }
    }

    /// Takes up a message, if it is of Home Assistant or of earlier discovery.
    pub(super) fn discovery_heard(&mut self, message: &Message) {
        let discovery = &mut self.discovery;
        let live = !message.retain;
        if live && message.topic == discovery.status_topic && message.payload == BIRTH {
            let jitter = Duration::from_millis(fastrand::u64(0..JITTER_MS));
            discovery.born_at.get_or_insert(Instant::now() + jitter);
        } else if message.retain {
            let (topic, payload) = (&message.topic, &message.payload);
            let stale = self.publisher.discovery_found(&self.directory, topic, payload);
            discovery.stale += usize::from(stale);
        }
    }

    /// All that the broker keeps has come.
    pub(super) fn discovery_is_read(&mut self) {
        self.publisher.discovery_memory_read();
        let stale = std::mem::take(&mut self.discovery.stale);
        (self.discovery.read_again, self.discovery.done) = (stale > 0, stale == 0);
        if stale > 0 {
            tracing::info!(count = stale, "Home Assistant discovery of what is no more: cleared");
        }
    }

    /// Does what is due by now.
    pub(super) fn wake_discovery(&mut self, now: Instant) {
        if self.discovery.born_at.is_some_and(|at| at <= now) {
            self.discovery.born_at = None;
            tracing::info!("Home Assistant has started: discovery and states are published again");
            self.publisher.home_assistant_born(&self.fleet);
        }
        if self.discovery.read_again
            && self.retained_scan.is_idle()
            && self.publisher.discovery_is_idle()
        {
            self.discovery.read_again = false;
            let filter = self.publisher.discovery_filter();
            self.scan(vec![(filter, Retained::Many)]);
        }
    }
}
