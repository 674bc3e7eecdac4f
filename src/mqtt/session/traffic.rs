//! What the packets of one connection said: the broker's reasons and grants, and acknowledgements.
//!
//! The library ends the connection over reason codes and properties that it does not expect. So
//! they are noted here, and replaced with ones that it accepts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::ack_tracker::AckTracker;
use super::packet::{
    ASSIGNED_CLIENT_IDENTIFIER, CONNACK, DISCONNECT, FixedHeader, MAXIMUM_PACKET_SIZE, MAXIMUM_QOS,
    PUBACK, PUBLISH, REASON_STRING, RECEIVE_MAXIMUM, RESPONSE_INFORMATION, RETAIN_AVAILABLE,
    SERVER_KEEP_ALIVE, SUBACK, SUBSCRIBE, UNSUBACK, properties, u16_at, u32_from,
};
use super::settings::Protocol;

/// The first byte of a TLS alert, with which no MQTT packet begins.
const TLS_ALERT: u8 = 0x15;
/// Reason codes that the library knows, in place of any other.
const SERVICE_UNAVAILABLE_V311: u8 = 3;
const UNSPECIFIED_V5: u8 = 0x80;
/// The largest packet of MQTT.
pub(crate) const PACKET_SIZE_MAX: u32 = 268_435_460;
/// MQTT 3.1.1 has no receive maximum. Few brokers have a limit below this.
pub(crate) const WINDOW_MAX_V311: u16 = 100;

/// A reason code, with the broker's own text if it gave any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) code: u8,
    pub(crate) text: Option<String>,
}

/// What the broker grants on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Granted {
    pub(crate) window: u16,
    pub(crate) packet_size_max: u32,
    pub(crate) retain_available: bool,
    pub(crate) qos_1: bool,
}

/// Shared by the socket, which reads the packets, and the session.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    protocol: Protocol,
    /// Our own keep-alive, in seconds: a longer one of the broker is lowered to it.
    keep_alive: u16,
    /// Publishes in flight, whatever the broker allows.
    window_max: u16,
    acks: AckTracker,
    record: Arc<Mutex<Record>>,
}

#[derive(Debug)]
struct Record {
    first_byte: Option<u8>,
    received_at: Instant,
    connack: Option<Result<Granted, Reason>>,
    disconnect: Option<Reason>,
}

impl Traffic {
    pub(crate) fn new(protocol: Protocol, keep_alive: u16, window_max: u16) -> Self {
        let record = Record {
            first_byte: None,
            received_at: Instant::now(),
            connack: None,
            disconnect: None,
        };
        let (acks, record) = (AckTracker::default(), Arc::new(Mutex::new(record)));
        Self { protocol, keep_alive, window_max, acks, record }
    }

    pub(crate) const fn acks(&self) -> &AckTracker {
        &self.acks
    }

    /// Whether the broker's answer to a plain connection was a TLS alert.
    pub(crate) fn is_tls_alert(&self) -> bool {
        self.record().first_byte == Some(TLS_ALERT)
    }

    /// When bytes last came from the broker.
    pub(crate) fn received_at(&self) -> Instant {
        self.record().received_at
    }

    /// The CONNACK: what the broker grants, or why it refuses.
    pub(crate) fn connack(&self) -> Option<Result<Granted, Reason>> {
        self.record().connack.clone()
    }

    /// The broker's DISCONNECT.
    pub(crate) fn disconnect(&self) -> Option<Reason> {
        self.record().disconnect.clone()
    }

    /// Bytes have come, of which this is the first.
    pub(crate) fn bytes_received(&self, first: u8) {
        let mut record = self.record();
        record.received_at = Instant::now();
        record.first_byte.get_or_insert(first);
    }

    /// Whether packets of this kind have to be seen by [`Traffic::received`].
    pub(crate) const fn is_noted(kind: u8) -> bool {
        matches!(kind, CONNACK | PUBACK | SUBACK | UNSUBACK | DISCONNECT)
    }

    /// Notes a packet from the broker, and replaces what the library would not accept.
    pub(crate) fn received(&self, kind: u8, body: &mut [u8]) {
        // A malformed packet is left as it is: the library ends the connection over it.
        _ = match kind {
            CONNACK => self.received_connack(body),
            PUBACK => self.received_puback(body),
            SUBACK => self.received_suback(body),
            UNSUBACK => self.codes(body).map(|codes| codes.fill(0)),
            DISCONNECT => self.received_disconnect(body),
            _ => None,
        };
    }

