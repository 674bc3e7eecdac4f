//! Tests of one connection: how it ends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config;
use crate::mqtt::session::{Publish, SessionLimits, SessionSettings, Will};
use crate::net::{BackoffPolicy, DialTarget, Peer, Stream};

/// A broker that closes the connection with DISCONNECT 0x89 after its CONNACK: a later write
/// fails, and only then the DISCONNECT is read.
struct ClosingBroker {
    output: VecDeque<&'static [u8]>,
    writes: u32,
    reader: Option<Waker>,
}

impl AsyncRead for ClosingBroker {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.output.len() == 1 && self.writes < 2 {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        into.put_slice(self.output.pop_front().unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClosingBroker {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes += 1;
        if self.writes < 2 {
            return Poll::Ready(Ok(bytes.len()));
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn settings() -> SessionSettings {
    let text = "mqtt.url = \"mqtt://broker.lan\"\n\
                gateways.lobby = { address = \"10.0.0.2\", ca_file = \"/ca.crt\" }\n";
    let loaded = config::from_toml("test.toml", text).unwrap();
    let (topic, payload) = ("t/state".to_owned(), bytes::Bytes::new());
    SessionSettings {
        mqtt: loaded.config.mqtt,
        will: Will { topic, payload, retain: true },
        keep_alive: Duration::from_secs(30),
        limits: SessionLimits::default(),
        retry: BackoffPolicy::default(),
    }
}

fn target(settings: &SessionSettings) -> DialTarget {
    DialTarget {
        peer: Peer::Broker { url: settings.mqtt.broker.to_string() },
        address: settings.mqtt.broker.at.clone(),
        tls: None,
        websocket_path: None,
        deadline: settings.keep_alive,
    }
}

fn client<'a>(
    stream: impl Stream + 'static,
    context: &'a FaultContext<'a>,
) -> (SessionClient<'a>, mpsc::Receiver<SessionEvent>) {
    let (events, received) = mpsc::channel(10);
    let (stream, activity) = (Box::new(stream), ActivityClock::start());
    let dialed = Dialed { stream, certificate: None, certificate_requested: false, activity };
    (SessionClient::new(dialed, context, events, Arc::default()), received)
}

async fn connected(events: &mut mpsc::Receiver<SessionEvent>) -> BrokerConnection {
    let Some(SessionEvent::Connected(connected)) = events.recv().await else { panic!() };
    connected.connection
}

/// The broker sends something after DISCONNECT: with a reset it would publish the last will.
#[tokio::test]
async fn the_broker_closes_the_connection_first() {
    let settings = settings();
    let context = FaultContext::new(&settings, target(&settings), false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (client, mut events) = client(socket, &context);
    let broker = async {
        let (mut socket, mut bytes) = (listener.accept().await.unwrap().0, Vec::new());
        socket.write_all(b"\x20\x03\x00\x00\x00").await.unwrap();
        socket.read_to_end(&mut bytes).await.unwrap();
        assert!(bytes.ends_with(codec::DISCONNECT), "{bytes:?}");
        for _ in 0..2 {
            socket.write_all(b"\xd0\x00").await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let leave = async { connected(&mut events).await.disconnect() };
    let (ended, ..) = tokio::join!(client.run(None), leave, broker);
    assert!(ended.fault.is_none());
}

#[tokio::test]
async fn a_disconnect_is_read_although_a_write_fails_before() {
    let settings = settings();
    let context = FaultContext::new(&settings, target(&settings), false);
    let output: [&[u8]; 2] = [b"\x20\x03\x00\x00\x00", b"\xe0\x01\x89"];
    let broker = ClosingBroker { output: output.into(), writes: 0, reader: None };
    let (client, mut events) = client(broker, &context);
    let publish = async {
        let mut connection = connected(&mut events).await;
        let publish = Publish { topic: "t/a".to_owned(), ..Publish::default() };
        connection.publish(1, publish).unwrap();
        connection
    };
    let (ended, _connected) = tokio::join!(client.run(None), publish);
    let fault = ended.fault.unwrap();
    assert!(fault.to_string().contains("server_busy (0x89)"), "{fault}");
    assert!(ended.is_unacknowledged && fault.is_closed_by_broker());
}
