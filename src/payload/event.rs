//! The events of gateways and of the bridge as JSON (docs/topics.md).

use serde::Serialize;

use super::Directory;
use crate::ids::Moment;

/// `<base>/<owner>/event/<type>`, where the owner is a gateway or the bridge itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventPayload<'a, C> {
    event_type: &'static str,
    event_id: String,
    bridge: &'a str,
    #[serde(flatten)]
    content: C,
    timestamp: Moment,
    received_at: Moment,
}

impl<'a, C: Serialize> EventPayload<'a, C> {
    /// The event, the `number`-th of the bridge and its gateways in this run.
    pub fn new(
        directory: &'a Directory,
        owner: &str,
        number: u64,
        at: Moment,
        event_type: &'static str,
        content: C,
    ) -> Self {
        Self {
            event_type,
            event_id: format!("{}-{owner}-{number}", directory.info.instance_id),
            bridge: &directory.info.bridge,
            content,
            timestamp: at,
            received_at: at,
        }
    }
}
