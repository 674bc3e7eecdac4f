//! The demo's MQTT broker: in memory, for MQTT 3.1.1 and 5, without login (decision record 6).

mod connection;
mod state;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use state::BrokerState;

/// The pause after a failed accept, as without file handles.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A running broker.
#[derive(Debug)]
pub(crate) struct DemoBroker {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl DemoBroker {
    /// Starts a broker; it listens when this returns.
    pub(crate) async fn start(listen: SocketAddr) -> anyhow::Result<Self> {
        let cannot = || format!("cannot listen for MQTT on {listen}");
        let listener = TcpListener::bind(listen).await.with_context(cannot)?;
        let address = listener.local_addr().with_context(cannot)?;
        Ok(Self { address, task: tokio::spawn(accept(listener)) })
    }

    /// The address that it listens on.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections.
    pub(crate) fn stop(self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener) {
    let state = Arc::<Mutex<BrokerState>>::default();
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let state = state.clone();
                connections.spawn(async move {
                    if let Err(error) = connection::serve(state, stream).await {
                        tracing::debug!(error, %peer, "the demo's broker closes a connection");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the demo's broker cannot accept a connection");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}
