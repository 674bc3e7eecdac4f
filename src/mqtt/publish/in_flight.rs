//! The messages in flight, by the token that comes back with the acknowledgement.

use std::collections::VecDeque;

use super::message::MessageId;

/// Tokens grow by one and are never reused. Acknowledgements come almost in order, so a window of
/// slots is enough.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    first_token: u64,
    slots: VecDeque<Option<MessageId>>,
    len: usize,
}

impl InFlight {
    /// Adds a message; returns its token.
    pub(crate) fn insert(&mut self, id: MessageId) -> u64 {
        let token = self.next_token();
        self.slots.push_back(Some(id));
        self.len += 1;
        token
    }

    pub(crate) fn remove(&mut self, token: u64) -> Option<MessageId> {
        let index = usize::try_from(token.checked_sub(self.first_token)?).ok()?;
        let id = self.slots.get_mut(index)?.take()?;
        self.len -= 1;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first_token += 1;
        }
        Some(id)
    }

    /// Removes all messages, in the order in which they were sent.
    pub(crate) fn take_all(&mut self) -> Vec<MessageId> {
        self.first_token = self.next_token();
        self.len = 0;
        self.slots.drain(..).flatten().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The token of the next message.
    pub(crate) fn next_token(&self) -> u64 {
        self.first_token + self.slots.len() as u64
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &MessageId)> {
        let slots = (self.first_token..).zip(&self.slots);
        slots.filter_map(|(token, slot)| Some((token, slot.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_reused_and_come_back_in_any_order() {
        let mut in_flight = InFlight::default();
        let tokens = [(); 3].map(|()| in_flight.insert(MessageId::BridgeInfo));
        assert_eq!(in_flight.remove(tokens[1]), Some(MessageId::BridgeInfo));
        assert_eq!(in_flight.remove(tokens[1]), None);
        assert_eq!(in_flight.remove(tokens[0]), Some(MessageId::BridgeInfo));
        assert_eq!((in_flight.len(), in_flight.iter().next().unwrap().0), (1, tokens[2]));
        assert_eq!(in_flight.take_all().len(), 1);
        assert!(in_flight.is_empty());
        assert!(in_flight.insert(MessageId::BridgeState) > tokens[2]);
        assert_eq!(in_flight.remove(tokens[2]), None, "of the connection before");
    }
}
