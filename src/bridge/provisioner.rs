//! The provisioning of all gateways: what the configuration declares, and the results of tasks.

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::gateway_provisioner::{GatewayProvisioner, TaskResult};
use crate::config::{Config, Connect, Gateway};
use crate::desired::DesiredState;
use crate::fleet::{GatewayIndex, Target};
use crate::ids::GatewayName;

/// Results that may wait for the loop. A full queue makes only the provisioning tasks wait.
const RESULTS_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Provisioner {
    gateways: Vec<GatewayProvisioner>,
    results: mpsc::Receiver<TaskResult>,
}

impl Provisioner {
    pub(crate) fn new(config: &Config) -> Self {
        let (sender, results) = mpsc::channel(RESULTS_MAX);
        let gateways = config.gateways.iter().enumerate().map(|(index, (name, gateway))| {
            let (name, declared) = (name.clone(), declared(gateway));
            GatewayProvisioner::new(GatewayIndex(index), name, declared, sender.clone())
        });
        Self { gateways: gateways.collect(), results }
    }

    /// The next result of a task. Cancel safe.
    pub(crate) async fn next_result(&mut self) -> Option<TaskResult> {
        self.results.recv().await
    }

    pub(crate) fn gateway(&self, gateway: GatewayIndex) -> Option<&GatewayProvisioner> {
        self.gateways.get(gateway.0)
    }

    pub(crate) fn gateway_mut(&mut self, gateway: GatewayIndex) -> Option<&mut GatewayProvisioner> {
        self.gateways.get_mut(gateway.0)
    }

    pub(crate) fn find(&self, name: &GatewayName) -> Option<GatewayIndex> {
        self.gateways.iter().position(|gateway| gateway.name() == name).map(GatewayIndex)
    }

    /// When the next retry is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.gateways.iter().filter_map(GatewayProvisioner::retry_at).min()
    }

    /// A gateway whose retry is due.
    pub(crate) fn due_gateway(&self, now: Instant) -> Option<GatewayIndex> {
        let is_due = |it: &GatewayProvisioner| it.retry_at().is_some_and(|at| at <= now);
        self.gateways.iter().position(is_due).map(GatewayIndex)
    }
}

/// What the configuration declares.
fn declared(gateway: &Gateway) -> DesiredState {
    let mut items =
        DesiredState { allow_all: gateway.accept_filter.allow_all, ..DesiredState::default() };
    for (&device_id, device) in &gateway.devices {
        match device.connect {
            Connect::Observe => {}
            Connect::Accept => _ = items.accepted.insert(device_id),
            Connect::Async { ip, port, ssl } => {
                items.registered.insert(device_id, Target { ip, port, ssl });
            }
        }
    }
    items
}
