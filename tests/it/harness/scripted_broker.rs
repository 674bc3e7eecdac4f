//! A broker whose answers a test scripts: a proxy in front of a real mosquitto that parses the
//! packets.
//!
//! Retained messages, subscriptions and last wills are handled by mosquitto, so its other clients
//! are not affected. The script decides on single packets of the clients that connect through the
//! proxy.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex as AsyncMutex, broadcast};

use super::eventually;
use super::mosquitto::Mosquitto;

const CONNECT: u8 = 1;
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const SUBSCRIBE: u8 = 8;
const SUBACK: u8 = 9;
const PINGREQ: u8 = 12;
const DISCONNECT: u8 = 14;

/// The handling of a client's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// mosquitto receives it and answers.
    Forward,
    /// mosquitto does not receive it; the answer has this reason code. MQTT 3.1.1 has none for
    /// PUBACK: there the message is dropped and acknowledged.
    Code(u8),
    /// mosquitto does not receive it, and there is no answer.
    Withhold,
    /// The connection is closed.
    Close,
    /// mosquitto receives it after this time, and later packets before it.
    Delay(Duration),
}

/// A PUBLISH of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// Counted from 1.
    pub(crate) connection: usize,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retain: bool,
}

type OnPublish = Box<dyn FnMut(&Published) -> Reply + Send>;
type OnSubscribe = Box<dyn FnMut(&str) -> Reply + Send>;

/// The broker's answers; by default mosquitto's own.
#[derive(Default)]
pub(crate) struct Script {
    /// The reason code of CONNACK; the connection ends after it.
    pub(crate) connack: Option<u8>,
    /// Properties added to CONNACK, as they are on the wire (MQTT 5).
    pub(crate) connack_properties: Vec<u8>,
    /// For each PUBLISH.
    pub(crate) publish: Option<OnPublish>,
    /// For each filter of a SUBSCRIBE. `Withhold` withholds the whole SUBACK.
    pub(crate) subscribe: Option<OnSubscribe>,
}

/// What clients sent.
#[derive(Default)]
struct Seen {
    connections: usize,
    published: Vec<Published>,
    filters: Vec<String>,
    /// Reason codes of DISCONNECT; 0 where it has none.
    disconnects: Vec<u8>,
    pings: usize,
}

/// Sent to every connected client in addition to mosquitto's packets.
#[derive(Clone, Debug)]
struct Injection {
    bytes: Vec<u8>,
    /// Whether the connection is closed after it.
    closes: bool,
}

/// A scripted broker.
pub(crate) struct ScriptedBroker {
    /// Where the bridge connects.
    pub(crate) port: u16,
    /// The broker behind it, for other clients.
    pub(crate) mosquitto: Mosquitto,
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Seen>>,
    injections: broadcast::Sender<Injection>,
}

impl ScriptedBroker {
    /// Starts one, with `extra` lines of mosquitto's configuration.
    pub(crate) async fn start(extra: &str) -> Self {
        let mosquitto = Mosquitto::start(extra).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (injections, _) = broadcast::channel(4);
        let broker =
            Self { port, mosquitto, script: Arc::default(), seen: Arc::default(), injections };
        let (script, seen) = (Arc::clone(&broker.script), Arc::clone(&broker.seen));
        let (behind, injections) = (broker.mosquitto.port, broker.injections.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(("127.0.0.1", behind)).await else { continue };
                let client = Client { script: script.clone(), seen: seen.clone() };
                tokio::spawn(client.serve(near, far, injections.subscribe()));
            }
        });
        broker
    }

    /// Changes the script, from the next packet on.
    pub(crate) fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    /// Answers each PUBLISH with `reply`.
    pub(crate) fn on_publish(&self, reply: impl FnMut(&Published) -> Reply + Send + 'static) {
        self.script(|script| script.publish = Some(Box::new(reply)));
    }

    /// Answers each filter of a SUBSCRIBE with `reply`.
    pub(crate) fn on_subscribe(&self, reply: impl FnMut(&str) -> Reply + Send + 'static) {
        self.script(|script| script.subscribe = Some(Box::new(reply)));
    }

    /// Ends every connection with a DISCONNECT of MQTT 5, 0x8E is "session taken over".
    pub(crate) fn disconnect(&self, code: u8) {
        self.send(vec![DISCONNECT << 4, 1, code], true);
    }

    /// Closes every connection.
    pub(crate) fn close(&self) {
        self.send(Vec::new(), true);
    }

    /// Sends these bytes to every client.
    pub(crate) fn inject(&self, bytes: &[u8]) {
        self.send(bytes.to_vec(), false);
    }

    fn send(&self, bytes: Vec<u8>, closes: bool) {
        _ = self.injections.send(Injection { bytes, closes });
    }

    /// The number of CONNECT packets.
    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// Every PUBLISH so far, refused ones included.
    pub(crate) fn published(&self) -> Vec<Published> {
        self.seen.lock().unwrap().published.clone()
    }

    /// Every filter of a SUBSCRIBE so far.
    pub(crate) fn filters(&self) -> Vec<String> {
        self.seen.lock().unwrap().filters.clone()
    }

    /// The reason codes of the clients' DISCONNECTs.
    pub(crate) fn disconnects(&self) -> Vec<u8> {
        self.seen.lock().unwrap().disconnects.clone()
    }

    /// How many pings clients have sent.
    pub(crate) fn pings(&self) -> usize {
        self.seen.lock().unwrap().pings
    }

    /// Waits until clients have sent this number of CONNECT packets.
    pub(crate) async fn connected_times(&self, count: usize) {
        let what = format!("a client connects {count} times");
        eventually(&what, || (self.connections() >= count).then_some(())).await;
    }
}

