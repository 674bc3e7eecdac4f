//! The faults of one connection, in its own names: which broker, which version, how far it got.
//!
//! May not know the MQTT library's types: both versions come here with kinds and texts.

use std::fmt;
use std::io;
use std::time::Duration;

use super::dial::Opened;
use super::fault::Fault;
use super::packet_log::{PacketLog, Reason};
use super::{Protocol, Settings};
use crate::mqtt::refusal::Refusal;
use crate::net::{DialTarget, late_alert};

/// Characters of a broker's own reason that are shown.
const REASON_MAX: usize = 200;
/// A broker on which states would be lost.
const RETAIN_NEEDED: &str = "it keeps no retained messages, which the bridge needs; allow them \
                             there (mosquitto: retain_available true)";
/// A broker that would lose messages.
pub(super) const QOS_0_ONLY: &str =
    "it allows only QoS 0, and QoS 1 is needed: raise it there (mosquitto: max_qos 1)";

/// What is needed to put a fault into words.
#[derive(Debug)]
pub(super) struct Words {
    broker: String,
    client_id: String,
    protocol: Protocol,
    target: DialTarget,
    certificate_requested: bool,
    log: PacketLog,
    connack_deadline: Duration,
    keep_alive: u16,
    /// Whether the broker has accepted us.
    pub(super) connected: bool,
}

impl Words {
    pub(super) fn new(settings: &Settings, opened: &Opened, log: PacketLog) -> Self {
        Self {
            broker: settings.url(),
            client_id: settings.client_id.clone(),
            protocol: settings.protocol,
            target: opened.target.clone(),
            certificate_requested: opened.certificate_requested,
            log,
            connack_deadline: settings.limits.connack_deadline,
            keep_alive: settings.keep_alive_secs(),
            connected: false,
        }
    }

    pub(super) fn no_connack(&self) -> Fault {
        let (broker, after) = (self.broker(), self.connack_deadline);
        match self.protocol {
            Protocol::V5 => Fault::NoConnack { broker, after },
            Protocol::V311 => Fault::Deadline { broker, doing: "answering CONNECT", after },
        }
    }

    pub(super) fn io(&self, error: &io::Error) -> Fault {
        match late_alert(&self.target, self.certificate_requested, error) {
            Some(error) => error.into(),
            None if self.connected && is_reset(error) => {
                Fault::Reset { broker: self.broker(), why: error.to_string() }
            }
            None => self.lost(&error.to_string()),
        }
    }

    pub(super) fn lost(&self, why: &str) -> Fault {
        if self.connected {
            return Fault::Lost { broker: self.broker(), why: why.to_owned() };
        }
        self.closed()
    }

    pub(super) fn closed(&self) -> Fault {
        if self.connected {
            return Fault::Closed { broker: self.broker() };
        }
        if self.is_plain_to_tls_port() {
            return Fault::TlsExpected { broker: self.broker() };
        }
        let hint = match (self.target.tls.is_some(), self.protocol) {
            (true, _) => "it may want a client certificate (mqtt.cert_file)",
            (false, Protocol::V5) => {
                "if this port speaks TLS, write mqtts:// in mqtt.url; if the broker knows only \
                 MQTT 3.1.1, set mqtt.protocol = \"3.1.1\""
            }
            // A broker that keeps no retained messages refuses the last will in this way.
            (false, Protocol::V311) => {
                "it may allow no retained messages, which the bridge's last will needs (mosquitto: \
                 retain_available true); or, if this port speaks TLS, write mqtts:// in mqtt.url"
            }
        };
        Fault::ClosedEarly { broker: self.broker(), hint }
    }

    pub(super) fn protocol(&self, why: &dyn fmt::Display) -> Fault {
        if !self.connected && self.is_plain_to_tls_port() {
            return Fault::TlsExpected { broker: self.broker() };
        }
        Fault::Protocol { broker: self.broker(), version: self.ours(), why: why.to_string() }
    }

    /// What the packets of the connection said.
    pub(super) fn log(&self) -> &PacketLog {
        &self.log
    }

    /// The reason that the broker gave itself, in its CONNACK or DISCONNECT.
    pub(super) fn broker_reason(&self) -> Option<Fault> {
        if let Some(reason) = self.log.disconnect() {
            return Some(self.ended(&reason));
        }
        Some(self.refused(&self.log.connack()?))
    }

    /// The CONNACK refused: MQTT 5, section 3.2.2.2; MQTT 3.1.1, section 3.2.2.3.
    fn refused(&self, reason: &Reason) -> Fault {
        let broker = self.broker();
        let said = said(reason);
        match (self.protocol, reason.code) {
            // A broker that knows only MQTT 3.1.1 answers in it.
            (_, 0x01 | 0x84) => {
                let other = match self.protocol {
                    Protocol::V5 => "3.1.1",
                    Protocol::V311 => "5",
                };
                Fault::Version { broker, ours: self.ours(), other }
            }
            (_, 0x02) => {
                let client_id = self.client_id.clone();
                Fault::ClientIdOrKeepAlive { broker, client_id, keep_alive: self.keep_alive }
            }
            (Protocol::V5, 0x85) => {
                Fault::ClientId { broker, client_id: self.client_id.clone(), said }
            }
            (_, 0x04 | 0x05 | 0x86 | 0x87) => Fault::Credentials { broker, said },
            (_, 0x9A) => self.declined(RETAIN_NEEDED),
            (_, 0x9B) => self.declined(QOS_0_ONLY),
            (Protocol::V311, 0x03) => self.declined("server_unavailable (0x03)"),
            _ => self.declined(&code_words(reason)),
        }
    }

    /// The broker's DISCONNECT.
    fn ended(&self, reason: &Reason) -> Fault {
        let broker = self.broker();
        if reason.code == 0x8E {
            return Fault::TakenOver { broker, client_id: self.client_id.clone() };
        }
        Fault::Ended { broker, code: code_words(reason) }
    }

    pub(super) fn declined(&self, code: &str) -> Fault {
        Fault::Declined { broker: self.broker(), code: code.to_owned() }
    }

    pub(super) fn packet_limit(&self, size: u32) -> Fault {
        Fault::PacketLimit { broker: self.broker(), size }
    }

    /// Whether the answer to our plain CONNECT was a TLS alert.
    fn is_plain_to_tls_port(&self) -> bool {
        self.target.tls.is_none() && self.log.is_tls_alert()
    }

    fn ours(&self) -> &'static str {
        match self.protocol {
            Protocol::V5 => "5",
            Protocol::V311 => "3.1.1",
        }
    }

    fn broker(&self) -> String {
        self.broker.clone()
    }
}

/// The other side has closed the connection with data of ours unread.
fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// A reason code as text, with the broker's own words.
fn code_words(reason: &Reason) -> String {
    let name = match Refusal::from_code(reason.code) {
        Err(refusal) => refusal.to_string(),
        Ok(()) => format!("0x{:02X}", reason.code),
    };
    name + &said(reason)
}

/// The broker's own words, behind a colon.
fn said(reason: &Reason) -> String {
    let Some(text) = &reason.text else { return String::new() };
    let text: String = text.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect();
    format!(": {text:?}")
}
