//! The settings with which a simulated gateway is started.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::certs::CertificateKind;
use super::fault::ScenarioStep;
use super::gateway::GatewayTiming;
use super::interceptor::{Packages, Strictness};
use super::site::{SiteDevice, mixed_devices};

/// The default number of devices.
pub const DEVICES_COUNT: usize = 20;

/// The settings of a simulated gateway. The default is a gateway on a free loopback port with
/// twenty devices in its subnet, none of them managed.
#[derive(Clone, Debug)]
pub struct SimulatorSettings {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The folder of `ca.crt` and `ca.key`, which are used if they exist and written if not;
    /// `None` makes a new root in memory.
    pub certificates_dir: Option<PathBuf>,
    pub certificate: CertificateKind,
    /// Further addresses for the certificate's SAN, besides the one listened on and 127.0.0.1.
    pub certificate_addresses: Vec<IpAddr>,
    /// The devices of its subnet.
    pub devices: Vec<SiteDevice>,
    /// Whether all devices are managed from the start, as after requests of a client.
    pub managed: bool,
    /// How long things take.
    pub timing: GatewayTiming,
    /// Whether it reports `TRY_TO_CONNECT`, as newer gateways do.
    pub reports_tries: bool,
    /// Which package names it serves.
    pub packages: Packages,
    pub strictness: Strictness,
    /// For every random choice.
    pub seed: u64,
    /// Makes it a master gateway: mutual TLS, login, and these device gateways instead of
    /// `devices`.
    pub master: Option<MasterSettings>,
    /// Faults to come.
    pub steps: Vec<ScenarioStep>,
    /// The loopback address of the control API; `None` for no control API.
    pub control: Option<SocketAddr>,
}

impl Default for SimulatorSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            certificates_dir: None,
            certificate: CertificateKind::Both,
            certificate_addresses: Vec::new(),
            devices: mixed_devices(0, 0, DEVICES_COUNT),
            managed: false,
            timing: GatewayTiming::default(),
            reports_tries: true,
            packages: Packages::Both,
            strictness: Strictness::REAL,
            seed: 1,
            master: None,
            steps: Vec::new(),
            control: None,
        }
    }
}

impl SimulatorSettings {
    /// For tests: `count` mixed devices, all managed, short delays, and a lenient gateway.
    pub fn fast(count: usize) -> Self {
        Self {
            devices: mixed_devices(0, 0, count),
            managed: true,
            timing: GatewayTiming::fast(),
            strictness: Strictness::LENIENT,
            ..Self::default()
        }
    }

    /// The addresses in the certificate.
    pub(crate) fn certificate_ips(&self) -> Vec<IpAddr> {
        let mut addresses = vec![IpAddr::from([127, 0, 0, 1])];
        if !self.listen.ip().is_unspecified() {
            addresses.push(self.listen.ip());
        }
        addresses.extend(&self.certificate_addresses);
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

/// The settings of a simulated master gateway.
#[derive(Clone, Debug)]
pub struct MasterSettings {
    /// The device gateways: IDs, and the devices in their subnets. IDs of devices are unique in
    /// the whole simulation.
    pub gateways: Vec<(String, Vec<SiteDevice>)>,
    pub token_lifetime: Duration,
    /// Whether a `...DB` call also changes a device gateway that is connected.
    pub stored_is_applied: bool,
}

impl MasterSettings {
    /// Device gateways with the IDs `gateway1`, `gateway2` and so on, with the devices of each
    /// number from 0.
    pub fn numbered(count: usize, devices: impl Fn(usize) -> Vec<SiteDevice>) -> Self {
        let gateway = |number| (format!("gateway{}", number + 1), devices(number));
        Self { gateways: (0..count).map(gateway).collect(), ..Self::default() }
    }
}

impl Default for MasterSettings {
    fn default() -> Self {
        let token_lifetime = Duration::from_secs(60 * 60);
        Self { gateways: Vec::new(), token_lifetime, stored_is_applied: true }
    }
}
