//! The demo: an MQTT broker, a simulated gateway and the bridge in one process, on loopback.
//!
//! May not be needed by the service: a packager leaves it out with its feature, and the broker with
//! it. Nothing outlives it but what it printed.

mod broker;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::bridge::Bridge;
use crate::config;
use crate::http;
use crate::simulator::{Scenario, Settings, Simulator};
use broker::Broker;

/// The building: eight doors that come and go.
const SCENARIO: &str = include_str!("building.toml");

/// What its doors are called.
const DOORS: [&str; 8] =
    ["Front door", "Back door", "Lift", "Garage", "Server room", "Store", "Workshop", "Roof"];

/// Where the demo listens; port 0 is any free one.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    /// The broker.
    pub mqtt: SocketAddr,
    /// The web server.
    pub http: SocketAddr,
    /// The simulated gateway.
    pub gateway: SocketAddr,
}

/// A running demo.
#[derive(Debug)]
pub struct Demo {
    /// Where it listens.
    pub at: Listen,
    /// The configuration that the bridge runs with.
    pub config_file: PathBuf,
    broker: Broker,
    simulator: Simulator,
    bridge: JoinHandle<()>,
    stop_bridge: oneshot::Sender<()>,
    _dir: TempDir,
}

impl Demo {
    /// Starts all three; they listen when this returns.
    ///
    /// # Errors
    /// When a port cannot be had or the temporary folder cannot be written.
    pub async fn start(listen: Listen) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a temporary folder")?;
        let broker = Broker::start(listen.mqtt).await?;
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
        let bridge = Bridge::start(&loaded.config, http)?;
        let (stop_bridge, stopped) = oneshot::channel();
        // Dropping its other end is a stop as well.
        let bridge = tokio::spawn(bridge.run(async { _ = stopped.await }));
        Ok(Self { at, config_file, broker, simulator, bridge, stop_bridge, _dir: dir })
    }

    /// Stops the bridge in order, then the others.
    pub async fn stop(self) {
        // The bridge may have ended by itself, which its task's end tells as well.
        _ = self.stop_bridge.send(());
        _ = self.bridge.await;
        self.simulator.stop().await;
        self.broker.stop();
    }
}

async fn simulator(dir: &TempDir, listen: SocketAddr) -> anyhow::Result<Simulator> {
    let scenario = dir.path().join("building.toml");
    std::fs::write(&scenario, SCENARIO)?;
    let base = Settings {
        listen,
        certificates_dir: Some(dir.path().join("gateway")),
        ..Settings::default()
    };
    let settings = Scenario::load(&scenario.to_string_lossy())?.settings(base);
    Ok(Simulator::start(settings).await?)
}

fn configuration(dir: &TempDir, at: Listen, simulator: &Simulator) -> String {
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut text = format!(
        "state_dir = {:?}\n\n[mqtt]\nurl = \"mqtt://{}\"\n\n[http]\nlisten = \"{}\"\n\n\
         [gateways.demo]\naddress = \"{}\"\nca_file = {:?}\n\n[gateways.demo.devices]\n",
        path("state"),
        at.mqtt,
        at.http,
        at.gateway,
        path("gateway/ca.crt"),
    );
    for (device, door) in simulator.control().building().iter().zip(DOORS) {
        text += &format!("{} = {{ name = \"{door}\" }}\n", device.id);
    }
    text
}
