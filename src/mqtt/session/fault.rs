//! Why there is no connection to the broker, with the remedy.

use std::io;
use std::time::Duration;

use super::packet::{BrokerReason, Granted};
use super::settings::SessionSettings;
use crate::config::MqttVersion;
use crate::mqtt::refusal::Refusal;
use crate::net::{DialError, DialTarget, late_alert};

/// The smallest packet limit of use: a device's state or event has some 500 bytes.
const PACKET_SIZE_NEEDED: u32 = 512;
/// The characters of a broker's own text that are shown.
const REASON_MAX: usize = 200;
const RETAIN_NEEDED: &str = "it keeps no retained messages, which the bridge needs; allow them \
                             there (mosquitto: retain_available true)";
const QOS_1_NEEDED: &str =
    "it allows only QoS 0, and QoS 1 is needed: raise it there (mosquitto: max_qos 1)";

/// Why a connection could not be opened, or has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionFault {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("broker {url} {problem}")]
    Broker { url: String, problem: BrokerProblem },
    #[error("internal error: the broker session panicked: {0}")]
    Panic(String),
}

/// What a broker did, as the predicate of a sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerProblem {
    #[error(
        "did not answer within {} s while answering CONNECT; check that mqtt.url names an MQTT \
         broker and that no firewall drops packets{hint}",
        .after.as_secs()
    )]
    NoConnack { after: Duration, hint: &'static str },
    #[error("requires TLS; write mqtts:// in mqtt.url")]
    TlsExpected,
    #[error(
        "answers HTTP, not MQTT; correct the port in mqtt.url, or write there ws:// (with TLS \
         wss://) if the broker serves MQTT over WebSocket on this port"
    )]
    HttpServer,
    #[error("refused the user name or password{text}; check mqtt.username and mqtt.password_file")]
    Credentials { text: String },
    #[error("requires a user name{text}; set mqtt.username, and password_file beside it")]
    NoUserName { text: String },
    #[error("refused the client ID {client_id:?}{text}; set another mqtt.client_id")]
    ClientId { client_id: String, text: String },
    /// In MQTT 3.1.1 some brokers answer so to a keep-alive above their limit.
    #[error(
        "refused the client ID {client_id:?}; set another mqtt.client_id, or raise the broker's \
         longest keep-alive to {keep_alive} s (mosquitto: max_keepalive)"
    )]
    ClientIdOrKeepAlive { client_id: String, keep_alive: u16 },
    #[error(
        "takes packets of at most {size} bytes, and states and events are larger; raise its limit \
         (mosquitto: max_packet_size)"
    )]
    PacketLimit { size: u32 },
    #[error(
        "acknowledged packet {packet_id}, which is not in flight; the connection is closed so that \
         no message is lost. Please report this to the broker's makers"
    )]
    AckMismatch { packet_id: u16 },
    #[error("does not support MQTT {ours}; set mqtt.protocol = \"{other}\"")]
    Version { ours: &'static str, other: &'static str },
    #[error("refused the connection ({reason}); see the broker's log")]
    Declined { reason: String },
    #[error("closed the connection without an answer; {hint}, and see the broker's log")]
    ClosedEarly { hint: &'static str },
    #[error(
        "reports that another client took over the session: two programs use the client ID \
         {client_id:?}; give each bridge its own bridge_name or mqtt.client_id"
    )]
    TakenOver { client_id: String },
    #[error("ended the connection ({reason})")]
    Ended { reason: String },
    #[error("closed the connection; see its log")]
    Closed,
    #[error(
        "accepted the connection {times} times and closed it soon after, as brokers do when \
         another program uses the same client ID {client_id:?}; give each bridge its own \
         bridge_name or mqtt.client_id, and see the broker's log"
    )]
    ClosedAgain { client_id: String, times: u32 },
    /// Brokers reset a connection that they close over a packet they have not read to its end.
    #[error("reset the connection ({why}); see the broker's log")]
    Reset { why: String },
    #[error(
        "closed the connection {times} times before it had acknowledged what was sent; it may \
         refuse one of the messages (access list, size limit, quota), or another program uses the \
         client ID {client_id:?}: see the broker's log"
    )]
    ClosedOnMessage { client_id: String, times: u32 },
    #[error("became unreachable ({why})")]
    Lost { why: String },
    #[error("sent nothing for {} s, not even a response to a ping", .after.as_secs())]
    Silent { after: Duration },
    #[error(
        "has acknowledged nothing for {} s although it takes what is published; see its log, and \
         whether its disk or its cluster hangs",
        .after.as_secs()
    )]
    Unacknowledged { after: Duration },
    #[error(
        "has not acknowledged a message for {} s although it acknowledged later ones; it is sent \
         again on a new connection. See the broker's log",
        .after.as_secs()
    )]
    Skipped { after: Duration },
    #[error("has not answered a subscription for {} s; see its log", .after.as_secs())]
    SubscriptionUnanswered { after: Duration },
    #[error("does not conform to MQTT {version} ({why}); check that mqtt.url names a broker")]
    Protocol { version: &'static str, why: String },
}

