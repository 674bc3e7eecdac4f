//! A gateway that sends its full queue at once, each change in a separate frame, as servers of
//! grpc-go do.

use std::sync::Arc;
use std::time::Duration;

use gsdk2mqtt::fleet::StreamedStatus;
use gsdk2mqtt::gsdk::LinkReport;
use gsdk2mqtt::proto::connect::StatusChange;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::frames::{ACK, DATA, Frame, HEADERS, PING, SETTINGS, answer, frame};
use super::{Observed, lobby};
use crate::harness::PATIENCE;
use crate::harness::certificates::Ca;

/// The default queue size of a gateway.
const CHANGES: u32 = 65_536;

/// The changes, and the begin of the answer to the subscription.
fn flood(stream: u32) -> Vec<u8> {
    let mut block = vec![0x88, 0, 12];
    block.extend(b"content-type");
    block.push(16);
    block.extend(b"application/grpc");
    let mut bytes = frame(HEADERS, 0x4, stream, &block);
    for number in 1..=CHANGES {
        let change = StatusChange { device_id: 540_000_001, status: 1, timestamp: number };
        let message = change.encode_to_vec();
        let mut payload = vec![0];
        payload.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        payload.extend(message);
        bytes.extend(frame(DATA, 0, stream, &payload));
    }
    bytes
}

/// Answers calls with empty messages; the first answer is followed by the flood.
async fn serve(mut socket: TlsStream<TcpStream>) -> std::io::Result<()> {
    socket.read_exact(&mut [0; 24]).await?;
    socket.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    let (mut subscription, mut flooded) = (None, false);
    loop {
        let Frame { kind, flags, stream, payload } = Frame::read(&mut socket).await?;
        match (kind, subscription) {
            (SETTINGS, _) if flags & ACK == 0 => {
                socket.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
            }
            (PING, _) if flags & ACK == 0 => {
                socket.write_all(&frame(PING, ACK, 0, &payload)).await?;
            }
            (HEADERS, None) => subscription = Some(stream),
            (HEADERS, Some(subscription)) => {
                socket.write_all(&answer(stream, "0", "")).await?;
                if !std::mem::replace(&mut flooded, true) {
                    socket.write_all(&flood(subscription)).await?;
                }
            }
            _ => {}
        }
    }
}

/// Aim: a full queue arrives completely. Method: all of it at once, written to an observer that is
/// slow to begin. (h2 ends a connection with `too_many_data_frames` if small frames wait unread;
/// the limit depends on the connection's window.)
#[tokio::test]
async fn a_full_queue_in_small_frames_waits_until_it_is_read() {
    let ca = Ca::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(ca.for_names(&["127.0.0.1"]).tls()));
    let server = async move {
        let (socket, _) = listener.accept().await?;
        serve(acceptor.accept(socket).await?).await
    };
    let gateway = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    gateway.spawn(server);
    let mut options = lobby(&address.to_string(), &ca.file());
    // A ping is answered once the flood has been written, which is as slow as it is read.
    options.timing.keep_alive_timeout = PATIENCE;
    let mut observed = Observed::start(options, 2 * CHANGES as usize);
    observed.up().await;
    // No other task runs meanwhile: sent bytes wait in the sockets.
    std::thread::sleep(Duration::from_millis(500));
    let mut expected = 1;
    while expected <= CHANGES {
        match observed.next().await {
            LinkReport::Status(StreamedStatus { timestamp_s, .. }) => {
                assert_eq!(timestamp_s, expected);
                expected += 1;
            }
            LinkReport::Down { error, .. } => panic!("after {expected}: {error}"),
            _ => {}
        }
    }
    observed.stop().await;
    gateway.shutdown_background();
}