    /// Notes the packet at the front of these bytes, which are written, and returns its size;
    /// `None` if its beginning is not complete.
    pub(crate) fn written(&self, bytes: &[u8]) -> Option<usize> {
        let header = FixedHeader::read(bytes)?;
        if header.kind() == PUBLISH && header.has_packet_identifier() {
            let (topic, packet) = header.publish(bytes)?;
            self.acks.publish_written(packet, topic);
        } else if header.kind() == SUBSCRIBE {
            self.acks.subscribe_written(u16_at(bytes, header.len)?);
        }
        Some(header.size())
    }

    fn received_connack(&self, body: &mut [u8]) -> Option<()> {
        let (head, rest) = body.split_at_mut_checked(2)?;
        let code = std::mem::take(&mut head[1]);
        let mut granted = Granted {
            window: self.window_max,
            packet_size_max: PACKET_SIZE_MAX,
            retain_available: true,
            qos_1: true,
        };
        let mut text = None;
        if self.protocol == Protocol::V311 {
            granted.window = granted.window.min(WINDOW_MAX_V311);
        } else {
            properties(rest, |identifier, value| match *identifier {
                REASON_STRING => text = Some(string(value)),
                RECEIVE_MAXIMUM => {
                    granted.window = granted.window.min(u16_at(value, 0).unwrap_or(u16::MAX));
                }
                MAXIMUM_QOS => granted.qos_1 = value != [0],
                RETAIN_AVAILABLE => granted.retain_available = value != [0],
                MAXIMUM_PACKET_SIZE => {
                    granted.packet_size_max = u32_from(value).unwrap_or(PACKET_SIZE_MAX);
                }
                // The library ends the connection over these if they were not asked for.
                ASSIGNED_CLIENT_IDENTIFIER | RESPONSE_INFORMATION => *identifier = REASON_STRING,
                SERVER_KEEP_ALIVE if is_longer(value, self.keep_alive) => {
                    value.copy_from_slice(&self.keep_alive.to_be_bytes());
                }
                _ => {}
            });
        }
        granted.window = granted.window.max(1);
        if code != 0 {
            head[1] = match self.protocol {
                Protocol::V5 => UNSPECIFIED_V5,
                Protocol::V311 => SERVICE_UNAVAILABLE_V311,
            };
        }
        let refused = Reason { code, text };
        self.record().connack = Some(if code == 0 { Ok(granted) } else { Err(refused) });
        Some(())
    }

    fn received_puback(&self, body: &mut [u8]) -> Option<()> {
        let packet = u16_at(body, 0)?;
        let code = body.get_mut(2).map_or(0, std::mem::take);
        self.acks.puback(packet, code);
        Some(())
    }

    fn received_suback(&self, body: &mut [u8]) -> Option<()> {
        let packet = u16_at(body, 0)?;
        let codes = self.codes(body)?;
        self.acks.suback(packet, codes);
        codes.fill(0);
        Some(())
    }

    fn received_disconnect(&self, body: &mut [u8]) -> Option<()> {
        let mut reason = Reason::default();
        if let Some((code, rest)) = body.split_first_mut() {
            reason.code = *code;
            *code = (*code).min(UNSPECIFIED_V5);
            // Without properties it is complete.
            _ = properties(rest, |identifier, value| {
                if *identifier == REASON_STRING {
                    reason.text = Some(string(value));
                }
            });
        }
        self.record().disconnect = Some(reason);
        Some(())
    }

    /// The reason codes of a SUBACK or UNSUBACK.
    fn codes<'a>(&self, body: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let rest = body.get_mut(2..)?;
        match self.protocol {
            Protocol::V5 => properties(rest, |_, _| ()),
            Protocol::V311 => Some(rest),
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the broker's keep-alive is longer than ours; 0 is none at all.
fn is_longer(value: &[u8], keep_alive: u16) -> bool {
    u16_at(value, 0).is_some_and(|server| server == 0 || server > keep_alive)
}

/// The text of a property whose value is a string.
fn string(value: &[u8]) -> String {
    String::from_utf8_lossy(value.get(2..).unwrap_or_default()).into_owned()
}
