//! `gsdk2mqtt simulate`: a simulated gateway as its own process.

use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Error};
use clap::Args;

use super::WrongUsage;
use crate::simulator::{
    CertificateKind, DEVICES_COUNT, DialMode, MasterSettings, Packages, Scenario, ScenarioError,
    Simulator, SimulatorSettings, Strictness, kind_name, mixed_devices,
};

/// A simulated G-SDK device gateway: real TLS, every call of the Connect API, devices that connect
/// and disconnect, and faults on demand.
///
/// Without a scenario its subnet has devices of mixed types. The gateway dials most of them; some
/// use SSL, some dial the gateway. None is managed until a client requests it, as with a real
/// gateway after its start.
#[derive(Args, Clone, Debug)]
pub(crate) struct SimulateArgs {
    /// The address to listen on; port 0 selects a free one. Default: 127.0.0.1:4000, for a master
    /// 127.0.0.1:4010.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Simulate a master gateway with this number of device gateways (gateway1, ...), each with
    /// --devices devices: mutual TLS, login and tokens. Client certificates are next to ca.crt.
    #[arg(long, value_name = "N", conflicts_with = "scenario",
        value_parser = clap::value_parser!(u8).range(1..=100))]
    pub gateways: Option<u8>,
    /// Lifetime of a master's token in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub token_lifetime: u32,
    /// The number of devices in a gateway's subnet.
    #[arg(long, default_value_t = DEVICES_COUNT, value_name = "N")]
    pub devices: usize,
    /// The devices of a site and planned faults: `office`, `hospital`, `flapping`, or a TOML
    /// file (docs/simulator.md). Replaces --devices.
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "devices")]
    pub scenario: Option<String>,
    /// The address of the control API for faults (HTTP and JSON, loopback only); without it the
    /// API is disabled.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub control: Option<SocketAddr>,
    /// Folder for ca.crt, the root that clients have to trust, and ca.key. A later start with the
    /// same folder uses the same root.
    #[arg(long, default_value = "simulator-certs", value_name = "DIR")]
    pub certs: PathBuf,
    /// The content of the server certificate; the invalid ones are for tests of your client.
    #[arg(long, value_enum, default_value = "both", value_name = "KIND", ignore_case = true)]
    pub certificate: CertificateKind,
    /// A further address for the server certificate. May be given several times.
    #[arg(long, value_name = "ADDRESS")]
    pub san: Vec<IpAddr>,
    /// Manage all devices from the start: devices to dial are registered as asynchronous, devices
    /// that dial the gateway are accepted.
    #[arg(long)]
    pub manage: bool,
    /// The package names that are served: `gsdk` as V1.5 and later, `bare` as V1.4 and earlier.
    #[arg(long, value_enum, default_value = "both", value_name = "AGE", ignore_case = true)]
    pub packages: Packages,
    /// Be more lenient than a real gateway: response headers of streams at once, several messages
    /// in one DATA frame, any number of HTTP/2 pings, sorted lists, searches that find everything.
    #[arg(long)]
    pub lenient: bool,
    /// The largest request that is read, in bytes: the gateway's setting `max_recv_size`.
    #[arg(long, value_name = "BYTES", default_value_t = Strictness::REAL.max_recv_size)]
    pub max_recv_size: usize,
    /// Seconds from losing an asynchronous connection to the next try.
    #[arg(long, value_name = "SECONDS")]
    pub reconnect_interval: Option<f64>,
    /// Seconds between two tries of a device that dials the gateway.
    #[arg(long, value_name = "SECONDS")]
    pub dial_interval: Option<f64>,
    /// Maximum seconds until a device that does not respond is detected.
    #[arg(long, value_name = "SECONDS")]
    pub keep_alive: Option<f64>,
    /// The seed of all random choices [default: the scenario's, else 1].
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
}

/// Seconds as milliseconds; what is negative or no number is 0.
fn millis(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds)
        .map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

