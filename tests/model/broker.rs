//! A small MQTT broker in the model's network, which keeps all messages.
//!
//! Its faults are in `Condition`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gsdk2mqtt::config::MqttVersion;
use gsdk2mqtt::mqtt::wire;
use gsdk2mqtt::net::model::{self, TcpStream};
use rumqttc_v5::mqttbytes::v5::{
    LastWill, Packet, PubAck, PubAckReason, Publish, RetainForwardRule, SubAck, Subscribe,
    SubscribeFilter, SubscribeReasonCode, UnsubAck, UnsubAckReason,
};
use rumqttc_v5::mqttbytes::{QoS, matches};
use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf, split};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::mqtt::{accepted, outgoing};
use crate::network::{Network, Side};

/// Packets that may wait for one client.
const WAITING_MAX: usize = 100_000;

/// A message that the broker accepted: a subscriber of everything receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Since the run began, in microseconds.
    pub(crate) at_us: u128,
    /// The connection on which it was received, or whose last will it is.
    pub(crate) connection: u64,
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
    pub(crate) correlation: Option<Bytes>,
}

impl Seen {
    pub(crate) fn at(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.at_us).unwrap_or(u64::MAX))
    }
}

/// How the broker behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Condition {
    /// It reads nothing.
    pub(crate) reads_nothing: bool,
    /// It accepts messages and acknowledges none.
    pub(crate) acknowledges_nothing: bool,
    /// It refuses messages; with MQTT 3.1.1 it can only close the connection.
    pub(crate) refuses: bool,
}

#[derive(Default)]
struct State {
    condition: Condition,
    retained: BTreeMap<String, Bytes>,
    clients: BTreeMap<String, Client>,
    connections: u64,
    /// When each connection began, and when it ended.
    began: BTreeMap<u64, Duration>,
    ended: BTreeMap<u64, Duration>,
    seen: Vec<Seen>,
}

struct Client {
    connection: u64,
    packets: mpsc::Sender<Packet>,
    filters: Vec<SubscribeFilter>,
    will: Option<LastWill>,
    taken_over: Arc<Notify>,
}

/// The broker, up or down.
pub(crate) struct Broker {
    address: SocketAddr,
    shared: Shared,
    tasks: JoinSet<()>,
}

impl Broker {
    pub(crate) fn new(address: SocketAddr, protocol: MqttVersion, window: u16) -> Self {
        let (state, mended) = Default::default();
        let shared = Shared { began: Instant::now(), protocol, window, state, mended };
        Self { address, shared, tasks: JoinSet::new() }
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.tasks.is_empty()
    }

    pub(crate) fn start(&mut self) {
        let listener = model::listen(self.address).unwrap();
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(shared.clone().serve(stream));
            }
        });
    }

    /// Its process ends at once; no last will is published.
    pub(crate) async fn kill(&mut self, network: &Network, forgets: bool) {
        network.kill(self.address, Side::Server);
        self.tasks.shutdown().await;
        let mut state = self.shared.state.lock().unwrap();
        let now = self.shared.began.elapsed();
        for client in std::mem::take(&mut state.clients).into_values() {
            state.ended.insert(client.connection, now);
        }
        if forgets {
            state.retained.clear();
        }
    }

    pub(crate) fn set_condition(&self, change: impl FnOnce(&mut Condition)) {
        change(&mut self.shared.state.lock().unwrap().condition);
        self.shared.mended.notify_waiters();
    }

    /// Another client publishes this. Returns the connection of the client that it is passed to.
    pub(crate) fn publish(&self, publish: &Publish) -> Option<u64> {
        if !self.is_up() {
            return None;
        }
        let topic = std::str::from_utf8(&publish.topic).unwrap();
        let mut state = self.shared.state.lock().unwrap();
        state.retain(topic, publish);
        state.pass_on(topic, publish)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.state.lock().unwrap().seen.clone()
    }

    pub(crate) fn retained(&self) -> BTreeMap<String, Bytes> {
        self.shared.state.lock().unwrap().retained.clone()
    }

    /// When each connection began.
    pub(crate) fn began(&self) -> BTreeMap<u64, Duration> {
        self.shared.state.lock().unwrap().began.clone()
    }

    /// When each connection ended that has.
    pub(crate) fn ended(&self) -> BTreeMap<u64, Duration> {
        self.shared.state.lock().unwrap().ended.clone()
    }
}

