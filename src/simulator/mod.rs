//! A simulated G-SDK gateway or master gateway, with faults on demand: a library for tests, and
//! `gsdk2mqtt simulate`. It shares only `proto` and `net`'s sockets with the bridge and is built
//! from the G-SDK reference, so that it cannot share the bridge's mistakes.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use gsdk2mqtt::simulator::{Fault, Simulator, SimulatorSettings};
//!
//! let simulator = Simulator::start(SimulatorSettings::fast(20)).await?;
//! let control = simulator.control();
//! println!("dial {} and trust\n{}", simulator.address(), simulator.ca_pem());
//! let first = control.devices()[0].id;
//! control.apply_fault(&Fault::power(first, false));
//! simulator.stop().await;
//! # Ok(())
//! # }
//! ```

mod call;
mod certs;
mod control;
mod control_api;
mod device_services;
mod fault;
mod gate;
mod gateway;
mod interceptor;
mod listener;
mod master;
mod master_services;
mod messages;
mod parameters;
mod ping_guard;
mod queue;
mod scenario;
mod services;
mod settings;
mod site;
mod storm;
mod world;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;

pub use certs::{Authority, CertificateError, CertificateKind, Identity};
pub use control::{Control, FaultOutcome};
pub use fault::{Fault, ScenarioStep};
pub use gateway::GatewayTiming;
pub use interceptor::{Packages, Strictness};
pub use listener::TlsError;
pub use parameters::{AllWord, DeviceSelector, GrpcCode, Pattern, StatusCode, Storm};
pub use queue::SubscriptionReport;
pub use scenario::{Group, Scenario, ScenarioError};
pub use settings::{DEVICES_COUNT, MasterSettings, SimulatorSettings};
pub use site::{
    DEVICE_PORT, DialMode, SiteDevice, address_of, kind_name, kind_of_name, mixed_devices,
};
pub use storm::{NothingManaged, StormReport};

use crate::net;
use gate::ConnectionGates;
use gateway::{GatewayClock, Rules, SimulatedGateway};
use interceptor::Interceptor;
use listener::{Listener, READY_MAX, ReadyConnection, tls};
use master::SimulatedMaster;
use services::Services;
use world::World;

/// The time that clients have to close after their streams have ended.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
const STOP_POLL: Duration = Duration::from_millis(5);

/// Why a simulated gateway could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    #[error("cannot make certificates")]
    Certificates(#[from] CertificateError),
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the control API may listen on loopback only, not on {0}")]
    ControlAddress(SocketAddr),
}

/// A running simulated gateway. Dropping it stops it at once.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    ca_pem: String,
    tenant: Option<Identity>,
    control: Control,
    control_address: Option<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

