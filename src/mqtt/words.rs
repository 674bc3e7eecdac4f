//! The faults of one connection, in its own names: which broker, which version, how far it got.
//!
//! May not know the MQTT library's types: both versions come here with kinds and texts.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio_rustls::rustls::Error as TlsError;

use super::dial::{FirstByte, Socket};
use super::fault::Fault;
use super::session::{Protocol, Settings};
use super::tls;

/// What is needed to put a fault into words.
#[derive(Debug)]
pub(super) struct Words {
    broker: String,
    client_id: String,
    protocol: Protocol,
    tls: bool,
    first: FirstByte,
    connack_deadline: Duration,
    /// Whether the broker has accepted us.
    pub(super) connected: bool,
}

impl Words {
    pub(super) fn new(settings: &Settings, socket: &Socket) -> Self {
        Self {
            broker: settings.url(),
            client_id: settings.client_id.clone(),
            protocol: settings.protocol,
            tls: settings.tls.is_some(),
            first: socket.first_byte(),
            connack_deadline: settings.limits.connack_deadline,
            connected: false,
        }
    }

    pub(super) fn no_connack(&self) -> Fault {
        Fault::Deadline {
            broker: self.broker(),
            doing: "answering CONNECT",
            after: self.connack_deadline,
        }
    }

    pub(super) fn io(&self, error: &io::Error) -> Fault {
        match tls::tls_cause(error) {
            Some(TlsError::AlertReceived(alert)) => {
                Fault::Tls(tls::alert_words(&self.broker, *alert))
            }
            _ if self.connected && is_reset(error) => {
                Fault::Reset { broker: self.broker(), why: error.to_string() }
            }
            _ => self.lost(&error.to_string()),
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
        if !self.tls && self.first.is_tls_alert() {
            return Fault::TlsExpected { broker: self.broker() };
        }
        let hint = match (self.tls, self.protocol) {
            (true, _) => "it may want a client certificate (mqtt.cert_file)",
            (false, Protocol::V5) => {
                "if this port speaks TLS, write mqtts:// in mqtt.url; if the broker knows only \
                 MQTT 3.1.1, set mqtt.protocol = \"3.1.1\""
            }
            (false, Protocol::V311) => "if this port speaks TLS, write mqtts:// in mqtt.url",
        };
        Fault::ClosedEarly { broker: self.broker(), hint }
    }

    pub(super) fn protocol(&self, why: &dyn fmt::Display) -> Fault {
        if !self.connected && !self.tls && self.first.is_tls_alert() {
            return Fault::TlsExpected { broker: self.broker() };
        }
        Fault::Protocol { broker: self.broker(), version: self.ours(), why: why.to_string() }
    }

    pub(super) fn credentials(&self) -> Fault {
        Fault::Credentials { broker: self.broker() }
    }

    pub(super) fn client_id(&self) -> Fault {
        Fault::ClientId { broker: self.broker(), client_id: self.client_id.clone() }
    }

    pub(super) fn version(&self) -> Fault {
        let other = match self.protocol {
            Protocol::V5 => "3.1.1",
            Protocol::V311 => "5",
        };
        Fault::Version { broker: self.broker(), ours: self.ours(), other }
    }

    pub(super) fn declined(&self, code: &str) -> Fault {
        Fault::Declined { broker: self.broker(), code: code.to_owned() }
    }

    pub(super) fn ended(&self, code: String) -> Fault {
        Fault::Ended { broker: self.broker(), code }
    }

    pub(super) fn taken_over(&self) -> Fault {
        Fault::TakenOver { broker: self.broker(), client_id: self.client_id.clone() }
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
