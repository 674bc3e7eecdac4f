//! A broker that is frozen, and a remote one with a receive maximum of 20.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::Sizes;
use crate::counter::subscribe;
use crate::harness::mosquitto::Mosquitto;
use crate::rounds::BROKER;
use crate::source::{Subject, bridge, gateways, send, until};
use crate::tables::{Row, Table};

/// The broker is frozen while the changes come, then thawed.
pub(crate) async fn draining(sizes: &Sizes) -> Table {
    let changes = sizes.burst / 2;
    let broker = Mosquitto::start(BROKER).await;
    let simulators = gateways(1, sizes.devices).await;
    let arrived = subscribe(broker.port);
    // Its metrics are polled: not measured.
    let subject = bridge(broker.port, &simulators, "[metrics]\ndevice = []\n", &arrived).await;
    let Subject::Bridge(bridge) = &subject else { panic!("a bridge was started") };
    let process = subject.process();
    process.forget_peak();
    broker.freeze();
    let started = Instant::now();
    send(&simulators[0].control(), changes, None).await;
    let sent = started.elapsed().as_secs_f64();
    while pending(bridge).await + 2_000.0 < changes as f64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let read = started.elapsed().as_secs_f64();
    let peak = process.peak_mb();
    let cpu_us = process.cpu().as_secs_f64() * 1e6 / changes as f64;
    broker.thaw();
    until("every event arrives", || arrived.events() >= changes).await;
    let title = format!("{changes} changes at once, the broker frozen");
    let mut table = Table::new("draining", title);
    let rate = Row::ratio(
        "changes a second (floor: sent by the simulator)",
        changes as f64 / read,
        changes as f64 / sent,
    );
    table.row(rate);
    table.row(Row::one("CPU a change, start included, us", cpu_us));
    table.row(Row::one("most memory, MB", peak).at_most(60.0));
    table.row(Row::one("lost or twice", arrived.events() as f64 - changes as f64).at_most(0.0));
    table
}

async fn pending(bridge: &crate::harness::bridge::Bridge) -> f64 {
    bridge.metric("gsdk_outbox_events").await.unwrap_or(0.0)
}

/// 10,000 changes a second at a broker with a receive maximum of 20, 1 ms away.
pub(crate) async fn far(sizes: &Sizes) -> Table {
    let rate = 10_000;
    let changes = rate * sizes.far_seconds;
    let broker =
        Mosquitto::start("log_type none\nmax_queued_messages 0\nmax_inflight_messages 20").await;
    let simulators = gateways(1, sizes.devices).await;
    let arrived = subscribe(broker.port);
    let proxy = delaying(broker.port, Duration::from_millis(1)).await;
    let subject = bridge(proxy, &simulators, "", &arrived).await;
    let process = subject.process();
    process.forget_peak();
    let started = Instant::now();
    send(&simulators[0].control(), changes, Some(rate)).await;
    let sent = started.elapsed().as_secs_f64();
    let waiting = changes - arrived.events();
    until("every event arrives", || arrived.events() >= changes).await;
    let title = format!(
        "{rate} changes a second for {} s, receive maximum 20, 1 ms each way",
        sizes.far_seconds
    );
    let mut table = Table::new("far", title);
    table.row(Row::one("changes sent a second", changes as f64 / sent));
    table.row(Row::one(
        "events delivered a second",
        changes as f64 / started.elapsed().as_secs_f64(),
    ));
    table.row(Row::one("events waiting when the last change was sent", waiting as f64));
    table.row(Row::one("most memory, MB", process.peak_mb()));
    table.row(Row::one("lost or twice", arrived.events() as f64 - changes as f64).at_most(0.0));
    table
}

/// A proxy to this port that holds every part back for this long, in both directions.
async fn delaying(to: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await.unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(carry(near_in, far_out, delay));
            tokio::spawn(carry(far_in, near_out, delay));
        }
    });
    port
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Duration,
) {
    let (sender, mut parts) = mpsc::channel::<(Instant, Vec<u8>)>(1_024);
    tokio::spawn(async move {
        while let Some((read_at, part)) = parts.recv().await {
            tokio::time::sleep_until((read_at + delay).into()).await;
            if to.write_all(&part).await.is_err() {
                return;
            }
        }
    });
    let mut part = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut part).await {
        if sender.send((Instant::now(), part[..read].to_vec())).await.is_err() {
            return;
        }
    }
}
