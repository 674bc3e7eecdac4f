//! A simulated master gateway, and a bridge's configuration for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gsdk2mqtt::gsdk::{
    GatewayClient, GatewayOptions, LinkTiming, MasterClient, QUEUE_SIZE_DEFAULT,
};
use gsdk2mqtt::ids::HostPort;
use gsdk2mqtt::net::{Peer, TlsFiles};
use gsdk2mqtt::simulator::{Fault, MasterSettings, Simulator, SimulatorSettings, mixed_devices};
use tempfile::TempDir;

use super::eventually;

/// A running master with device gateways, whose devices are all managed and connected.
pub(crate) struct Master {
    pub(crate) simulator: Simulator,
    /// The IDs of the devices of each gateway.
    pub(crate) devices: Vec<Vec<u32>>,
    certificates: TempDir,
}

impl Master {
    /// With these device gateways, each with this number of devices.
    pub(crate) async fn start(gateways: &[&str], devices: usize) -> Self {
        Self::start_with(gateways, devices, |settings| settings).await
    }

    pub(crate) async fn start_with(
        gateways: &[&str],
        devices: usize,
        change: impl FnOnce(SimulatorSettings) -> SimulatorSettings,
    ) -> Self {
        let master = Self::idle(gateways, devices, change).await;
        master.all_are_connected().await;
        master
    }

    /// The same, without waiting for the devices.
    pub(crate) async fn idle(
        gateways: &[&str],
        devices: usize,
        change: impl FnOnce(SimulatorSettings) -> SimulatorSettings,
    ) -> Self {
        let certificates = tempfile::tempdir().unwrap();
        let gateways: Vec<_> = gateways
            .iter()
            .enumerate()
            .map(|(at, id)| ((*id).to_owned(), mixed_devices(at, at * devices, devices)))
            .collect();
        let ids = |devices: &Vec<gsdk2mqtt::simulator::SiteDevice>| {
            devices.iter().map(|device| device.id).collect()
        };
        let ids = gateways.iter().map(|(_, devices)| ids(devices)).collect();
        let master = Some(MasterSettings { gateways, ..MasterSettings::default() });
        let certificates_dir = Some(certificates.path().to_owned());
        let settings = SimulatorSettings { master, certificates_dir, ..SimulatorSettings::fast(0) };
        let simulator = Simulator::start(change(settings)).await.unwrap();
        Self { simulator, devices: ids, certificates }
    }

    async fn all_are_connected(&self) {
        let count: usize = self.devices.iter().map(Vec::len).sum();
        eventually("every device is connected", || {
            let managed = self.simulator.control().managed();
            let connected = managed.iter().filter(|device| matches!(device.status, 1 | 2)).count();
            (connected == count).then_some(())
        })
        .await;
    }

    pub(crate) fn fault(&self, fault: &Fault) {
        assert!(self.simulator.control().apply_fault(fault) > 0, "{fault:?}");
    }

    /// Another client of this gateway, which is logged in.
    pub(crate) async fn client(&self, gateway: &str) -> GatewayClient {
        let file = |name| Some(self.file(name));
        let options = GatewayOptions {
            peer: Peer::Master("campus".parse().unwrap()),
            address: HostPort::parse(&self.simulator.address().to_string(), 0).unwrap(),
            files: TlsFiles {
                ca_file: file("ca.crt"),
                cert_file: file("tenant.crt"),
                key_file: file("tenant.key"),
            },
            server_name: None,
            queue_size: QUEUE_SIZE_DEFAULT,
            timing: LinkTiming::default(),
        };
        let master = MasterClient::dial(&options, Arc::new(|_: &_| {})).await.unwrap();
        GatewayClient::through(master, gateway.into())
    }

    /// Connects a device gateway to the master, or disconnects it.
    pub(crate) fn link(&self, gateway: &str, up: bool, forgets: bool) {
        self.fault(&Fault::GatewayLink { gateway: gateway.to_owned(), up, forgets });
    }

    /// Adds a device gateway to the tenant, or removes it.
    pub(crate) fn list(&self, gateway: &str, listed: bool) {
        self.fault(&Fault::GatewayListed { gateway: gateway.to_owned(), listed });
    }

    /// How often a method was called.
    pub(crate) fn calls(&self, method: &str) -> u64 {
        let calls = self.simulator.control().calls();
        let of = |(name, _): &(&String, &u64)| name.rsplit('/').next() == Some(method);
        calls.iter().filter(of).map(|(_, count)| count).sum()
    }

    /// A file of the master's certificates.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.certificates.path().join(name)
    }

    /// The folder of its certificates, with its authority.
    pub(crate) fn folder(&self) -> &Path {
        self.certificates.path()
    }

    /// The table of this master with its tenant's certificate.
    pub(crate) fn table(&self, name: &str, extra: &str) -> String {
        self.table_with(name, &self.file("tenant.crt"), &self.file("tenant.key"), extra)
    }

    /// The table of this master with another client certificate.
    pub(crate) fn table_with(
        &self,
        name: &str,
        certificate: &Path,
        key: &Path,
        extra: &str,
    ) -> String {
        let [ca, certificate, key] =
            [&self.file("ca.crt"), certificate, key].map(|path| path.display().to_string());
        format!(
            "[masters.{name}]\naddress = \"{}\"\nca_file = {ca:?}\ncert_file = {certificate:?}\n\
             key_file = {key:?}\n{extra}\n",
            self.simulator.address()
        )
    }
}

/// The table of a gateway behind a master, with `extra` keys.
pub(crate) fn behind(name: &str, master: &str, gateway_id: &str, extra: &str) -> String {
    format!("[gateways.{name}]\nmaster = \"{master}\"\ngateway_id = \"{gateway_id}\"\n{extra}\n")
}