impl SessionFault {
    fn problem(&self) -> Option<&BrokerProblem> {
        match self {
            Self::Dial(_) | Self::Panic(_) => None,
            Self::Broker { problem, .. } => Some(problem),
        }
    }

    /// Whether another client uses the same client ID.
    pub(crate) fn is_takeover(&self) -> bool {
        matches!(self.problem(), Some(BrokerProblem::TakenOver { .. }))
    }

    /// Whether the broker closed the connection, with a DISCONNECT, without one or by a reset.
    pub(crate) fn is_closed_by_broker(&self) -> bool {
        self.problem().is_some_and(|problem| {
            matches!(
                problem,
                BrokerProblem::Closed
                    | BrokerProblem::Reset { .. }
                    | BrokerProblem::ClosedAgain { .. }
                    | BrokerProblem::ClosedOnMessage { .. }
                    | BrokerProblem::Ended { .. }
            )
        })
    }

    /// Whether a file that the configuration names is missing or cannot be read.
    pub(crate) fn is_file_missing(&self) -> bool {
        matches!(self, Self::Dial(error) if error.code.is_file_missing())
    }

    /// Whether another attempt costs the broker nothing.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Dial(error) if error.code.is_absence())
    }
}

/// How a connection failed.
#[derive(Debug)]
pub(crate) enum BrokenConnection {
    Io(io::Error),
    /// The broker closed the connection.
    Closed,
    Protocol(String),
}

/// Explains the faults of one connection.
#[derive(Debug)]
pub(crate) struct FaultContext<'a> {
    settings: &'a SessionSettings,
    target: DialTarget,
    certificate_requested: bool,
}

impl<'a> FaultContext<'a> {
    pub(crate) const fn new(
        settings: &'a SessionSettings,
        target: DialTarget,
        certificate_requested: bool,
    ) -> Self {
        Self { settings, target, certificate_requested }
    }