/// One client's connection.
struct Client {
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Seen>>,
}

/// What both directions of one connection share.
struct Shared {
    client: Client,
    near: AsyncMutex<OwnedWriteHalf>,
    /// By packet identifier: the answers to the filters of a SUBSCRIBE.
    subscribing: Mutex<Vec<(u16, Vec<Reply>)>>,
}

impl Client {
    async fn serve(
        self,
        near: TcpStream,
        far: TcpStream,
        mut injections: broadcast::Receiver<Injection>,
    ) {
        _ = near.set_nodelay(true);
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        let shared =
            Shared { client: self, near: AsyncMutex::new(near_out), subscribing: Mutex::default() };
        let both = async {
            let mut near_in = near_in;
            let connect = read_packet(&mut near_in).await?;
            assert_eq!(connect[0] >> 4, CONNECT, "a connection begins with CONNECT");
            let mqtt_5 = connect[body_at(&connect) + 6] == 5;
            let number = {
                let mut seen = shared.client.seen.lock().unwrap();
                seen.connections += 1;
                seen.connections
            };
            let mut far_out = far_out;
            far_out.write_all(&connect).await?;
            tokio::try_join!(
                shared.relay_requests(near_in, far_out, mqtt_5, number),
                shared.relay_answers(far_in, mqtt_5),
            )
        };
        tokio::select! {
            // The sockets close with this function.
            _ = both => {}
            () = async {
                while let Ok(injection) = injections.recv().await {
                    let written = shared.near.lock().await.write_all(&injection.bytes).await;
                    if injection.closes || written.is_err() {
                        return;
                    }
                }
            } => {}
        }
    }
}

impl Shared {
    async fn relay_requests(
        &self,
        mut from: OwnedReadHalf,
        to: OwnedWriteHalf,
        mqtt_5: bool,
        connection: usize,
    ) -> io::Result<()> {
        let to = Arc::new(AsyncMutex::new(to));
        loop {
            let mut packet = read_packet(&mut from).await?;
            let reply = match packet[0] >> 4 {
                PUBLISH => self.publish(&packet, mqtt_5, connection),
                SUBSCRIBE => self.subscribe(&mut packet, mqtt_5),
                DISCONNECT => {
                    let code = packet.get(2).copied().unwrap_or(0);
                    self.client.seen.lock().unwrap().disconnects.push(code);
                    Reply::Forward
                }
                PINGREQ => {
                    self.client.seen.lock().unwrap().pings += 1;
                    Reply::Forward
                }
                _ => Reply::Forward,
            };
            match reply {
                Reply::Forward => to.lock().await.write_all(&packet).await?,
                Reply::Code(code) => {
                    let (_, id, _) = publish_parts(&packet);
                    let [high, low] = id.to_be_bytes();
                    let five = [0x40, 3, high, low, code];
                    let ack = if mqtt_5 { &five[..] } else { &[0x40, 2, high, low] };
                    self.near.lock().await.write_all(ack).await?;
                }
                Reply::Withhold => {}
                Reply::Close => return Err(io::ErrorKind::ConnectionAborted.into()),
                Reply::Delay(time) => {
                    let to = Arc::clone(&to);
                    tokio::spawn(async move {
                        tokio::time::sleep(time).await;
                        _ = to.lock().await.write_all(&packet).await;
                    });
                }
            }
        }
    }