impl Simulator {
    /// Starts a gateway; it is listening when this returns.
    ///
    /// # Errors
    ///
    /// When its certificates cannot be made or written, or its port cannot be opened.
    pub async fn start(settings: SimulatorSettings) -> Result<Self, SimulatorError> {
        let authority = match &settings.certificates_dir {
            Some(folder) => Authority::load_or_create(folder, "G-SDK gateway root")?,
            None => Authority::new("G-SDK gateway root")?,
        };
        let identity = authority.server(settings.certificate, &settings.certificate_ips())?;
        let tenant = tenant(&authority, &settings)?;
        let client_root = tenant.as_ref().map(|_| authority.root_pem());
        let (socket, api) = listen(&settings)?;
        let address = socket.local_addr().map_err(cannot_listen(settings.listen))?;
        let control_address = api.as_ref().and_then(|socket| socket.local_addr().ok());

        let world = world(&settings);
        let interceptor = Interceptor::new(settings.packages, settings.strictness);
        let gates = Arc::new(ConnectionGates::default());
        let (port_wanted, wanted) = watch::channel(true);
        let (is_open, port_is_open) = watch::channel(true);
        let (ready, connections) = mpsc::channel(READY_MAX);
        let listener = Listener {
            address,
            tls: tls(&identity, client_root)?,
            gates: gates.clone(),
            port_wanted: wanted,
            port_is_open: is_open,
            enforces_pings: settings.strictness.enforces_pings,
            ready,
        };
        let master = settings.master.as_ref().map(|one| SimulatedMaster::new(world.clone(), one));
        let services = Services {
            world: world.clone(),
            master: master.clone(),
            interceptor: interceptor.clone(),
            order: Mutex::new(fastrand::Rng::with_seed(settings.seed)),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let control = Control { world, master, interceptor, gates, port_wanted, port_is_open };

        let mut tasks = JoinSet::new();
        tasks.spawn(listener.run(socket));
        tasks.spawn(serve(services, connections, stopped));
        tasks.spawn(control.clone().run());
        if let Some(socket) = api {
            tasks.spawn(control_api::serve(control.clone(), socket));
        }
        let ca_pem = authority.root_pem().to_owned();
        let stop = Some(stop);
        Ok(Self { address, ca_pem, tenant, control, control_address, stop, tasks })
    }

    /// The address it listens on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address the control API listens on, if it does.
    pub const fn control_address(&self) -> Option<SocketAddr> {
        self.control_address
    }

    /// The root certificate that clients have to trust, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// With a master: the client certificate of its tenant, for the connection and for `Login`.
    pub const fn tenant(&self) -> Option<&Identity> {
        self.tenant.as_ref()
    }

    /// The handle for faults and state.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Stops it: streams end with UNAVAILABLE, then connections and port close. Clients have
    /// `STOP_TIMEOUT` to close; those of a frozen gateway do not notice.
    pub async fn stop(mut self) {
        self.control.end_streams(tonic::Code::Unavailable);
        drop(self.stop.take());
        let closed = async {
            while self.control.connections_count() > 0 {
                tokio::time::sleep(STOP_POLL).await;
            }
        };
        // After the timeout, what is still open is cut.
        let _ = tokio::time::timeout(STOP_TIMEOUT, closed).await;
        self.control.gates.cut();
        self.tasks.shutdown().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // The tasks of the connections are not in `tasks`.
        self.control.gates.cut();
    }
}

/// The client certificate of a master's tenant, written to `tenant.crt` and `tenant.key` in the
/// folder of the root; `None` for a device gateway.
fn tenant(
    authority: &Authority,
    settings: &SimulatorSettings,
) -> Result<Option<Identity>, CertificateError> {
    if settings.master.is_none() {
        return Ok(None);
    }
    let tenant = authority.tenant(master::TENANT)?;
    if let Some(folder) = &settings.certificates_dir {
        tenant.write(folder, "tenant")?;
    }
    Ok(Some(tenant))
}

/// Opens the gateway's port, and that of the control API if there is one.
fn listen(
    settings: &SimulatorSettings,
) -> Result<(net::TcpListener, Option<tokio::net::TcpListener>), SimulatorError> {
    let socket = net::listen(settings.listen).map_err(cannot_listen(settings.listen))?;
    let api = match settings.control {
        Some(address) if !address.ip().is_loopback() => {
            return Err(SimulatorError::ControlAddress(address));
        }
        Some(address) => Some(net::bind(address).map_err(cannot_listen(address))?),
        None => None,
    };
    Ok((socket, api))
}

fn cannot_listen(address: SocketAddr) -> impl FnOnce(std::io::Error) -> SimulatorError {
    move |source| SimulatorError::Listen { address, source }
}

/// Serves the connections until the simulator stops.
async fn serve(
    services: Services,
    connections: mpsc::Receiver<ReadyConnection>,
    stopped: oneshot::Receiver<()>,
) {
    let routes = axum::Router::new().fallback(services::serve).with_state(Arc::new(services));
    let server = Server::builder()
        .http2_max_header_list_size(services::HEADERS_MAX)
        .add_routes(Routes::from(routes));
    let connections = ReceiverStream::new(connections);
    let stopped = async { drop(stopped.await) };
    if let Err(error) = server.serve_with_incoming_shutdown(connections, stopped).await {
        tracing::warn!(%error, "simulated gateway failed");
    }
}

fn world(settings: &SimulatorSettings) -> Arc<World> {
    // A gateway of V1.4 does not have that status.
    let reports_tries = settings.reports_tries && settings.packages != Packages::Bare;
    let rules = Rules { timing: settings.timing.clone(), reports_tries };
    let clock = GatewayClock { start_unix_ms: net::wall_time().millis(), skew_ms: 0 };
    let single = [("gateway".to_owned(), settings.devices.clone())];
    let gateways = settings.master.as_ref().map_or(&single[..], |one| &one.gateways);
    let gateway = |(number, (id, devices)): (usize, &(String, Vec<SiteDevice>))| {
        let seed = settings.seed.wrapping_add(number as u64);
        SimulatedGateway::new(id, rules.clone(), devices.clone(), clock, seed)
    };
    let gateways = gateways.iter().enumerate().map(gateway).collect();
    let world = World::new(settings.seed, gateways);
    if settings.managed {
        world.with_all(SimulatedGateway::manage_all);
    }
    world.plan(&settings.steps, settings.seed);
    world
}

#[cfg(test)]
mod tests;
