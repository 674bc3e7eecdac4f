//! Events: taken from the outbox in order, one of each subject in flight.

use bytes::Bytes;

use super::message::{MessageId, Outgoing};
use super::states::States;
use crate::fleet::GatewayIndex;
use crate::mqtt::topics::Topics;
use crate::payload::{Directory, Subject};
use crate::store::Outbox;

/// The oldest event that may be sent. A gateway's event follows the state that it led to.
pub(crate) fn next_event(
    outbox: &mut Outbox,
    states: &States,
    topics: &Topics,
    directory: &Directory,
) -> Option<Outgoing> {
    let may_be_sent = |subject: &Subject| match subject {
        Subject::Gateway(name) => {
            let at = directory.gateways.iter().position(|entry| entry.name == *name);
            !at.is_some_and(|at| states.gateway_waits(GatewayIndex(at)))
        }
        Subject::Bridge | Subject::Device(..) => true,
    };
    let (event, lost) = outbox.next(may_be_sent)?;
    let topic = topics.event(&event.subject, &event.event_type);
    let payload = with_lost(&event.payload, lost);
    Some(Outgoing::json(MessageId::Event(event.subject.clone()), topic, payload))
}

/// The payload with the number of events of its subject that were dropped before it.
fn with_lost(payload: &Bytes, lost: u64) -> Bytes {
    match payload.strip_suffix(b"}") {
        Some(open) if lost > 0 => {
            let mut payload = open.to_vec();
            payload.extend_from_slice(format!(",\"lost\":{lost}}}").as_bytes());
            payload.into()
        }
        _ => payload.clone(),
    }
}
