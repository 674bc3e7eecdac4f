//! The simulated gateway: behaves as a G-SDK device gateway, with faults on demand.
//!
//! May not use anything of the bridge: it shares only `proto` and `net`'s sockets, and is built
//! from the wire's facts, so that it cannot share the bridge's mistakes. A library for tests, and
//! `gsdk2mqtt simulate` for people.
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

mod befall;
mod building;
mod certs;
mod control;
mod fault;
mod gateway;
mod http;
mod hub;
mod master;
mod queue;
mod scenario;
mod settings;
mod storm;
mod timeline;
mod token;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;

pub use building::{DEVICE_PORT, Device, Mode, address_of, kind_name, kind_of_name, mixed_devices};
pub use certs::{Authority, CertificateError, CertificateKind, Identity, Keys};
pub use control::{Control, Outcome};
pub use fault::{AllWord, Devices, Fault, GrpcCode, StatusCode};
pub use gateway::Timing;
pub use master::MasterSettings;
pub use queue::SubscriptionReport;
pub use scenario::{Group, Scenario, ScenarioError, Step};
pub use settings::{DEVICES_COUNT, Settings};
pub use storm::{NothingManaged, Pattern, Storm, StormReport};
pub use wire::front::{CallFault, Packages};
pub use wire::listen::TlsError;

use crate::net;
use crate::proto::connect::connect_server::ConnectServer;
use crate::proto::connect_master::connect_master_server::ConnectMasterServer;
use crate::proto::gateway::gateway_server::GatewayServer;
use crate::proto::login::login_server::LoginServer;
use gateway::{Gateway, Rules};
use hub::Hub;
use master::Master;
use wire::MESSAGE_SIZE_MAX;
use wire::access::{GatewayService, LoginService};
use wire::connect::ConnectService;
use wire::front::{Front, FrontLayer};
use wire::listen::{Listener, tls};
use wire::master::ConnectMasterService;
use wire::valve::Valves;

/// How long clients may take to close after their streams have ended.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// How often it is looked whether they have.
const STOP_POLL: Duration = Duration::from_millis(5);

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
    /// The control API has no password and may be on loopback only.
    #[error("the control API may listen on loopback only, not on {0}")]
    ControlAddress(SocketAddr),
}