    pub(crate) const fn settings(&self) -> &'a SessionSettings {
        self.settings
    }

    pub(crate) fn fault(&self, problem: BrokerProblem) -> SessionFault {
        SessionFault::Broker { url: self.settings.mqtt.broker.to_string(), problem }
    }

    /// Why a connection ended without a reason from the broker, before or after its CONNACK.
    pub(crate) fn explain(&self, broken: BrokenConnection, is_connected: bool) -> SessionFault {
        let problem = match broken {
            BrokenConnection::Io(error) => {
                let alert = late_alert(&self.target, self.certificate_requested, &error);
                if let Some(alert) = alert {
                    return alert.into();
                }
                match error.kind() {
                    _ if !is_connected => self.closed_early(),
                    // Many brokers close TLS like this, without close_notify.
                    io::ErrorKind::UnexpectedEof => BrokerProblem::Closed,
                    _ if is_reset(&error) => BrokerProblem::Reset { why: error.to_string() },
                    _ => BrokerProblem::Lost { why: error.to_string() },
                }
            }
            BrokenConnection::Closed if is_connected => BrokerProblem::Closed,
            BrokenConnection::Closed => self.closed_early(),
            BrokenConnection::Protocol(why) => {
                BrokerProblem::Protocol { version: self.settings.mqtt.protocol.as_str(), why }
            }
        };
        self.fault(problem)
    }

    /// Why the bridge cannot use what the broker grants.
    pub(crate) fn check(&self, granted: &Granted) -> Result<(), SessionFault> {
        if !granted.qos_1 {
            return Err(self.fault(BrokerProblem::Declined { reason: QOS_1_NEEDED.to_owned() }));
        }
        let size = granted.packet_size_max;
        if size < PACKET_SIZE_NEEDED {
            return Err(self.fault(BrokerProblem::PacketLimit { size }));
        }
        Ok(())
    }

    /// The CONNACK did not come in time.
    pub(crate) fn no_connack(&self) -> SessionFault {
        let hint = match self.settings.mqtt.protocol {
            MqttVersion::V5 => {
                ", and if the broker supports only MQTT 3.1.1, set mqtt.protocol = \"3.1.1\""
            }
            MqttVersion::V311 => "",
        };
        self.fault(BrokerProblem::NoConnack { after: self.settings.limits.connack_deadline, hint })
    }

    fn closed_early(&self) -> BrokerProblem {
        let is_plain = self.target.tls.is_none() && self.target.websocket_path.is_none();
        let hint = match (is_plain, self.settings.mqtt.protocol) {
            (false, _) if self.target.tls.is_some() => {
                "it may require a client certificate (mqtt.cert_file) or a protocol (mqtt.alpn)"
            }
            (false, _) => "its path for WebSocket (mqtt.url) may not be one of MQTT",
            (true, MqttVersion::V5) => {
                "if this port uses TLS, write mqtts:// in mqtt.url; if the broker supports only \
                 MQTT 3.1.1, set mqtt.protocol = \"3.1.1\""
            }
            // In this way a broker refuses a last will that is retained or has QoS 1.
            (true, MqttVersion::V311) => {
                "it may allow no retained messages, which the bridge's last will needs (mosquitto: \
                 retain_available true), or only QoS 0 (mosquitto: max_qos 1); or, if this port \
                 uses TLS, write mqtts:// in mqtt.url"
            }
        };
        BrokerProblem::ClosedEarly { hint }
    }

    /// A CONNACK that refuses: MQTT 5, section 3.2.2.2; MQTT 3.1.1, section 3.2.2.3.
    pub(crate) fn refused(&self, reason: &BrokerReason) -> SessionFault {
        let (client_id, text) = (self.settings.mqtt.client_id.clone(), quote(reason));
        let declined = |reason: &str| BrokerProblem::Declined { reason: reason.to_owned() };
        let mqtt = &self.settings.mqtt;
        let protocol = mqtt.protocol;
        self.fault(match (protocol, reason.code) {
            // A broker of MQTT 3.1.1 answers with a code of that version.
            (_, 0x01 | 0x84) => {
                let other =
                    if protocol == MqttVersion::V5 { MqttVersion::V311 } else { MqttVersion::V5 };
                BrokerProblem::Version { ours: protocol.as_str(), other: other.as_str() }
            }
            (_, 0x02) => {
                let keep_alive = self.settings.keep_alive_secs();
                BrokerProblem::ClientIdOrKeepAlive { client_id, keep_alive }
            }
            (MqttVersion::V5, 0x85) => BrokerProblem::ClientId { client_id, text },
            // With a client certificate, the user may be the one that it names.
            (_, 0x04 | 0x05 | 0x86 | 0x87)
                if mqtt.username.is_none() && mqtt.cert_file.is_none() =>
            {
                BrokerProblem::NoUserName { text }
            }
            (_, 0x04 | 0x05 | 0x86 | 0x87) => BrokerProblem::Credentials { text },
            (_, 0x9A) => declined(RETAIN_NEEDED),
            (_, 0x9B) => declined(QOS_1_NEEDED),
            (MqttVersion::V311, 0x03) => declined("server_unavailable (0x03)"),
            _ => declined(&describe(reason)),
        })
    }

    /// The broker's DISCONNECT.
    pub(crate) fn ended(&self, reason: &BrokerReason) -> SessionFault {
        self.fault(match reason.code {
            0x8E => BrokerProblem::TakenOver { client_id: self.settings.mqtt.client_id.clone() },
            _ => BrokerProblem::Ended { reason: describe(reason) },
        })
    }
}

/// Whether the other side has closed the connection with data of ours unread.
fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// A reason code with its name and the broker's own text.
fn describe(reason: &BrokerReason) -> String {
    let text = quote(reason);
    match Refusal::from_code(reason.code) {
        Err(refusal) => format!("{refusal}{text}"),
        Ok(()) => format!("0x{:02X}{text}", reason.code),
    }
}

/// The broker's own text after a colon, if it gave any.
fn quote(reason: &BrokerReason) -> String {
    let Some(text) = &reason.text else { return String::new() };
    let text: String = text.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect();
    format!(": {text:?}")
}
