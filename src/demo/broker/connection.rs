//! One client's connection.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc_v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, Connect, ConnectReturnCode, Disconnect, DisconnectReasonCode,
    Packet, PubAck, PubComp, PubRec, Publish, SubAck, UnsubAck,
};
use rumqttc_v5::mqttbytes::{Error, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::state::BrokerState;
use crate::config::MqttVersion;
use crate::mqtt::wire;

/// The largest packet that the broker accepts, announced to MQTT 5 clients.
const PACKET_SIZE_MAX_BYTES: u32 = 16 * 1024 * 1024;
/// A client that does not send CONNECT is disconnected after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that reads nothing for this long is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages sent and not acknowledged, unless the client accepts fewer.
const IN_FLIGHT_MAX: u16 = 1_000;

/// Serves a client until it leaves; `Err` says what it did wrong.
pub(crate) async fn serve(state: Arc<Mutex<BrokerState>>, stream: TcpStream) -> Result<(), String> {
    _ = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    let mut reader = ClientReader {
        read,
        bytes: BytesMut::new(),
        deadline: Some(Instant::now() + CONNECT_TIMEOUT),
        keep_alive: None,
    };
    let protocol = reader.protocol().await?;
    let Some(Packet::Connect(mut connect, will, _)) = reader.next(protocol).await? else {
        return Err("the first packet is no CONNECT".to_owned());
    };
    // A client may be late by half its keep-alive time.
    let keep_alive =
        (connect.keep_alive > 0).then(|| Duration::from_secs(connect.keep_alive.into()));
    reader.keep_alive = keep_alive.map(|keep_alive| keep_alive * 3 / 2);
    reader.extend_deadline();
    let asked = connect.properties.take().unwrap_or_default();
    let mut out = ClientWriter { write, protocol, packet_size_max: asked.max_packet_size };
    let client_id = match connect.client_id.is_empty() {
        true => format!("demo-{:016x}", fastrand::u64(..)),
        false => connect.client_id.clone(),
    };
    let (connection, messages, removed) = lock(&state).connect(&client_id, will);
    let mut session = DemoSession {
        state: &state,
        client_id: &client_id,
        received: BTreeSet::new(),
        in_flight: BTreeSet::new(),
        in_flight_max: asked.receive_maximum.unwrap_or(IN_FLIGHT_MAX).min(IN_FLIGHT_MAX).into(),
        last_pkid: 0,
    };
    let result = match out.send([accepted(&connect, &client_id)]).await {
        Ok(()) => session.run(protocol, &mut reader, &mut out, messages, removed).await,
        Err(error) => Err(error),
    };
    let has_disconnected = matches!(result, Ok(SessionEnd::Disconnected));
    lock(&state).disconnect(&client_id, connection, has_disconnected);
    result.map(drop)
}

fn lock(state: &Mutex<BrokerState>) -> MutexGuard<'_, BrokerState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a session ended without an error.
enum SessionEnd {
    /// The client sent DISCONNECT; its last will is not published.
    Disconnected,
    /// The connection was closed, or the broker has removed the client.
    Closed,
}

/// The packet identifiers of a client.
struct DemoSession<'a> {
    state: &'a Mutex<BrokerState>,
    client_id: &'a str,
    /// Those of messages received with QoS 2 that the client has not released.
    received: BTreeSet<u16>,
    /// Those of messages sent with QoS 1 that the client has not acknowledged.
    in_flight: BTreeSet<u16>,
    in_flight_max: usize,
    last_pkid: u16,
}

