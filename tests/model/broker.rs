//! A small MQTT 5 broker in the model's network, which keeps all it was given.
//!
//! Its faults are in `Mood`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gsdk2mqtt::net::model::{self, TcpStream};
use rumqttc_v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectReturnCode, LastWill, Packet, PubAck, PubAckReason, Publish,
    RetainForwardRule, SubAck, SubscribeFilter, SubscribeReasonCode, UnsubAck, UnsubAckReason,
};
use rumqttc_v5::mqttbytes::{Error, QoS, matches};
use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf, split};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Packets that may wait for one client.
const WAITING_MAX: usize = 100_000;

/// A message that the broker took: what a subscriber of everything sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Since the run began, in microseconds.
    pub(crate) at_us: u128,
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
}

/// How the broker behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mood {
    /// It reads nothing.
    pub(crate) deaf: bool,
    /// It takes messages and acknowledges none.
    pub(crate) mute: bool,
    /// It takes no message, and says so.
    pub(crate) refuses: bool,
}

#[derive(Default)]
struct State {
    mood: Mood,
    retained: BTreeMap<String, Bytes>,
    clients: BTreeMap<String, Client>,
    connections: u64,
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
    window: u16,
    began: Instant,
    state: Arc<Mutex<State>>,
    mended: Arc<Notify>,
    tasks: JoinSet<()>,
}

impl Broker {
    pub(crate) fn new(address: SocketAddr, window: u16) -> Self {
        Self {
            address,
            window,
            began: Instant::now(),
            state: Arc::default(),
            mended: Arc::default(),
            tasks: JoinSet::new(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.tasks.is_empty()
    }

    pub(crate) fn start(&mut self) {
        let listener = model::listen(self.address).unwrap();
        let shared = Shared {
            began: self.began,
            window: self.window,
            state: self.state.clone(),
            mended: self.mended.clone(),
        };
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(shared.clone().serve(stream));
            }
        });
    }

    /// Its process is gone at once; no will is published.
    pub(crate) async fn kill(&mut self, network: &model::Network, forgets: bool) {
        network.kill(self.address, model::Side::Server);
        self.tasks.shutdown().await;
        let mut state = self.state.lock().unwrap();
        state.clients.clear();
        if forgets {
            state.retained.clear();
        }
    }

    pub(crate) fn mood(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut self.state.lock().unwrap().mood);
        self.mended.notify_waiters();
    }

    /// Another client publishes this.
    pub(crate) fn publish(&self, topic: &str, payload: &'static [u8]) {
        let publish = Publish { payload: payload.into(), ..Publish::default() };
        self.state.lock().unwrap().pass_on(topic, &publish);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    pub(crate) fn retained(&self) -> BTreeMap<String, Bytes> {
        self.state.lock().unwrap().retained.clone()
    }
}

impl State {
    fn take(&mut self, began: Instant, publish: &Publish) {
        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
        self.seen.push(Seen {
            at_us: began.elapsed().as_micros(),
            topic: topic.clone(),
            payload: publish.payload.clone(),
            retain: publish.retain,
        });
        if publish.retain && publish.payload.is_empty() {
            self.retained.remove(&topic);
        } else if publish.retain {
            self.retained.insert(topic.clone(), publish.payload.clone());
        }
        self.pass_on(&topic, publish);
    }

    fn pass_on(&self, topic: &str, publish: &Publish) {
        for client in self.clients.values() {
            let fits = |filter: &&SubscribeFilter| matches(topic, &filter.path);
            if let Some(filter) = client.filters.iter().find(fits) {
                let retain = publish.retain && filter.preserve_retain;
                let packet = outgoing(topic, publish.payload.clone(), retain);
                _ = client.packets.try_send(packet);
            }
        }
    }
}

fn outgoing(topic: &str, payload: Bytes, retain: bool) -> Packet {
    let topic = Bytes::copy_from_slice(topic.as_bytes());
    Packet::Publish(Publish { retain, qos: QoS::AtMostOnce, topic, payload, ..Publish::default() })
}

#[derive(Clone)]
struct Shared {
    began: Instant,
    window: u16,
    state: Arc<Mutex<State>>,
    mended: Arc<Notify>,
}

/// One client's bytes, packet by packet.
struct Reader<S> {
    stream: S,
    bytes: BytesMut,
    patience: Duration,
}

