//! A gateway that sends many changes at once, each in a separate frame, as servers of grpc-go do.

use std::sync::Arc;
use std::time::Duration;

use gsdk2mqtt::fleet::StreamedStatus;
use gsdk2mqtt::gsdk::LinkReport;
use gsdk2mqtt::proto::connect::StatusChange;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::frames::{ACK, DATA, Frame, HEADERS, PING, SETTINGS, answer, frame};
use super::{Observed, lobby};
use crate::harness::PATIENCE;
use crate::harness::certificates::Ca;

/// The default queue size of a gateway.
const CHANGES: u32 = 65_536;

/// How many changes precede each list.
const BEFORE_LIST: u32 = 20_000;
/// How long a list takes.
const LISTED_AFTER: Duration = Duration::from_millis(100);

/// The begin of the answer to a subscription.
fn opening(stream: u32) -> Vec<u8> {
    let mut block = vec![0x88, 0, 12];
    block.extend(b"content-type");
    block.push(16);
    block.extend(b"application/grpc");
    frame(HEADERS, 0x4, stream, &block)
}

/// So many changes.
fn flood(stream: u32, count: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 1..=count {
        let change = StatusChange { device_id: 540_000_001, status: 1, timestamp: number };
        let message = change.encode_to_vec();
        let mut payload = vec![0];
        payload.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        payload.extend(message);
        bytes.extend(frame(DATA, 0, stream, &payload));
    }
    bytes
}

/// Answers calls without a message, so a list fails. The first answer is followed by a full queue;
/// each of the others comes after a while and is preceded by some changes.
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
                let answer = answer(stream, "0", "");
                let bytes = if std::mem::replace(&mut flooded, true) {
                    sleep(LISTED_AFTER).await;
                    [flood(subscription, BEFORE_LIST), answer].concat()
                } else {
                    [answer, opening(subscription), flood(subscription, CHANGES)].concat()
                };
                socket.write_all(&bytes).await?;
            }
            _ => {}
        }
    }
}

/// A link to such a gateway that is up, and the runtime of the gateway.
async fn flooded() -> (Observed, Runtime) {
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
    (observed, gateway)
}

/// Reads so many changes, which come in order and before any list.
async fn read(observed: &mut Observed, count: u32) {
    let mut expected = 1;
    while expected <= count {
        match observed.next().await {
            LinkReport::Status(StreamedStatus { timestamp_s, .. }) => {
                assert_eq!(timestamp_s, expected);
                expected += 1;
            }
            LinkReport::Down { error, .. } => panic!("after {expected}: {error}"),
            LinkReport::ListFailed(_) => panic!("a list before {expected}"),
            _ => {}
        }
    }
}

/// Aim: a full queue arrives completely. Method: all of it at once, written to an observer that is
/// slow to begin. (h2 ends a connection with `too_many_data_frames` if small frames wait unread;
/// the limit depends on the connection's window.)
#[tokio::test]
async fn a_full_queue_in_small_frames_waits_until_it_is_read() {
    let (mut observed, gateway) = flooded().await;
    // No other task runs meanwhile: sent bytes wait in the sockets.
    std::thread::sleep(Duration::from_millis(500));
    read(&mut observed, CHANGES).await;
    observed.stop().await;
    gateway.shutdown_background();
}

/// Aim: all changes that a list may already show precede it. Method: an observer that is slow finds
/// both at once; several times, as it may find the changes first.
#[tokio::test]
async fn a_list_is_reported_after_all_changes_before_it() {
    let (mut observed, gateway) = flooded().await;
    read(&mut observed, CHANGES).await;
    for _ in 0..4 {
        observed.link.list_now();
        observed.next_that(|report| matches!(report, LinkReport::ListRequested)).await;
        sleep(LISTED_AFTER / 4).await;
        std::thread::sleep(LISTED_AFTER * 2);
        read(&mut observed, BEFORE_LIST).await;
        observed.next_that(|report| matches!(report, LinkReport::ListFailed(_))).await;
    }
    observed.stop().await;
    gateway.shutdown_background();
}
