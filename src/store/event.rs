//! An event, from its recording to the history.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::Moment;
use crate::payload::Subject;

/// An event on its way to the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows with each event, and is never used again.
    pub id: u64,
    /// When it was recorded, by the bridge's wall clock.
    pub recorded_at: Moment,
    pub subject: Subject,
    /// Its type, as in the topic.
    pub event_type: Cow<'static, str>,
    /// A JSON object.
    #[serde(serialize_with = "as_bytes", deserialize_with = "from_bytes")]
    pub payload: Bytes,
    /// When this process has read it from a gateway's stream, to measure its way to the broker.
    #[serde(skip)]
    pub read_at: Option<Instant>,
}

/// Serializes in one piece, where serde would go byte by byte.
pub(crate) fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

fn from_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    <&[u8]>::deserialize(deserializer).map(Bytes::copy_from_slice)
}
