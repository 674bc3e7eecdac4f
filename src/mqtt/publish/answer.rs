//! An answer to a request, with its alternatives where the broker refuses it.

use bytes::Bytes;

use crate::mqtt::refusal::Refusal;
use crate::mqtt::session::Publish;

/// Bytes of an answer in memory beside its packet.
const ANSWER_OVERHEAD: usize = 256;

/// An answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Answer {
    pub(crate) topic: String,
    /// The topic for the case that the broker refuses the first one.
    pub(crate) otherwise: Option<String>,
    pub(crate) payload: Bytes,
    /// Sent instead if the broker refuses the payload as too large.
    pub(crate) short: Option<Bytes>,
    pub(crate) correlation_data: Option<Bytes>,
}

impl Answer {
    /// An upper bound of its packet's size on either topic, a few bytes too large at most.
    pub(crate) fn packet_size(&self) -> usize {
        let otherwise = self.otherwise.as_ref().map_or(0, String::len);
        let publish = Publish {
            payload: self.payload.clone(),
            content_type: Some("application/json"),
            correlation_data: self.correlation_data.clone(),
            ..Publish::default()
        };
        publish.size() + self.topic.len().max(otherwise)
    }

    /// Adds a short answer, which is sent if the broker refuses this one as too large.
    pub(crate) fn or_short(self, short: Bytes) -> Self {
        Self { short: Some(short), ..self }
    }

    pub(crate) fn memory(&self) -> usize {
        let short = self.short.as_ref().map_or(0, Bytes::len);
        self.packet_size() + short + ANSWER_OVERHEAD
    }

    /// The answer to send after a refusal: the short one, then the one on the bridge's own response
    /// topic, each once.
    pub(crate) fn after(self, refusal: Refusal) -> Option<Self> {
        let too_large = refusal.code() == Refusal::PACKET_TOO_LARGE.code();
        match (self.short, self.otherwise) {
            (Some(short), otherwise) if too_large => {
                Some(Self { payload: short, short: None, otherwise, ..self })
            }
            (short, Some(topic)) => Some(Self { topic, otherwise: None, short, ..self }),
            (_, None) => None,
        }
    }
}
