//! A TCP proxy in front of a broker that refuses, delays, or withholds acknowledgements.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The behaviour of the proxy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mode {
    /// Ends every connection, and accepts no other.
    pub(crate) refuses: bool,
    /// Discards the broker's PUBACKs.
    pub(crate) withholds_acks: bool,
    /// Delays each packet of the broker by this time on average, one after the other.
    pub(crate) delay: Duration,
}

/// A proxy on its own port.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    /// Starts one in front of the broker on this port.
    pub(crate) async fn before(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, modes) = watch::channel(Mode::default());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let mut modes = modes.clone();
                if modes.borrow().refuses {
                    continue;
                }
                tokio::spawn(async move {
                    let mut cut = modes.clone();
                    tokio::select! {
                        _ = cut.wait_for(|mode| mode.refuses) => {}
                        // Its end is the end of the connection.
                        _ = carry(near, broker, &mut modes) => {}
                    }
                });
            }
        });
        Self { port, mode }
    }

    /// From now on in this mode.
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Cuts every connection; new ones are forwarded.
    pub(crate) async fn cut(&self) {
        let before = *self.mode.borrow();
        self.set_mode(Mode { refuses: true, ..before });
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.set_mode(before);
    }
}

async fn carry(near: TcpStream, broker: u16, mode: &mut watch::Receiver<Mode>) -> io::Result<()> {
    let far = TcpStream::connect(("127.0.0.1", broker)).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (mut near_read, near_write) = near.into_split();
    let (far_read, mut far_write) = far.into_split();
    tokio::select! {
        done = copy(&mut near_read, &mut far_write) => done.map(drop),
        done = packets(far_read, near_write, mode) => done,
    }
}

/// Forwards the broker's packets one by one.
async fn packets(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mode: &mut watch::Receiver<Mode>,
) -> io::Result<()> {
    const PUBACK: u8 = 0x40;
    let mut from = tokio::io::BufReader::new(from);
    let mut owed = Duration::ZERO;
    loop {
        let mut packet = vec![from.read_u8().await?];
        let (mut len, mut shift) = (0_usize, 0);
        loop {
            let byte = from.read_u8().await?;
            packet.push(byte);
            len |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let head = packet.len();
        packet.resize(head + len, 0);
        from.read_exact(&mut packet[head..]).await?;
        let Mode { withholds_acks, delay, .. } = *mode.borrow();
        // A timer has a resolution of milliseconds: shorter delays are accumulated.
        owed += delay;
        if owed >= Duration::from_millis(2) {
            tokio::time::sleep(std::mem::take(&mut owed)).await;
        }
        if !(withholds_acks && packet[0] & 0xf0 == PUBACK) {
            to.write_all(&packet).await?;
        }
    }
}
