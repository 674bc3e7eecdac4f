//! Discovery as configured: the topics and payloads of what it describes.

use bytes::Bytes;

use super::message::View;
use crate::homeassistant::{self, Subject};
use crate::mqtt::topics::Topics;
use crate::payload::Directory;

/// Discovery as configured.
#[derive(Clone, Debug)]
pub(crate) struct DiscoverySettings {
    /// Whether it is published; otherwise what the broker retains of it is removed.
    pub(crate) enabled: bool,
    /// What its topics begin with.
    pub(crate) prefix: String,
    /// What the payloads have in common.
    pub(crate) discovery: homeassistant::Discovery,
}

impl DiscoverySettings {
    pub(crate) fn topic(&self, id: &str) -> String {
        format!("{}/device/{id}/config", self.prefix)
    }

    /// The ID in a topic.
    pub(crate) fn id<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(&self.prefix)?.strip_prefix("/device/")?.strip_suffix("/config")
    }

    /// The topic of a subject's discovery.
    pub(crate) fn topic_of(&self, directory: &Directory, subject: Subject) -> Option<String> {
        let discovery = &self.discovery;
        let name = |gateway| directory.gateway(gateway).map(|entry| &entry.name);
        let id = match subject {
            Subject::Bridge => discovery.bridge_id(&directory.bridge),
            Subject::Gateway(gateway) => discovery.gateway_id(name(gateway)?),
            Subject::Device(gateway, device_id) => discovery.device_id(name(gateway)?, device_id),
        };
        Some(self.topic(&id))
    }

    /// The payload of a subject that exists.
    pub(crate) fn payload(&self, topics: &Topics, view: &View, subject: Subject) -> Option<Bytes> {
        let (discovery, directory) = (&self.discovery, view.directory);
        Some(match subject {
            Subject::Bridge => discovery.bridge(directory, &topics.of_bridge()),
            Subject::Gateway(gateway) => {
                let entry = directory.gateway(gateway)?;
                discovery.gateway(directory, entry, &topics.of_gateway(&entry.name))
            }
            Subject::Device(gateway, device_id) => {
                let entry = directory.gateway(gateway)?;
                let state = view.fleet.device(gateway, device_id)?;
                discovery.device(entry, &state, &topics.of_device(&entry.name, device_id))
            }
        })
    }
}
