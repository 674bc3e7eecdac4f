//! The event of a change that was requested, as JSON (docs/commands.md).

use serde::Serialize;

use super::{Directory, format};
use crate::ids::Moment;

/// `<base>/<owner>/event/command`, where the owner is a gateway or the bridge itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CommandEvent<'a, A> {
    event_type: &'static str,
    event_id: String,
    bridge: &'a str,
    #[serde(flatten)]
    audit: &'a A,
    #[serde(serialize_with = "format::moment")]
    timestamp: Moment,
    #[serde(serialize_with = "format::moment")]
    received_at: Moment,
}

impl<'a, A: Serialize> CommandEvent<'a, A> {
    /// Its name, as in topics and payloads.
    pub const NAME: &'static str = "command";

    /// The event, the `number`-th of the bridge in this run.
    #[must_use]
    pub fn new(
        directory: &'a Directory,
        owner: &str,
        number: u64,
        at: Moment,
        audit: &'a A,
    ) -> Self {
        Self {
            event_type: Self::NAME,
            event_id: format!("{}-{owner}-{number}", directory.instance_id),
            bridge: &directory.bridge,
            audit,
            timestamp: at,
            received_at: at,
        }
    }
}
