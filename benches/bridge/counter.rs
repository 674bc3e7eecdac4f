//! A subscriber that counts messages: minimal MQTT 3.1.1 with QoS 0, on its own thread.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What has arrived.
#[derive(Default)]
pub(crate) struct Arrived {
    /// Events of devices.
    pub(crate) events: AtomicU64,
    /// States of devices.
    pub(crate) states: AtomicU64,
    /// Bytes of device states and events, without topics.
    pub(crate) bytes: AtomicU64,
    /// Of each device event: whose, and when.
    pub(crate) times: Mutex<Vec<(u32, Instant)>>,
    /// `online` or `offline`, the bridge's last word.
    pub(crate) bridge: Mutex<Vec<u8>>,
}

impl Arrived {
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    pub(crate) fn states(&self) -> u64 {
        self.states.load(Ordering::Relaxed)
    }

    pub(crate) fn is_online(&self) -> bool {
        *self.bridge.lock().unwrap() == b"online"
    }
}

/// Subscribes to everything, until what has arrived is dropped.
pub(crate) fn subscribe(port: u16) -> Arc<Arrived> {
    let arrived = Arc::new(Arrived::default());
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let id = format!("counter_{:x}", fastrand::u32(..));
    let mut connect = b"\x00\x04MQTT\x04\x02\x00\x00\x00".to_vec();
    connect.push(u8::try_from(id.len()).unwrap());
    connect.extend(id.as_bytes());
    let mut packets = vec![0x10, u8::try_from(connect.len()).unwrap()];
    packets.extend(connect);
    packets.extend(b"\x82\x06\x00\x01\x00\x01#\x00");
    socket.write_all(&packets).unwrap();
    let theirs = Arc::downgrade(&arrived);
    let (subscribed, is_subscribed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer: Vec<u8> = Vec::new();
        let mut part = vec![0; 1 << 18];
        while let Ok(read @ 1..) = socket.read(&mut part) {
            let now = Instant::now();
            let Some(arrived) = theirs.upgrade() else { return };
            buffer.extend(&part[..read]);
            let mut at = 0;
            while let Some((kind, head, len)) = packet(&buffer[at..]) {
                let body = &buffer[at + head..at + head + len];
                match kind & 0xf0 {
                    0x30 => arrived.take(body, now),
                    0x90 => _ = subscribed.send(()),
                    _ => {}
                }
                at += head + len;
            }
            buffer.drain(..at);
        }
    });
    is_subscribed.recv().unwrap();
    arrived
}

/// Kind, length of the head, length of the body; `None` while it is not whole.
fn packet(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let mut len = 0;
    for at in 1..5 {
        let byte = *bytes.get(at)?;
        len |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return (bytes.len() > at + len).then_some((bytes[0], at + 1, len));
        }
    }
    None
}

impl Arrived {
    fn take(&self, body: &[u8], now: Instant) {
        let len = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = std::str::from_utf8(&body[2..2 + len]).unwrap();
        let payload = &body[2 + len..];
        let mut parts = topic.split('/').skip(2);
        let (id, kind) = (parts.next().unwrap_or_default().parse::<u32>(), parts.next());
        match (id, kind) {
            (Ok(id), Some("event")) => {
                self.times.lock().unwrap().push((id, now));
                self.events.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
            }
            (Ok(_), Some("state")) => {
                self.states.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
            }
            _ if topic == "gsdk/bridge/state" => *self.bridge.lock().unwrap() = payload.to_vec(),
            _ => {}
        }
    }
}
