//! The demo: an MQTT broker, a simulated gateway and the bridge in one process, on loopback.
//!
//! The packaged service is built without this feature and without the broker.

mod broker;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::bridge::{self, broker_settings};
use crate::simulator::{Scenario, Simulator, SimulatorSettings, Strictness};
use crate::{config, http, mqtt};
use broker::DemoBroker;

/// The simulated site: eight doors, one of which loses its connection now and then.
const SITE: &str = include_str!("site.toml");

/// The doors' names, in the order of the site's devices.
const DOORS: [&str; 8] =
    ["Front door", "Back door", "Garage", "Lift", "Server room", "Warehouse", "Workshop", "Roof"];

/// The addresses that the demo listens on.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Listen {
    /// Address of the MQTT broker; port 0 takes a free port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub mqtt: SocketAddr,
    /// Address of the status page and of the metrics
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub http: SocketAddr,
    /// Address of the simulated gateway
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub gateway: SocketAddr,
}

/// A running demo.
#[derive(Debug)]
pub struct Demo {
    /// The addresses that it listens on.
    pub at: Listen,
    /// The configuration file of the bridge, in a temporary folder.
    pub config_file: PathBuf,
    /// The bridge's settings of its broker session.
    pub session: mqtt::SessionSettings,
    broker: DemoBroker,
    simulator: Simulator,
    bridge: JoinHandle<()>,
    stop_bridge: oneshot::Sender<()>,
    _dir: TempDir,
}

impl Demo {
    /// Starts broker, gateway and bridge; they listen when this returns.
    ///
    /// # Errors
    /// When an address is in use or the temporary folder cannot be written.
    pub async fn start(listen: Listen) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("gsdk2mqtt-demo-")
            .tempdir()
            .context("cannot create a temporary folder")?;
        let broker = DemoBroker::start(listen.mqtt).await?;
        let simulator = simulator(&dir, listen.gateway).await?;
        let http = http::listen(listen.http)
            .with_context(|| format!("cannot listen on {}", listen.http))?;
        let at = Listen {
            mqtt: broker.address(),
            http: http.local_addr()?,
            gateway: simulator.address(),
        };
        let config_file = dir.path().join("config.toml");
        let text = configuration(&dir, at, &simulator);
        std::fs::write(&config_file, &text)?;
        let loaded = config::from_toml(&config_file, &text)?;
        let session = broker_settings(&loaded.config);
        let listeners = http::Listeners { main: http, metrics: None };
        let bridge = bridge::start(&loaded.config, listeners, &Handle::current())?;
        let (stop_bridge, stopped) = oneshot::channel();
        // The bridge also stops when the sender is dropped.
        let bridge = tokio::spawn(bridge.run(async { _ = stopped.await }));
        Ok(Self { at, config_file, session, broker, simulator, bridge, stop_bridge, _dir: dir })
    }

    /// Stops the bridge cleanly, then the gateway and the broker.
    pub async fn stop(self) {
        // Fails where the bridge has stopped already.
        _ = self.stop_bridge.send(());
        _ = self.bridge.await;
        self.simulator.stop().await;
        self.broker.stop();
    }
}

async fn simulator(dir: &TempDir, listen: SocketAddr) -> anyhow::Result<Simulator> {
    let scenario = dir.path().join("site.toml");
    std::fs::write(&scenario, SITE)?;
    let base = SimulatorSettings {
        listen,
        certificates_dir: Some(dir.path().join("gateway")),
        strictness: Strictness::LENIENT,
        ..SimulatorSettings::default()
    };
    let settings = Scenario::load(&scenario.to_string_lossy())?.settings(base);
    Ok(Simulator::start(settings).await?)
}

fn configuration(dir: &TempDir, at: Listen, simulator: &Simulator) -> String {
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut text = format!(
        "state_dir = {:?}\n\n[mqtt]\nurl = \"mqtt://{}\"\n\n[http]\nlisten = \"{}\"\n\n\
         [home_assistant]\nenabled = true\n\n\
         [gateways.demo]\naddress = \"{}\"\nca_file = {:?}\n\n[gateways.demo.devices]\n",
        path("state"),
        at.mqtt,
        at.http,
        at.gateway,
        path("gateway/ca.crt"),
    );
    for (device, door) in simulator.control().devices().iter().zip(DOORS) {
        text += &format!("{} = {{ name = \"{door}\" }}\n", device.id);
    }
    text
}
