//! A subscriber that shares no code with the bridge: minimal MQTT 3.1.1 with QoS 0, which
//! reconnects whenever the broker is available.
//!
//! It must not lose what it has read: everything up to the end of a connection counts. (An MQTT
//! library that discards its last batch when the connection ends would make a broker appear worse
//! than it is.)

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::unique;

/// Between two attempts to reach the broker.
const RETRY_EVERY: Duration = Duration::from_millis(10);

/// A subscriber and its received messages.
pub(crate) struct Subscriber {
    /// Topic and payload of every message, in the order of their arrival.
    pub(crate) seen: mpsc::UnboundedReceiver<(String, Vec<u8>)>,
    /// The number of subscriptions: one for each start of the broker.
    pub(crate) subscriptions: watch::Receiver<usize>,
}

impl Subscriber {
    /// Subscribes to `filter` on 127.0.0.1, again whenever the connection is lost.
    pub(crate) fn start(port: u16, filter: &str) -> Self {
        let (messages, seen) = mpsc::unbounded_channel();
        let (lives, subscriptions) = watch::channel(0);
        let filter = filter.to_owned();
        tokio::spawn(async move {
            while !messages.is_closed() {
                // It ends with the connection, so there is a loop.
                let _ = listen(port, &filter, &messages, &lives).await;
                tokio::time::sleep(RETRY_EVERY).await;
            }
        });
        Self { seen, subscriptions }
    }
}

async fn listen(
    port: u16,
    filter: &str,
    messages: &mpsc::UnboundedSender<(String, Vec<u8>)>,
    lives: &watch::Sender<usize>,
) -> std::io::Result<()> {
    let mut socket = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
    let id = unique("subscriber");
    // Protocol name, level 4, clean session, no keep-alive, client ID.
    let mut connect = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
    put_text(&mut connect, &id);
    write(&mut socket, 0x10, &connect).await?;
    let mut subscribe = vec![0, 1];
    put_text(&mut subscribe, filter);
    subscribe.push(0);
    write(&mut socket, 0x82, &subscribe).await?;
    loop {
        let (kind, body) = read(&mut socket).await?;
        match kind & 0xf0 {
            0x90 => lives.send_modify(|lives| *lives += 1),
            0x30 => {
                let len = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8(body[2..2 + len].to_vec()).unwrap();
                if messages.send((topic, body[2 + len..].to_vec())).is_err() {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
}

fn put_text(buffer: &mut Vec<u8>, text: &str) {
    buffer.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    buffer.extend(text.as_bytes());
}

async fn write(socket: &mut BufReader<TcpStream>, kind: u8, body: &[u8]) -> std::io::Result<()> {
    let mut packet = vec![kind, u8::try_from(body.len()).unwrap()];
    assert!(body.len() < 128, "one length byte");
    packet.extend(body);
    socket.write_all(&packet).await
}

async fn read(socket: &mut BufReader<TcpStream>) -> std::io::Result<(u8, Vec<u8>)> {
    let kind = socket.read_u8().await?;
    let (mut len, mut shift) = (0usize, 0);
    loop {
        let byte = socket.read_u8().await?;
        len |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; len];
    socket.read_exact(&mut body).await?;
    Ok((kind, body))
}