impl SimulateArgs {
    fn settings(&self) -> Result<SimulatorSettings, ScenarioError> {
        let base = SimulatorSettings {
            certificates_dir: Some(self.certs.clone()),
            certificate: self.certificate,
            certificate_addresses: self.san.clone(),
            packages: self.packages,
            strictness: Strictness {
                max_recv_size: self.max_recv_size,
                ..if self.lenient { Strictness::LENIENT } else { Strictness::REAL }
            },
            control: self.control,
            seed: 1,
            ..SimulatorSettings::default()
        };
        let mut settings = match &self.scenario {
            Some(name) => Scenario::load(name)?.settings(base),
            None => SimulatorSettings { devices: mixed_devices(0, 0, self.devices), ..base },
        };
        if let Some(count) = self.gateways.map(usize::from) {
            let devices = |number| mixed_devices(number, number * self.devices, self.devices);
            settings.master = Some(MasterSettings::numbered(count, devices));
        }
        if let Some(master) = &mut settings.master {
            master.token_lifetime = Duration::from_secs(self.token_lifetime.into());
        }
        let port = if settings.master.is_some() { 4010 } else { 4000 };
        settings.listen = self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)));
        settings.managed |= self.manage;
        settings.seed = self.seed.unwrap_or(settings.seed);
        let timing = &mut settings.timing;
        if self.lenient {
            (timing.search_min_ms, timing.search_max_ms) = (0, 0);
        }
        for (given, place) in [
            (self.reconnect_interval, &mut timing.reconnect_interval_ms),
            (self.dial_interval, &mut timing.dial_interval_ms),
            (self.keep_alive, &mut timing.keep_alive_ms),
        ] {
            *place = given.map_or(*place, millis);
        }
        Ok(settings)
    }
}

/// Runs a simulated gateway until `shutdown` is done.
///
/// # Errors
///
/// When there is no such scenario, certificates cannot be written or the port cannot be opened.
pub(crate) async fn run(args: SimulateArgs, shutdown: impl Future) -> anyhow::Result<()> {
    let settings =
        args.settings().map_err(|error| WrongUsage(format!("{:#}", Error::from(error))))?;
    let simulator =
        Simulator::start(settings).await.context("cannot start the simulated gateway")?;
    // The gateway runs even if its output cannot be written.
    _ = announce(&args, &simulator, &mut io::stdout());
    shutdown.await;
    simulator.stop().await;
    Ok(())
}

fn announce(args: &SimulateArgs, simulator: &Simulator, out: &mut impl Write) -> io::Result<()> {
    let ca = args.certs.join("ca.crt");
    let address = simulator.address();
    writeln!(out, "simulated G-SDK gateway on {address} (gRPC over TLS 1.2)")?;
    writeln!(out, "root certificate: {}", ca.display())?;
    let devices = simulator.control().devices();
    if simulator.tenant().is_some() {
        let tenant = args.certs.join("tenant.crt");
        writeln!(out, "a master gateway; client certificate for Login: {}", tenant.display())?;
        writeln!(out, "its key is beside it")?;
    }
    writeln!(out, "{} devices in its subnet; the first few:", devices.len())?;
    for device in devices.iter().take(5) {
        writeln!(
            out,
            "  {} {} {}:{}{}{}",
            device.id,
            kind_name(device.kind),
            device.ip,
            device.port,
            if device.ssl { ", SSL" } else { "" },
            if device.mode == DialMode::DeviceToServer { ", dials in" } else { "" },
        )?;
    }
    if let Some(api) = simulator.control_address() {
        writeln!(out, "faults on demand: curl http://{api}/")?;
        writeln!(
            out,
            "  curl http://{api}/fault -d '{{\"do\":\"drop\",\"devices\":{{\"random\":3}}}}'"
        )?;
    }
    out.write_all(first_call(args, simulator).as_bytes())
}

/// A first call that works as printed, in a shell on this machine.
fn first_call(args: &SimulateArgs, simulator: &Simulator) -> String {
    let file = |name: &str| args.certs.join(name).display().to_string();
    let (ca, mut address) = (file("ca.crt"), simulator.address());
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    if simulator.tenant().is_some() {
        let (certificate, key) = (file("tenant.crt"), file("tenant.key"));
        let grpcurl = format!(
            "grpcurl -cacert {ca} -cert {certificate} -key {key} -import-path proto -proto"
        );
        return format!(
            "a first call, from a clone of the source (with grpcurl and jq); tenants and gateways \
             are fixed:\n  \
             TOKEN=$({grpcurl} gsdk/login.proto \\\n    \
             -d \"$(jq -Rs '{{tenantCert: .}}' {certificate})\" \\\n    \
             {address} gsdk.login.Login/Login | jq -r .jwtToken)\n  \
             {grpcurl} gsdk/gateway.proto \\\n    \
             -H \"token: $TOKEN\" {address} gsdk.gateway.Gateway/GetList\n"
        );
    }
    let own = format!("gsdk2mqtt ctl --address {address} --ca-file {ca} search --wait 2");
    if args.packages == Packages::Bare {
        return format!("a first call:\n  {own}\n");
    }
    format!(
        "a first call, without anything else or from a clone of the source with grpcurl:\n  \
         {own}\n  \
         grpcurl -cacert {ca} -import-path proto -proto gsdk/connect.proto \\\n    \
         -d '{{\"timeout\":2000}}' {address} gsdk.connect.Connect/SearchDevice\n"
    )
}
