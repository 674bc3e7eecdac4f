//! The demo's MQTT broker: in memory, on loopback, for MQTT 3.1.1 and 5.
//!
//! May not write to the disk, nor serve anyone but this machine: it lets everybody in.

use std::net::SocketAddr;

use anyhow::Context;
use mqtt5::broker::config::{BrokerConfig, StorageBackend, StorageConfig};
use mqtt5::broker::{BrokerShutdownHandle, MqttBroker};

/// A running broker.
pub(super) struct Broker {
    address: SocketAddr,
    shutdown: BrokerShutdownHandle,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Broker {
    /// Starts one; it is listening when this returns.
    pub(super) async fn start(listen: SocketAddr) -> anyhow::Result<Self> {
        let storage =
            StorageConfig::new().with_backend(StorageBackend::Memory).with_persistence(true);
        let config = BrokerConfig::new()
            .with_bind_address(listen)
            .with_storage(storage)
            .with_sys_topics_enabled(false);
        let cannot = || format!("cannot listen for MQTT on {listen}");
        let mut broker = MqttBroker::with_config(config).await.with_context(cannot)?;
        let address = broker.local_addr().with_context(cannot)?;
        let shutdown = broker.shutdown_handle();
        tokio::spawn(async move {
            if let Err(error) = broker.run().await {
                tracing::error!(%error, "the demo's broker has ended");
            }
        });
        Ok(Self { address, shutdown })
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn stop(self) {
        self.shutdown.shutdown();
    }
}