impl DemoSession<'_> {
    async fn run(
        &mut self,
        protocol: MqttVersion,
        reader: &mut ClientReader,
        out: &mut ClientWriter,
        mut messages: mpsc::Receiver<Publish>,
        mut removed: oneshot::Receiver<()>,
    ) -> Result<SessionEnd, String> {
        loop {
            tokio::select! {
                packet = reader.next(protocol) => match packet? {
                    Some(Packet::Disconnect(it)) => return Ok(match it.reason_code {
                        DisconnectReasonCode::DisconnectWithWillMessage => SessionEnd::Closed,
                        _ => SessionEnd::Disconnected,
                    }),
                    Some(packet) => out.send(self.answer(packet)?).await?,
                    None => return Ok(SessionEnd::Closed),
                },
                Some(message) = messages.recv(), if self.in_flight.len() < self.in_flight_max => {
                    out.send([self.outgoing(message)]).await?;
                }
                _ = &mut removed => {
                    let reason = match lock(self.state).has(self.client_id) {
                        true => DisconnectReasonCode::SessionTakenOver,
                        // It was too slow.
                        false => DisconnectReasonCode::QuotaExceeded,
                    };
                    out.send([Packet::Disconnect(Disconnect::new(reason))]).await?;
                    return Ok(SessionEnd::Closed);
                }
            }
        }
    }

    /// Handles a packet; returns its answer.
    fn answer(&mut self, packet: Packet) -> Result<Option<Packet>, String> {
        let (mut state, id) = (lock(self.state), self.client_id);
        Ok(match packet {
            Packet::Publish(publish) => {
                let (qos, pkid) = (publish.qos, publish.pkid);
                if qos != QoS::ExactlyOnce || self.received.insert(pkid) {
                    state.publish(id, publish)?;
                }
                match qos {
                    QoS::AtMostOnce => None,
                    QoS::AtLeastOnce => Some(Packet::PubAck(PubAck::new(pkid, None))),
                    QoS::ExactlyOnce => Some(Packet::PubRec(PubRec::new(pkid, None))),
                }
            }
            Packet::PubRel(release) => {
                self.received.remove(&release.pkid);
                Some(Packet::PubComp(PubComp::new(release.pkid, None)))
            }
            Packet::PubAck(ack) => {
                self.in_flight.remove(&ack.pkid);
                None
            }
            Packet::Subscribe(subscribe) => {
                let filters = subscribe.filters.into_iter();
                let return_codes = filters.map(|filter| state.subscribe(id, filter)).collect();
                let pkid = subscribe.pkid;
                Some(Packet::SubAck(SubAck { pkid, return_codes, properties: None }))
            }
            Packet::Unsubscribe(unsubscribe) => {
                let filters = unsubscribe.filters.iter();
                let reasons = filters.map(|filter| state.unsubscribe(id, filter)).collect();
                let pkid = unsubscribe.pkid;
                Some(Packet::UnsubAck(UnsubAck { pkid, reasons, properties: None }))
            }
            Packet::PingReq => Some(Packet::PingResp),
            other => return Err(format!("an unexpected {:?}", other.packet_type())),
        })
    }

    /// The packet that a message is sent with.
    fn outgoing(&mut self, mut publish: Publish) -> Packet {
        if publish.qos != QoS::AtMostOnce {
            loop {
                self.last_pkid = self.last_pkid.checked_add(1).unwrap_or(1);
                if self.in_flight.insert(self.last_pkid) {
                    break;
                }
            }
            publish.pkid = self.last_pkid;
        }
        Packet::Publish(publish)
    }
}

/// CONNACK. It tells an MQTT 5 client what this broker does not have.
fn accepted(connect: &Connect, client_id: &str) -> Packet {
    let assigned = connect.client_id.is_empty().then(|| client_id.to_owned());
    let properties = ConnAckProperties {
        session_expiry_interval: Some(0),
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: Some(PACKET_SIZE_MAX_BYTES),
        assigned_client_identifier: assigned,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: Some(0),
        shared_subscription_available: Some(0),
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    };
    Packet::ConnAck(ConnAck {
        session_present: false,
        code: ConnectReturnCode::Success,
        properties: Some(properties),
    })
}

/// The packets that a client sends.
struct ClientReader {
    read: OwnedReadHalf,
    bytes: BytesMut,
    /// When the next packet has to be there.
    deadline: Option<Instant>,
    keep_alive: Option<Duration>,
}

impl ClientReader {
    /// The version of the protocol, which a client chooses with CONNECT.
    async fn protocol(&mut self) -> Result<MqttVersion, String> {
        loop {
            match Packet::read(&mut self.bytes.clone(), Some(PACKET_SIZE_MAX_BYTES)) {
                Ok(_) => return Ok(MqttVersion::V5),
                Err(Error::InvalidProtocolLevel(4)) => return Ok(MqttVersion::V311),
                Err(Error::InsufficientBytes(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
            if self.receive().await? == 0 {
                return Err("it was closed before CONNECT".to_owned());
            }
        }
    }

    /// The next packet; `None` when the connection was closed. No bytes are lost when this is
    /// dropped.
    async fn next(&mut self, protocol: MqttVersion) -> Result<Option<Packet>, String> {
        loop {
            if let Some(packet) = wire::read(protocol, &mut self.bytes, PACKET_SIZE_MAX_BYTES)? {
                self.extend_deadline();
                return Ok(Some(packet));
            }
            if self.receive().await? == 0 {
                return Ok(None);
            }
        }
    }

    fn extend_deadline(&mut self) {
        self.deadline = self.keep_alive.map(|keep_alive| Instant::now() + keep_alive);
    }

    async fn receive(&mut self) -> Result<usize, String> {
        let reading = self.read.read_buf(&mut self.bytes);
        let read = match self.deadline {
            Some(deadline) => timeout_at(deadline, reading).await.map_err(|_| TOO_LATE)?,
            None => reading.await,
        };
        read.map_err(|error| error.to_string())
    }
}

const TOO_LATE: &str = "the next packet is late";

/// The packets that a client receives.
struct ClientWriter {
    write: OwnedWriteHalf,
    protocol: MqttVersion,
    packet_size_max: Option<u32>,
}

impl ClientWriter {
    async fn send(&mut self, packets: impl IntoIterator<Item = Packet>) -> Result<(), String> {
        let mut bytes = BytesMut::new();
        for packet in packets {
            // MQTT 5 has a packet omitted that is larger than the client accepts.
            let written = wire::write(self.protocol, packet, self.packet_size_max, &mut bytes);
            if let Err(error) = written {
                tracing::debug!(error, "the demo's broker omits a packet");
            }
        }
        let writing = timeout(WRITE_TIMEOUT, self.write.write_all(&bytes)).await;
        writing.map_err(|_| "it reads nothing")?.map_err(|error| error.to_string())
    }
}
