//! The simulated gateway: behaves as a G-SDK device gateway, with faults on demand.
//!
//! May share only `proto` with the bridge: it is built from the wire's facts, so that it cannot
//! share the bridge's mistakes. A library for tests, and `gsdk2mqtt simulate` for people.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use gsdk2mqtt::simulator::{Settings, Simulator};
//!
//! let simulator = Simulator::start(Settings::fast(20)).await?;
//! let control = simulator.control();
//! println!("dial {} and trust\n{}", simulator.address(), simulator.ca_pem());
//! let first = control.building()[0].id;
//! control.power(first, false);
//! simulator.stop().await;
//! # Ok(())
//! # }
//! ```

mod building;
mod certs;
mod control;
mod gateway;
mod hub;
mod queue;
mod settings;
mod storm;
mod wire;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

pub use building::{DEVICE_PORT, Device, Mode, address_of, kind_name, kind_of_name, mixed_devices};
pub use certs::{Authority, CertificateError, CertificateKind, Identity};
pub use control::Control;
pub use gateway::Timing;
pub use queue::SubscriptionReport;
pub use settings::{DEVICES_COUNT, Settings};
pub use storm::{NothingManaged, Pattern, Storm, StormReport};
pub use wire::front::{CallFault, Packages};
pub use wire::listen::TlsError;

use crate::proto::connect::connect_server::ConnectServer;
use gateway::{Gateway, Rules};
use hub::Hub;
use wire::MESSAGE_SIZE_MAX;
use wire::connect::ConnectService;
use wire::front::{Front, FrontLayer};
use wire::listen::{Listener, bind, tls};
use wire::valve::Valves;

/// Why a simulated gateway could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// Its certificates could not be made.
    #[error("cannot make certificates")]
    Certificates(#[from] CertificateError),
    /// TLS could not be set up with them.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// Its port could not be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A running simulated gateway. Dropping it ends it at once.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    ca_pem: String,
    control: Control,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

impl Simulator {
    /// Starts a gateway; it is listening when this returns.
    ///
    /// # Errors
    ///
    /// When its certificates cannot be made or kept, or its port cannot be had.
    pub async fn start(settings: Settings) -> Result<Self, SimulatorError> {
        let authority = match &settings.certificates_dir {
            Some(folder) => Authority::kept_in(folder, "G-SDK gateway root")?,
            None => Authority::new("G-SDK gateway root")?,
        };
        let identity = authority.server(settings.certificate, &settings.named_addresses())?;
        let acceptor = tls(&identity, None)?;
        let failed = |source| SimulatorError::Listen { address: settings.listen, source };
        let socket = bind(settings.listen).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;

        let hub = Self::hub(&settings);
        let front = Front::new(settings.packages, settings.lazy_headers);
        let valves = Arc::new(Valves::default());
        let (up, is_up) = watch::channel(true);
        let (listener, yielded) = Listener::new(address, acceptor, valves.clone(), is_up);
        let service = ConnectService {
            hub: hub.clone(),
            place: 0,
            front: front.clone(),
            address: settings.gateway_address,
        };
        let service = ConnectServer::new(service)
            .max_decoding_message_size(MESSAGE_SIZE_MAX)
            .max_encoding_message_size(usize::MAX);
        let server = Server::builder().layer(FrontLayer(front.clone())).add_service(service);
        let (stop, stopped) = oneshot::channel::<()>();

        let mut tasks = JoinSet::new();
        tasks.spawn(hub.clone().drive());
        tasks.spawn(listener.run(socket));
        tasks.spawn(async move {
            let connections = ReceiverStream::new(yielded.connections);
            let stopped = async { drop(stopped.await) };
            if let Err(error) = server.serve_with_incoming_shutdown(connections, stopped).await {
                tracing::warn!(%error, "simulated gateway ended");
            }
        });
        let control = Control::new(hub, front, valves, up, yielded.is_listening);
        Ok(Self {
            address,
            ca_pem: authority.root_pem().to_owned(),
            control,
            stop: Some(stop),
            tasks,
        })
    }

    fn hub(settings: &Settings) -> Arc<Hub> {
        let rules = Rules { timing: settings.timing.clone(), tells_tries: settings.tells_tries };
        let hub = Hub::new(|clock| {
            let devices = settings.devices.clone();
            vec![Gateway::new("gateway", rules, devices, clock, settings.seed)]
        });
        if settings.managed {
            hub.with_all(Gateway::manage_all);
        }
        hub
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root certificate that clients have to trust, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The handle for faults and for looking inside; clone it freely.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Ends it: streams end with UNAVAILABLE, then connections and port close.
    pub async fn stop(mut self) {
        self.control.end_streams(tonic::Code::Unavailable);
        drop(self.stop.take());
        self.control.cut_connections();
        self.tasks.shutdown().await;
    }
}
