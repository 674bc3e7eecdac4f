//! `gsdk2mqtt simulate`: a simulated gateway as its own process.
//!
//! May not behave as a gateway by itself: it reads arguments, starts `simulator` and says where
//! it is.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::simulator::{
    CertificateKind, DEVICES_COUNT, Packages, Settings, Simulator, Timing, mixed_devices,
};

/// A simulated G-SDK device gateway: real TLS, every call of the Connect API, devices that come
/// and go, and faults on demand.
///
/// Without a scenario it has devices of mixed types in its subnet, most plain and to be dialled,
/// some with SSL, some dialling in by themselves; none is managed until a client asks, as with a
/// real gateway just started.
#[derive(Args, Clone, Debug)]
pub(super) struct SimulateArgs {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:4000", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// How many devices are in the gateway's subnet.
    #[arg(long, default_value_t = DEVICES_COUNT, value_name = "N")]
    pub devices: usize,
    /// Folder for ca.crt, the root that clients have to trust (and ca.key, so that a gateway
    /// started again is trusted as before).
    #[arg(long, default_value = "simulator-certs", value_name = "DIR")]
    pub certs: PathBuf,
    /// What is in the server certificate; the awkward ones are there to be met before the real
    /// gateway shows them.
    #[arg(long, value_enum, default_value = "both", value_name = "KIND")]
    pub certificate: CertificateKind,
    /// A further address for the server certificate. May be given several times.
    #[arg(long, value_name = "ADDRESS")]
    pub san: Vec<IpAddr>,
    /// Have all devices managed from the start: those to be dialled registered as asynchronous,
    /// those that dial let in.
    #[arg(long)]
    pub manage: bool,
    /// Which package names are served: `gsdk` as V1.5 and later, `bare` as V1.4 and earlier.
    #[arg(long, value_enum, default_value = "both", value_name = "AGE")]
    pub packages: Packages,
    /// Send a stream's response headers only with its first message, as gateways written with
    /// grpc-go do.
    #[arg(long)]
    pub lazy_headers: bool,
    /// Never tell TRY_TO_CONNECT, as older gateways.
    #[arg(long)]
    pub no_try_status: bool,
    /// Seconds from losing an asynchronous connection to the next try.
    #[arg(long, value_name = "SECONDS")]
    pub reconnect_interval: Option<f64>,
    /// Seconds between two tries of a device that dials in.
    #[arg(long, value_name = "SECONDS")]
    pub dial_interval: Option<f64>,
    /// Seconds until a dead device is noticed, at latest.
    #[arg(long, value_name = "SECONDS")]
    pub keep_alive: Option<f64>,
    /// Decides all that is left to chance.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub seed: u64,
}

/// Seconds as milliseconds; what is negative or no number is 0.
fn millis(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds)
        .map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

impl SimulateArgs {
    fn settings(&self) -> Settings {
        let defaults = Timing::default();
        let or = |given: Option<f64>, default| given.map_or(default, millis);
        let timing = Timing {
            reconnect_interval_ms: or(self.reconnect_interval, defaults.reconnect_interval_ms),
            dial_interval_ms: or(self.dial_interval, defaults.dial_interval_ms).max(1),
            keep_alive_ms: or(self.keep_alive, defaults.keep_alive_ms),
            ..defaults
        };
        Settings {
            listen: self.listen,
            certificates_dir: Some(self.certs.clone()),
            certificate: self.certificate,
            certificate_addresses: self.san.clone(),
            devices: mixed_devices(0, 0, self.devices),
            managed: self.manage,
            timing,
            tells_tries: !self.no_try_status,
            packages: self.packages,
            lazy_headers: self.lazy_headers,
            seed: self.seed,
            ..Settings::default()
        }
    }
}

/// Runs a simulated gateway until `shutdown` is done.
///
/// # Errors
///
/// When certificates cannot be kept or the port cannot be had.
pub(super) async fn run(args: SimulateArgs, shutdown: impl Future) -> anyhow::Result<()> {
    let simulator =
        Simulator::start(args.settings()).await.context("cannot start the simulated gateway")?;
    announce(&args, &simulator);
    shutdown.await;
    simulator.stop().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the subcommand's result is for stdout")]
fn announce(args: &SimulateArgs, simulator: &Simulator) {
    let ca = args.certs.join("ca.crt");
    let address = simulator.address();
    println!("simulated G-SDK gateway on {address} (gRPC over TLS 1.2)");
    println!("root certificate: {}", ca.display());
    let building = simulator.control().building();
    println!("{} devices in its subnet; the first few:", building.len());
    for device in building.iter().take(5) {
        println!(
            "  {} {} {}:{}{}{}",
            device.id,
            crate::simulator::kind_name(device.kind),
            device.ip,
            device.port,
            if device.ssl { ", SSL" } else { "" },
            if device.mode == crate::simulator::Mode::DeviceToServer { ", dials in" } else { "" },
        );
    }
    println!("a first call, from a clone of the source:");
    println!(
        "  grpcurl -cacert {} -import-path proto -proto gsdk/connect.proto \\\n    -d '{{\"timeout\":1000}}' {address} gsdk.connect.Connect/SearchDevice",
        ca.display()
    );
}
