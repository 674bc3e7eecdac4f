//! A silent gateway, and one that rejects HTTP/2 pings.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gsdk2mqtt::gsdk::LinkReport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::frames::{ACK, Frame, HEADERS, PING, SETTINGS, answer, frame};
use super::peer::{Peer, State};
use super::proxy::Proxy;
use super::{Observed, eventually, lobby, quick};
use crate::harness::certificates::Ca;

/// Aim: a frozen gateway is detected by its silence, and the moment of its last sign of life is
/// reported. Method: a proxy that stops carrying but cuts nothing, behind which the gateway was
/// idle for several keep-alive intervals before, so that only answers to pings are a sign of life.
#[tokio::test]
async fn a_frozen_gateway_is_noticed_and_its_last_sign_of_life_reported() {
    let ca = Ca::new();
    for (lazy_headers, calls) in [(false, false), (true, false), (false, true)] {
        let state = State { lazy_headers, ..State::default() };
        let peer = Peer::start(ca.for_names(&["127.0.0.1"]).tls(), state).await;
        let proxy = Proxy::before(peer.address).await;
        let mut observed = Observed::start(lobby(&proxy.address, &ca.file()), 1000);
        observed.up().await;
        let timing = quick();
        // Idle: nothing is reported, since answers to pings are a sign of life.
        let idle = timing.keep_alive_interval * 4;
        assert!(tokio::time::timeout(idle, observed.queue.recv()).await.is_err());
        let frozen = Instant::now();
        proxy.freeze(true);
        if calls {
            observed.link.list_now();
        }
        let (last_activity, error) = observed.down_after_all().await;
        let noticed = frozen.elapsed();
        assert_eq!(error.code.as_str(), "no_sign_of_life", "{error}");
        assert!(error.to_string().contains("the gateway hangs, or the network is cut"));
        let longest = timing.keep_alive_interval + timing.keep_alive_timeout;
        assert!(noticed <= longest + Duration::from_secs(1), "{noticed:?}");
        // Bytes in flight at the freeze may have arrived.
        assert!(last_activity <= frozen + Duration::from_millis(50));
        assert!(frozen.duration_since(last_activity.min(frozen)) <= longest);
        proxy.freeze(false);
        observed.up().await;
        observed.stop().await;
    }
}

/// What a handwritten peer received.
#[derive(Default)]
struct Seen {
    pings: AtomicUsize,
    calls_after_pings: AtomicUsize,
    connections: AtomicUsize,
}

/// Closes as grpc-go and grpc-core do after the third early ping.
fn too_many_pings(last_stream: u32) -> Vec<u8> {
    let mut payload = last_stream.to_be_bytes().to_vec();
    payload.extend(0xb_u32.to_be_bytes());
    payload.extend(b"too_many_pings");
    frame(7, 0, 0, &payload)
}

/// A server that sends no headers on a subscription, answers other calls, and accepts two pings.
/// Newer servers of grpc-core report it on each stream before they close the connection.
async fn strict(mut socket: TlsStream<TcpStream>, seen: &Seen, newer: bool) -> std::io::Result<()> {
    seen.connections.fetch_add(1, Ordering::SeqCst);
    socket.read_exact(&mut [0; 24]).await?;
    socket.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    let (mut pings, mut subscription) = (0, None);
    loop {
        let Frame { kind, flags, stream, payload } = Frame::read(&mut socket).await?;
        match kind {
            SETTINGS if flags & ACK == 0 => {
                socket.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
            }
            PING if flags & ACK == 0 => {
                pings += 1;
                seen.pings.fetch_add(1, Ordering::SeqCst);
                if pings > 2 {
                    if let Some(subscription) = subscription.filter(|_| newer) {
                        let end = answer(subscription, "14", "Too many pings");
                        socket.write_all(&end).await?;
                    }
                    socket.write_all(&too_many_pings(subscription.unwrap_or_default())).await?;
                    return socket.shutdown().await;
                }
                socket.write_all(&frame(PING, ACK, 0, &payload)).await?;
            }
            HEADERS if subscription.is_none() => subscription = Some(stream),
            HEADERS => {
                if seen.pings.load(Ordering::SeqCst) > 2 {
                    seen.calls_after_pings.fetch_add(1, Ordering::SeqCst);
                }
                socket.write_all(&answer(stream, "0", "")).await?;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_gateway_that_rejects_pings_is_checked_by_calls() {
    for newer in [false, true] {
        takes_no_pings(newer).await;
    }
}

async fn takes_no_pings(newer: bool) {
    let ca = Ca::new();
    let seen = Arc::new(Seen::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(ca.for_names(&["127.0.0.1"]).tls()));
    let shared = seen.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), shared.clone());
            tokio::spawn(async move {
                let socket = acceptor.accept(socket).await?;
                strict(socket, &seen, newer).await
            });
        }
    });
    let proxy = Proxy::before(address).await;
    let mut observed = Observed::start(lobby(&proxy.address, &ca.file()), 1000);
    observed.up().await;
    observed.down().await;
    let up = observed.next().await;
    assert!(matches!(up, LinkReport::Up { .. }), "{up:?}");
    let calls = || seen.calls_after_pings.load(Ordering::SeqCst);
    eventually("calls instead of pings", || calls() >= 5).await;
    assert_eq!(seen.pings.load(Ordering::SeqCst), 3);
    assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
    // They detect a frozen gateway as pings do.
    proxy.freeze(true);
    let (_, error) = observed.down().await;
    assert_eq!(error.code.as_str(), "no_sign_of_life", "{error}");
    observed.stop().await;
}