impl State {
    fn take(&mut self, began: Instant, connection: u64, publish: &Publish) {
        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
        let properties = publish.properties.as_ref();
        self.seen.push(Seen {
            at_us: began.elapsed().as_micros(),
            connection,
            topic: topic.clone(),
            payload: publish.payload.clone(),
            retain: publish.retain,
            correlation: properties.and_then(|properties| properties.correlation_data.clone()),
        });
        self.retain(&topic, publish);
        self.pass_on(&topic, publish);
    }

    fn retain(&mut self, topic: &str, publish: &Publish) {
        if publish.retain && publish.payload.is_empty() {
            self.retained.remove(topic);
        } else if publish.retain {
            self.retained.insert(topic.to_owned(), publish.payload.clone());
        }
    }

    fn pass_on(&self, topic: &str, publish: &Publish) -> Option<u64> {
        let mut passed_to = None;
        for client in self.clients.values() {
            let fits = |filter: &&SubscribeFilter| matches(topic, &filter.path);
            if let Some(filter) = client.filters.iter().find(fits) {
                let retain = publish.retain && filter.preserve_retain;
                let mut copy = outgoing(topic, publish.payload.clone(), retain);
                copy.properties.clone_from(&publish.properties);
                _ = client.packets.try_send(Packet::Publish(copy));
                passed_to = Some(client.connection);
            }
        }
        passed_to
    }
}

#[derive(Clone)]
struct Shared {
    began: Instant,
    protocol: MqttVersion,
    window: u16,
    state: Arc<Mutex<State>>,
    mended: Arc<Notify>,
}

/// One client's bytes, packet by packet.
struct Reader<S> {
    protocol: MqttVersion,
    stream: S,
    bytes: BytesMut,
    patience: Duration,
}

impl<S: AsyncReadExt + Unpin> Reader<S> {
    /// The next packet; `None` when the connection has ended or its keep-alive ran out.
    async fn next(&mut self) -> Option<Packet> {
        loop {
            let packet = wire::read(self.protocol, &mut self.bytes, u32::MAX);
            if let Some(packet) = packet.expect("MQTT of the bridge") {
                return Some(packet);
            }
            let read = timeout(self.patience, self.stream.read_buf(&mut self.bytes)).await;
            if !matches!(read, Ok(Ok(1..))) {
                return None;
            }
        }
    }
}

impl Shared {
    async fn wait_while(&self, wrong: impl Fn(&Condition) -> bool) {
        loop {
            let mended = self.mended.notified();
            tokio::pin!(mended);
            mended.as_mut().enable();
            if !wrong(&self.state.lock().unwrap().condition) {
                return;
            }
            mended.await;
        }
    }

    async fn serve(self, stream: TcpStream) {
        let (read, write) = split(stream);
        let (protocol, patience) = (self.protocol, Duration::from_secs(10));
        let mut reader = Reader { protocol, stream: read, bytes: BytesMut::new(), patience };
        self.wait_while(|condition| condition.reads_nothing).await;
        let Some(Packet::Connect(connect, will, _)) = reader.next().await else { return };
        reader.patience = Duration::from_millis(u64::from(connect.keep_alive) * 1_500);
        let (packets, to_send) = mpsc::channel(WAITING_MAX);
        let taken_over = Arc::new(Notify::new());
        let connection = {
            let mut state = self.state.lock().unwrap();
            state.connections += 1;
            let connection = state.connections;
            state.began.insert(connection, self.began.elapsed());
            let filters = Vec::new();
            let (ends, packets) = (taken_over.clone(), packets.clone());
            let client = Client { connection, packets, filters, will, taken_over: ends };
            let before = state.clients.insert(connect.client_id.clone(), client);
            if let Some(before) = before {
                before.taken_over.notify_one();
                state.ended.insert(before.connection, self.began.elapsed());
                self.publish_will(&mut state, before.connection, before.will);
            }
            connection
        };
        _ = packets.try_send(accepted(self.window));
        let in_order = tokio::select! {
            biased;
            () = taken_over.notified() => return,
            () = send_on(protocol, write, to_send) => false,
            in_order = self.converse(&mut reader, &connect.client_id, connection, &packets) => {
                in_order
            }
        };
        let mut state = self.state.lock().unwrap();
        let ours =
            state.clients.get(&connect.client_id).is_some_and(|it| it.connection == connection);
        if ours && let Some(client) = state.clients.remove(&connect.client_id) {
            state.ended.insert(connection, self.began.elapsed());
            if !in_order {
                self.publish_will(&mut state, connection, client.will);
            }
        }
    }