    fn publish(&self, packet: &[u8], mqtt_5: bool, connection: usize) -> Reply {
        let (topic, _, rest) = publish_parts(packet);
        let payload = if mqtt_5 { &rest[properties_end(rest)..] } else { rest };
        let retain = packet[0] & 1 == 1;
        let published = Published { connection, topic, payload: payload.to_vec(), retain };
        let reply = match &mut self.client.script.lock().unwrap().publish {
            Some(reply) => reply(&published),
            None => Reply::Forward,
        };
        self.client.seen.lock().unwrap().published.push(published);
        reply
    }

    /// A filter that the script refuses becomes another one that matches nothing.
    fn subscribe(&self, packet: &mut [u8], mqtt_5: bool) -> Reply {
        let at = body_at(packet);
        let id = u16::from_be_bytes([packet[at], packet[at + 1]]);
        let mut at = at + 2;
        if mqtt_5 {
            at += properties_end(&packet[at..]);
        }
        let mut replies = Vec::new();
        while at < packet.len() {
            let len = usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
            let filter = &mut packet[at + 2..at + 2 + len];
            let text = String::from_utf8(filter.to_vec()).unwrap();
            let reply = match &mut self.client.script.lock().unwrap().subscribe {
                Some(reply) => reply(&text),
                None => Reply::Forward,
            };
            self.client.seen.lock().unwrap().filters.push(text);
            if !matches!(reply, Reply::Forward | Reply::Delay(_)) {
                filter.fill(b'x');
            }
            replies.push(reply);
            at += 2 + len + 1;
        }
        let of_packet = |reply: &&Reply| matches!(reply, Reply::Close | Reply::Delay(_));
        let reply = replies.iter().find(of_packet).copied();
        self.subscribing.lock().unwrap().push((id, replies));
        reply.unwrap_or(Reply::Forward)
    }

    async fn relay_answers(&self, mut from: OwnedReadHalf, mqtt_5: bool) -> io::Result<()> {
        loop {
            let mut packet = read_packet(&mut from).await?;
            let mut ends = false;
            match packet[0] >> 4 {
                CONNACK => {
                    let script = self.client.script.lock().unwrap();
                    let at = body_at(&packet);
                    if let Some(code) = script.connack {
                        packet[at + 1] = code;
                        ends = true;
                    }
                    if mqtt_5 && !script.connack_properties.is_empty() {
                        let mut body = packet[at..at + 2].to_vec();
                        let own = &packet[at + 2..];
                        let (_, prefix) = length(own);
                        let all = [&own[prefix..], &script.connack_properties].concat();
                        body.push(u8::try_from(all.len()).unwrap());
                        body.extend(all);
                        packet = vec![CONNACK << 4, u8::try_from(body.len()).unwrap()];
                        packet.extend(body);
                    }
                }
                SUBACK => {
                    let at = body_at(&packet);
                    let id = u16::from_be_bytes([packet[at], packet[at + 1]]);
                    let mut subscribing = self.subscribing.lock().unwrap();
                    let index = subscribing.iter().position(|(it, _)| *it == id).unwrap();
                    let (_, replies) = subscribing.swap_remove(index);
                    if replies.contains(&Reply::Withhold) {
                        continue;
                    }
                    let first = packet.len() - replies.len();
                    for (code, reply) in packet[first..].iter_mut().zip(replies) {
                        if let Reply::Code(scripted) = reply {
                            *code = scripted;
                        }
                    }
                }
                _ => {}
            }
            self.near.lock().await.write_all(&packet).await?;
            if ends {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }
}

/// One whole packet.
async fn read_packet(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut packet = vec![from.read_u8().await?];
    let mut remaining = 0;
    for shift in [0, 7, 14, 21] {
        let byte = from.read_u8().await?;
        packet.push(byte);
        remaining |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let start = packet.len();
    packet.resize(start + remaining, 0);
    from.read_exact(&mut packet[start..]).await?;
    Ok(packet)
}

/// A number of variable length, and how many bytes it has.
fn length(bytes: &[u8]) -> (usize, usize) {
    let count = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let value =
        bytes[..count].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7F));
    (value, count)
}

/// Where a packet's variable header begins.
fn body_at(packet: &[u8]) -> usize {
    1 + length(&packet[1..]).1
}

/// The offset after the properties.
fn properties_end(bytes: &[u8]) -> usize {
    let (len, prefix) = length(bytes);
    prefix + len
}

/// Topic, packet identifier, and the rest of a PUBLISH with QoS 1.
fn publish_parts(packet: &[u8]) -> (String, u16, &[u8]) {
    let body = &packet[body_at(packet)..];
    let len = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let topic = String::from_utf8(body[2..2 + len].to_vec()).unwrap();
    let id = u16::from_be_bytes([body[2 + len], body[3 + len]]);
    (topic, id, &body[4 + len..])
}
