//! The demo's MQTT broker: in memory, for MQTT 3.1.1 and 5, without login (decision record 6).

use std::net::SocketAddr;

use anyhow::Context;
use mqtt5::broker::config::{BrokerConfig, StorageBackend, StorageConfig};
use mqtt5::broker::{BrokerShutdownHandle, MqttBroker};

/// The largest packet that the broker accepts, announced to MQTT 5 clients. The crate's default is
/// 268,435,456, one more than the largest value that paho-mqtt accepts: it ends the connection.
const PACKET_SIZE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// A running broker.
pub(crate) struct DemoBroker {
    address: SocketAddr,
    shutdown: BrokerShutdownHandle,
}

impl std::fmt::Debug for DemoBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("address", &self.address).finish_non_exhaustive()
    }
}

impl DemoBroker {
    /// Starts a broker; it listens when this returns.
    pub(crate) async fn start(listen: SocketAddr) -> anyhow::Result<Self> {
        let storage =
            StorageConfig::new().with_backend(StorageBackend::Memory).with_persistence(true);
        let config = BrokerConfig::new()
            .with_bind_address(listen)
            .with_storage(storage)
            .with_max_packet_size(PACKET_SIZE_MAX_BYTES)
            .with_sys_topics_enabled(false);
        let cannot = || format!("cannot listen for MQTT on {listen}");
        let mut broker = MqttBroker::with_config(config).await.with_context(cannot)?;
        let address = broker.local_addr().with_context(cannot)?;
        let shutdown = broker.shutdown_handle();
        tokio::spawn(async move {
            if let Err(error) = broker.run().await {
                tracing::error!(%error, "the demo's broker failed");
            }
        });
        Ok(Self { address, shutdown })
    }

    /// The address that it listens on.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn stop(self) {
        self.shutdown.shutdown();
    }
}