    fn publish_will(&self, state: &mut State, connection: u64, will: Option<LastWill>) {
        if let Some(LastWill { topic, message: payload, retain, .. }) = will {
            let publish = Publish { topic, payload, retain, ..Publish::default() };
            state.take(self.began, connection, &publish);
        }
    }

    /// `true` when the client said DISCONNECT.
    async fn converse<S: AsyncReadExt + Unpin>(
        &self,
        reader: &mut Reader<S>,
        client_id: &str,
        connection: u64,
        packets: &mpsc::Sender<Packet>,
    ) -> bool {
        let mut kept_back = Vec::new();
        loop {
            self.wait_while(|condition| condition.reads_nothing).await;
            let packet = tokio::select! {
                biased;
                () = self.wait_while(|it| it.acknowledges_nothing), if !kept_back.is_empty() => {
                    for packet in kept_back.drain(..) {
                        _ = packets.try_send(packet);
                    }
                    continue;
                }
                packet = reader.next() => packet,
            };
            let Some(packet) = packet else { return false };
            match packet {
                Packet::Publish(publish) => {
                    assert_eq!(publish.qos, QoS::AtLeastOnce, "QoS is 1");
                    let mut state = self.state.lock().unwrap();
                    let mut ack = PubAck::new(publish.pkid, None);
                    match (state.condition.refuses, self.protocol) {
                        (true, MqttVersion::V5) => ack.reason = PubAckReason::QuotaExceeded,
                        (true, MqttVersion::V311) => return false,
                        (false, _) => state.take(self.began, connection, &publish),
                    }
                    if state.condition.acknowledges_nothing {
                        kept_back.push(Packet::PubAck(ack));
                    } else {
                        _ = packets.try_send(Packet::PubAck(ack));
                    }
                }
                Packet::Subscribe(subscribe) => self.subscribe(client_id, subscribe, packets),
                Packet::Unsubscribe(unsubscribe) => {
                    let mut state = self.state.lock().unwrap();
                    if let Some(client) = state.clients.get_mut(client_id) {
                        client.filters.retain(|it| !unsubscribe.filters.contains(&it.path));
                    }
                    let reasons = vec![UnsubAckReason::Success; unsubscribe.filters.len()];
                    let ack = UnsubAck { pkid: unsubscribe.pkid, reasons, properties: None };
                    _ = packets.try_send(Packet::UnsubAck(ack));
                }
                Packet::PingReq => _ = packets.try_send(Packet::PingResp),
                Packet::Disconnect(_) => return true,
                other => panic!("the bridge sent {other:?}"),
            }
        }
    }
    fn subscribe(&self, client_id: &str, subscribe: Subscribe, packets: &mpsc::Sender<Packet>) {
        let mut state = self.state.lock().unwrap();
        let granted = SubscribeReasonCode::Success(QoS::AtMostOnce);
        let return_codes = vec![granted; subscribe.filters.len()];
        let ack = SubAck { pkid: subscribe.pkid, return_codes, properties: None };
        _ = packets.try_send(Packet::SubAck(ack));
        for filter in &subscribe.filters {
            if filter.retain_forward_rule == RetainForwardRule::Never {
                continue;
            }
            for (topic, payload) in &state.retained {
                if matches(topic, &filter.path) {
                    let publish = outgoing(topic, payload.clone(), true);
                    _ = packets.try_send(Packet::Publish(publish));
                }
            }
        }
        if let Some(client) = state.clients.get_mut(client_id) {
            client.filters.extend(subscribe.filters);
        }
    }
}

async fn send_on(
    protocol: MqttVersion,
    mut write: WriteHalf<TcpStream>,
    mut packets: mpsc::Receiver<Packet>,
) {
    while let Some(packet) = packets.recv().await {
        let mut bytes = BytesMut::new();
        wire::write(protocol, packet, None, &mut bytes).expect("MQTT of the broker");
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