/// A running simulated gateway. Dropping it ends it at once.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    ca_pem: String,
    clients: Option<Clients>,
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
    /// When its certificates cannot be made or kept, or its port cannot be had.
    pub async fn start(settings: Settings) -> Result<Self, SimulatorError> {
        let authority = match &settings.certificates_dir {
            Some(folder) => Authority::kept_in(folder, "G-SDK gateway root", settings.keys)?,
            None => Authority::new("G-SDK gateway root", settings.keys)?,
        };
        let identity = authority.server(settings.certificate, &settings.named_addresses())?;
        let clients = Clients::new(&authority, &settings)?;
        let client_root = clients.as_ref().map(|_| authority.root_pem());
        let acceptor = tls(&identity, client_root)?;
        let failed = |address| move |source| SimulatorError::Listen { address, source };
        let socket = net::listen(settings.listen).map_err(failed(settings.listen))?;
        let address = socket.local_addr().map_err(failed(settings.listen))?;
        let api = match settings.control {
            Some(asked) if !http::may_listen(asked) => {
                return Err(SimulatorError::ControlAddress(asked));
            }
            Some(asked) => Some(net::bind(asked).map_err(failed(asked))?),
            None => None,
        };

        let hub = Self::hub(&settings);
        let front = Front::new(settings.packages, settings.lazy_headers);
        let valves = Arc::new(Valves::default());
        let (up, is_up) = watch::channel(true);
        let (listener, yielded) = Listener::new(address, acceptor, valves.clone(), is_up);
        let master = settings.master.as_ref().map(|kept| Master::new(hub.clone(), kept));
        let routes = routes(&hub, master.as_ref(), &front, settings.gateway_address);
        let server = Server::builder().layer(FrontLayer(front.clone())).add_routes(routes);
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
        let control = Control::new(hub, master, front, valves, up, yielded.is_listening);
        let control_address = api.as_ref().and_then(|socket| socket.local_addr().ok());
        if let Some(socket) = api {
            tasks.spawn(http::serve(control.clone(), socket));
        }
        for step in settings.steps.iter().filter(|step| !step.fault.is_of_devices()) {
            tasks.spawn(timeline::play(control.clone(), step.clone()));
        }
        let ca_pem = authority.root_pem().to_owned();
        let stop = Some(stop);
        Ok(Self { address, ca_pem, clients, control, control_address, stop, tasks })
    }

    fn hub(settings: &Settings) -> Arc<Hub> {
        let rules = Rules { timing: settings.timing.clone(), tells_tries: settings.tells_tries };
        let hub = Hub::new(settings.seed, |clock| {
            let alone = [("gateway".to_owned(), settings.devices.clone())];
            let gateways = settings.master.as_ref().map_or(&alone[..], |one| &one.gateways);
            let one = |(number, (id, devices)): (usize, &(String, Vec<Device>))| {
                let seed = settings.seed.wrapping_add(number as u64);
                Gateway::new(id.as_str(), rules.clone(), devices.clone(), clock, seed)
            };
            gateways.iter().enumerate().map(one).collect()
        });
        if settings.managed {
            hub.with_all(Gateway::manage_all);
        }
        timeline::plan(&hub, &settings.steps, settings.seed);
        hub
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the control API listens, if it does.
    #[must_use]
    pub const fn control_address(&self) -> Option<SocketAddr> {
        self.control_address
    }

    /// The root certificate that clients have to trust, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// With a master: the client certificate of its tenant, for the connection and for `Login`.
    #[must_use]
    pub fn tenant(&self) -> Option<&Identity> {
        self.clients.as_ref().map(|clients| &clients.tenant)
    }

    /// With a master: the client certificate of its administrator, for `LoginAdmin`.
    #[must_use]
    pub fn administrator(&self) -> Option<&Identity> {
        self.clients.as_ref().map(|clients| &clients.administrator)
    }

    /// The handle for faults and for looking inside; clone it freely.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Ends it: streams end with UNAVAILABLE, then connections and port close. Clients have
    /// `STOP_TIMEOUT` to take notice; a frozen gateway's never do.
    pub async fn stop(mut self) {
        self.control.end_streams(tonic::Code::Unavailable);
        drop(self.stop.take());
        let closed = async {
            while self.control.connections_count() > 0 {
                tokio::time::sleep(STOP_POLL).await;
            }
        };
        // Out of time: what is still open is cut.
        let _ = tokio::time::timeout(STOP_TIMEOUT, closed).await;
        self.control.cut_connections();
        self.tasks.shutdown().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // Connections have tasks of their own, which would outlive the others.
        self.control.cut_connections();
    }
}

/// The client certificates of a master gateway.
#[derive(Debug)]
struct Clients {
    tenant: Identity,
    administrator: Identity,
}

impl Clients {
    /// Those of a master, also kept as `tenant.crt`, `tenant.key`, `administrator.crt` and
    /// `administrator.key` beside the root; `None` for a device gateway, which asks for none.
    fn new(authority: &Authority, settings: &Settings) -> Result<Option<Self>, CertificateError> {
        let Some(master) = &settings.master else { return Ok(None) };
        let tenant = authority.tenant(&master.tenant)?;
        let administrator = authority.tenant(master::ADMINISTRATOR)?;
        if let Some(folder) = &settings.certificates_dir {
            tenant.keep(folder, "tenant")?;
            administrator.keep(folder, "administrator")?;
        }
        Ok(Some(Self { tenant, administrator }))
    }
}

/// The services of a device gateway, or of a master.
fn routes(
    hub: &Arc<Hub>,
    master: Option<&Arc<Master>>,
    front: &Arc<Front>,
    address: Ipv4Addr,
) -> Routes {
    let (hub, front) = (hub.clone(), front.clone());
    let Some(master) = master.cloned() else {
        let service = ConnectService { hub, place: 0, front, address };
        let service = ConnectServer::new(service)
            .max_decoding_message_size(MESSAGE_SIZE_MAX)
            .max_encoding_message_size(usize::MAX);
        return Routes::new(service);
    };
    let login = LoginServer::new(LoginService(master.clone()));
    let gateway = GatewayService { master: master.clone(), front: front.clone() };
    let connect = ConnectMasterService { hub, master, front, address };
    let connect = ConnectMasterServer::new(connect)
        .max_decoding_message_size(MESSAGE_SIZE_MAX)
        .max_encoding_message_size(usize::MAX);
    Routes::new(login).add_service(GatewayServer::new(gateway)).add_service(connect)
}

#[cfg(test)]
mod tests;
