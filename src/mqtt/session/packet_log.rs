//! What the packets of one connection said: reason codes, and which topic went out under which
//! packet identifier.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Protocol;
use super::packets::{
    ASSIGNED_CLIENT_IDENTIFIER, CONNACK, DISCONNECT, FixedHeader, PUBACK, PUBLISH, REASON_STRING,
    RESPONSE_INFORMATION, SERVER_KEEP_ALIVE, SUBACK, UNSUBACK, properties, u16_at,
};
use crate::mqtt::refusal::Refusal;

/// The first byte of a TLS alert, with which no MQTT packet begins.
const TLS_ALERT: u8 = 0x15;
/// Reasons that the library lists, and that stand for any other while it reads.
const SERVICE_UNAVAILABLE_V311: u8 = 3;
const UNSPECIFIED_V5: u8 = 0x80;

/// A reason code with the broker's own words, if it gave any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) code: u8,
    pub(super) text: Option<String>,
}

/// Shared by the socket, which writes it, and the session, which reads it; both run in one task.
#[derive(Clone, Debug, Default)]
pub(super) struct PacketLog(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    first_byte: Option<u8>,
    connack: Option<Reason>,
    disconnect: Option<Reason>,
    /// Codes of PUBACKs that the session has not asked for yet.
    pubacks: VecDeque<(u16, u8)>,
    /// The same of SUBACKs, a code for each filter.
    subacks: VecDeque<(u16, Vec<u8>)>,
    /// The hash of the topic last written under each packet identifier.
    topics: Vec<u32>,
}

/// What stands for a topic in the log.
pub(super) fn topic_hash(topic: &[u8]) -> u32 {
    crc32fast::hash(topic)
}

impl PacketLog {
    /// Whether the broker's answer to a plain connection was a TLS alert.
    pub(super) fn is_tls_alert(&self) -> bool {
        self.entries().first_byte == Some(TLS_ALERT)
    }

    /// The CONNACK with which the broker refused.
    pub(super) fn connack(&self) -> Option<Reason> {
        self.entries().connack.clone()
    }

    /// The broker's DISCONNECT.
    pub(super) fn disconnect(&self) -> Option<Reason> {
        self.entries().disconnect.clone()
    }

    /// The result and the topic's hash of the next PUBACK; `None` where it is not of this packet.
    pub(super) fn puback(&self, packet: u16) -> Option<(Result<(), Refusal>, u32)> {
        let mut entries = self.entries();
        let (read, code) = entries.pubacks.pop_front()?;
        let topic = *entries.topics.get(usize::from(packet))?;
        (read == packet).then_some((Refusal::from_code(code), topic))
    }

    /// The results of the next SUBACK; `None` where it is not of this packet.
    pub(super) fn suback(&self, packet: u16) -> Option<Vec<Result<(), Refusal>>> {
        let (read, codes) = self.entries().subacks.pop_front()?;
        (read == packet).then(|| codes.into_iter().map(Refusal::from_code).collect())
    }

    /// Records the first byte from the broker.
    pub(super) fn first_byte(&self, byte: u8) {
        self.entries().first_byte = Some(byte);
    }

    /// Records a packet from the broker, and puts codes in it that the library lists.
    pub(super) fn received(&self, kind: u8, body: &mut [u8], protocol: Protocol, keep_alive: u16) {
        let mut entries = self.entries();
        // A malformed packet is left as it is: the library ends the connection over it.
        _ = match kind {
            CONNACK => entries.received_connack(body, protocol, keep_alive),
            PUBACK => entries.received_puback(body),
            SUBACK => entries.received_suback(body, protocol),
            UNSUBACK => accept_all(body, protocol),
            DISCONNECT => entries.received_disconnect(body),
            _ => None,
        };
    }

    /// Records the packet at the front of these bytes, and gives its size; `None` where its
    /// beginning is not complete.
    pub(super) fn sent(&self, bytes: &[u8]) -> Option<usize> {
        let header = FixedHeader::read(bytes)?;
        if header.kind() == PUBLISH && header.has_packet_identifier() {
            let (topic, packet) = header.publish(bytes)?;
            let (hash, index) = (topic_hash(topic), usize::from(packet));
            let topics = &mut self.entries().topics;
            if topics.len() <= index {
                topics.resize(index + 1, 0);
            }
            topics[index] = hash;
        }
        Some(header.size())
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn received_connack(
        &mut self,
        body: &mut [u8],
        protocol: Protocol,
        keep_alive: u16,
    ) -> Option<()> {
        let (head, rest) = body.split_at_mut_checked(2)?;
        let code = head[1];
        let listed = match protocol {
            Protocol::V5 => UNSPECIFIED_V5,
            Protocol::V311 => SERVICE_UNAVAILABLE_V311,
        };
        if code != 0 {
            head[1] = listed;
            self.connack = Some(Reason { code, text: None });
        }
        if protocol == Protocol::V5 {
            let mut text = None;
            properties(rest, |identifier, value| match *identifier {
                REASON_STRING => text = Some(string(value)),
                // Sent unasked, the library ends the connection over them.
                ASSIGNED_CLIENT_IDENTIFIER | RESPONSE_INFORMATION => *identifier = REASON_STRING,
                SERVER_KEEP_ALIVE if shorter(keep_alive, value) => {
                    value.copy_from_slice(&keep_alive.to_be_bytes());
                }
                _ => {}
            })?;
            if let Some(connack) = &mut self.connack {
                connack.text = text;
            }
        }
        Some(())
    }

    fn received_puback(&mut self, body: &mut [u8]) -> Option<()> {
        let packet = u16_at(body, 0)?;
        let code = body.get_mut(2).map_or(0, std::mem::take);
        self.pubacks.push_back((packet, code));
        Some(())
    }

    fn received_suback(&mut self, body: &mut [u8], protocol: Protocol) -> Option<()> {
        let packet = u16_at(body, 0)?;
        let codes = codes(body, protocol)?;
        self.subacks.push_back((packet, codes.to_vec()));
        codes.fill(0);
        Some(())
    }

    fn received_disconnect(&mut self, body: &mut [u8]) -> Option<()> {
        let Some((code, rest)) = body.split_first_mut() else {
            self.disconnect = Some(Reason { code: 0, text: None });
            return Some(());
        };
        let mut reason = Reason { code: *code, text: None };
        if *code >= UNSPECIFIED_V5 {
            *code = UNSPECIFIED_V5;
        }
        _ = properties(rest, |identifier, value| {
            if *identifier == REASON_STRING {
                reason.text = Some(string(value));
            }
        });
        self.disconnect = Some(reason);
        Some(())
    }
}

/// The reason codes of a SUBACK or UNSUBACK.
fn codes(body: &mut [u8], protocol: Protocol) -> Option<&mut [u8]> {
    let rest = body.get_mut(2..)?;
    match protocol {
        Protocol::V5 => properties(rest, |_, _| ()),
        Protocol::V311 => Some(rest),
    }
}

fn accept_all(body: &mut [u8], protocol: Protocol) -> Option<()> {
    codes(body, protocol)?.fill(0);
    Some(())
}

/// Whether our keep-alive is shorter than the broker's, where 0 is none at all.
fn shorter(keep_alive: u16, value: &[u8]) -> bool {
    u16_at(value, 0).is_some_and(|server| server == 0 || server > keep_alive)
}

/// The text of a property whose value is a string.
fn string(value: &[u8]) -> String {
    String::from_utf8_lossy(value.get(2..).unwrap_or_default()).into_owned()
}