impl<S: AsyncReadExt + Unpin> Reader<S> {
    /// The next packet; `None` when the connection has ended or its keep-alive ran out.
    async fn next(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.bytes, None) {
                Ok(packet) => return Some(packet),
                Err(Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("the bridge sent what is no MQTT: {error}"),
            }
            let read = timeout(self.patience, self.stream.read_buf(&mut self.bytes)).await;
            if !matches!(read, Ok(Ok(1..))) {
                return None;
            }
        }
    }
}

impl Shared {
    async fn wait_while(&self, wrong: impl Fn(&Mood) -> bool) {
        loop {
            let mended = self.mended.notified();
            tokio::pin!(mended);
            mended.as_mut().enable();
            if !wrong(&self.state.lock().unwrap().mood) {
                return;
            }
            mended.await;
        }
    }

    async fn serve(self, stream: TcpStream) {
        let (read, write) = split(stream);
        let (bytes, patience) = (BytesMut::new(), Duration::from_secs(10));
        let mut reader = Reader { stream: read, bytes, patience };
        self.wait_while(|mood| mood.deaf).await;
        let Some(Packet::Connect(connect, will, _)) = reader.next().await else { return };
        reader.patience = Duration::from_millis(u64::from(connect.keep_alive) * 1_500);
        let (packets, to_send) = mpsc::channel(WAITING_MAX);
        let taken_over = Arc::new(Notify::new());
        let connection = {
            let mut state = self.state.lock().unwrap();
            state.connections += 1;
            let connection = state.connections;
            let filters = Vec::new();
            let (ends, packets) = (taken_over.clone(), packets.clone());
            let client = Client { connection, packets, filters, will, taken_over: ends };
            let before = state.clients.insert(connect.client_id.clone(), client);
            if let Some(before) = before {
                before.taken_over.notify_one();
                self.publish_will(&mut state, before.will);
            }
            connection
        };
        _ = packets.try_send(Packet::ConnAck(accepted(self.window)));
        let in_order = tokio::select! {
            biased;
            () = taken_over.notified() => return,
            () = send_on(write, to_send) => false,
            in_order = self.converse(&mut reader, &connect.client_id, &packets) => in_order,
        };
        let mut state = self.state.lock().unwrap();
        let ours =
            state.clients.get(&connect.client_id).is_some_and(|it| it.connection == connection);
        if ours
            && let Some(client) = state.clients.remove(&connect.client_id)
            && !in_order
        {
            self.publish_will(&mut state, client.will);
        }
    }

    fn publish_will(&self, state: &mut State, will: Option<LastWill>) {
        if let Some(LastWill { topic, message: payload, retain, .. }) = will {
            state.take(self.began, &Publish { topic, payload, retain, ..Publish::default() });
        }
    }

    /// `true` when the client said DISCONNECT.
    async fn converse<S: AsyncReadExt + Unpin>(
        &self,
        reader: &mut Reader<S>,
        client_id: &str,
        packets: &mpsc::Sender<Packet>,
    ) -> bool {
        let mut kept_back = Vec::new();
        loop {
            self.wait_while(|mood| mood.deaf).await;
            let packet = tokio::select! {
                biased;
                () = self.wait_while(|mood| mood.mute), if !kept_back.is_empty() => {
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
                    assert_eq!(publish.qos, QoS::AtLeastOnce, "the contract says QoS 1");
                    let mut state = self.state.lock().unwrap();
                    let mut ack = PubAck::new(publish.pkid, None);
                    if state.mood.refuses {
                        ack.reason = PubAckReason::QuotaExceeded;
                    } else {
                        state.take(self.began, &publish);
                    }
                    if state.mood.mute {
                        kept_back.push(Packet::PubAck(ack));
                    } else {
                        _ = packets.try_send(Packet::PubAck(ack));
                    }
                }
                Packet::Subscribe(subscribe) => {
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
                                _ = packets.try_send(outgoing(topic, payload.clone(), true));
                            }
                        }
                    }
                    if let Some(client) = state.clients.get_mut(client_id) {
                        client.filters.extend(subscribe.filters);
                    }
                }
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
}

async fn send_on(mut write: WriteHalf<TcpStream>, mut packets: mpsc::Receiver<Packet>) {
    while let Some(packet) = packets.recv().await {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).unwrap();
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

fn accepted(window: u16) -> ConnAck {
    let properties = ConnAckProperties {
        session_expiry_interval: None,
        receive_max: Some(window),
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    };
    ConnAck {
        session_present: false,
        code: ConnectReturnCode::Success,
        properties: Some(properties),
    }
}
