//! A TCP proxy that can freeze (it forwards nothing and closes nothing) and cut connections.

use std::net::SocketAddr;

use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy in front of a server.
pub(super) struct Proxy {
    pub(super) address: String,
    frozen: watch::Sender<bool>,
    cuts: watch::Sender<u32>,
}

impl Proxy {
    pub(super) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (frozen, freeze) = watch::channel(false);
        let (cuts, cut) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (freeze, mut cut) = (freeze.clone(), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = cut.changed() => {}
                        () = carry(near, server, freeze) => {}
                    }
                });
            }
        });
        Self { address, frozen, cuts }
    }

    pub(super) fn freeze(&self, frozen: bool) {
        self.frozen.send(frozen).unwrap();
    }

    /// Cuts all connections; new ones are forwarded.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// Forwards bytes in both directions, while not frozen.
async fn carry(near: TcpStream, server: SocketAddr, mut frozen: watch::Receiver<bool>) {
    let Ok(far) = TcpStream::connect(server).await else { return };
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let up = copy(&mut near_read, &mut far_write);
    let down = copy(&mut far_read, &mut near_write);
    tokio::pin!(up, down);
    loop {
        if frozen.wait_for(|frozen| !*frozen).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            changed = frozen.changed() => if changed.is_err() { return },
            _ = &mut up => return,
            _ = &mut down => return,
        }
    }
}
