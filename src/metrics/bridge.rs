//! The bridge's own metrics: counters, gauges and histograms in a registry. All labels are bounded.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use prometheus::core::Collector as _;
use prometheus::{
    HistogramVec, IntCounterVec, IntGauge, Registry, TextEncoder,
    register_histogram_vec_with_registry, register_int_counter_vec_with_registry,
    register_int_gauge_vec_with_registry,
};

use super::delivery::{MqttMetrics, StoreMetrics};
#[cfg(target_os = "linux")]
use super::process::process_text;
use crate::payload::DegradedReason;

/// A gateway's calls, in seconds: its own time-outs are 10 and 20 s.
const RPC_BUCKETS: [f64; 9] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0];

/// The bridge's own metrics. Cheap to clone: all clones share the values.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// The connection to the broker, and its messages.
    pub mqtt: MqttMetrics,
    /// Log, outbox and history.
    pub store: StoreMetrics,
    rpcs: Rpcs,
    /// The same families with other labels, which one registry does not take.
    master_rpcs: Rpcs,
    commands: IntCounterVec,
    degraded: BTreeMap<DegradedReason, IntGauge>,
}

impl Metrics {
    /// Creates and registers all metrics.
    ///
    /// # Errors
    /// Two metrics have the same name, which is a bug.
    pub fn new(version: &str, commit: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        register_build_info(&registry, version, commit)?;
        let degraded = register_int_gauge_vec_with_registry!(
            "gsdk_degraded",
            "Whether the bridge is degraded for this reason (1).",
            &["reason"],
            registry
        )?;
        let degraded =
            |&reason: &DegradedReason| (reason, degraded.with_label_values(&[reason.as_str()]));
        Ok(Self {
            mqtt: MqttMetrics::new(&registry)?,
            store: StoreMetrics::new(&registry)?,
            rpcs: Rpcs::new(registry.clone(), "gateway")?,
            master_rpcs: Rpcs::new(Registry::new(), "master")?,
            commands: register_int_counter_vec_with_registry!(
                "gsdk_commands_total",
                "Requests by their result: ok, partial, or the error's code.",
                &["gateway", "command", "result"],
                registry
            )?,
            degraded: DegradedReason::ALL.iter().map(degraded).collect(),
            registry,
        })
    }

    /// Counts a call to a gateway and records its duration.
    pub fn rpc(&self, gateway: &str, method: &str, code: &str, took: Option<Duration>) {
        self.rpcs.count(gateway, method, code, took);
    }

    /// Counts a call to a master and records its duration.
    pub fn master_rpc(&self, master: &str, method: &str, code: &str, took: Option<Duration>) {
        self.master_rpcs.count(master, method, code, took);
    }

    /// Counts an answered request.
    pub fn command(&self, gateway: &str, command: &str, result: &str) {
        self.commands.with_label_values(&[gateway, command, result]).inc();
    }

    /// Removes the series of a gateway's commands.
    pub fn forget_gateway(&self, gateway: &str) {
        let families = self.commands.collect();
        for series in families.iter().flat_map(|family| family.get_metric()) {
            let labels = series.get_label().iter().map(|label| (label.name(), label.value()));
            let labels: HashMap<&str, &str> = labels.collect();
            if labels.get("gateway") == Some(&gateway) {
                // It was just there.
                _ = self.commands.remove(&labels);
            }
        }
    }

    /// Sets whether the bridge is degraded for this reason; returns whether that has changed.
    pub fn set_degraded(&self, reason: DegradedReason, is_degraded: bool) -> bool {
        let Some(gauge) = self.degraded.get(&reason) else { return false };
        let before = gauge.get();
        gauge.set(i64::from(is_degraded));
        before != gauge.get()
    }

    /// The bridge's own series as Prometheus text.
    ///
    /// # Errors
    /// A metric cannot be encoded, which is a bug.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut families = self.registry.gather();
        for mut of_masters in self.master_rpcs.registry.gather() {
            match families.iter_mut().find(|family| family.name() == of_masters.name()) {
                Some(family) => family.mut_metric().extend(of_masters.take_metric()),
                None => families.push(of_masters),
            }
        }
        let text = TextEncoder::new().encode_to_string(&families)?;
        #[cfg(target_os = "linux")]
        let text = text + &process_text();
        Ok(text)
    }
}

/// The calls to gateways or to masters.
#[derive(Clone, Debug)]
struct Rpcs {
    registry: Registry,
    total: IntCounterVec,
    duration: HistogramVec,
}

impl Rpcs {
    /// `peer`: the label that names the gateway or master.
    fn new(registry: Registry, peer: &str) -> Result<Self, prometheus::Error> {
        let total = register_int_counter_vec_with_registry!(
            "gsdk_rpcs_total",
            "Calls to a gateway or master.",
            &[peer, "method", "code"],
            registry
        )?;
        let duration = register_histogram_vec_with_registry!(
            "gsdk_rpc_duration_seconds",
            "Duration of calls to a gateway or master.",
            &[peer, "method"],
            RPC_BUCKETS.to_vec(),
            registry
        )?;
        Ok(Self { registry, total, duration })
    }

    fn count(&self, name: &str, method: &str, code: &str, took: Option<Duration>) {
        self.total.with_label_values(&[name, method, code]).inc();
        if let Some(took) = took {
            self.duration.with_label_values(&[name, method]).observe(took.as_secs_f64());
        }
    }
}

/// Registers what the program is.
fn register_build_info(
    registry: &Registry,
    version: &str,
    commit: &str,
) -> Result<(), prometheus::Error> {
    let labels = &["version", "commit"];
    let help = "The program's version.";
    register_int_gauge_vec_with_registry!("gsdk_build_info", help, labels, registry)?
        .with_label_values(&[version, commit])
        .set(1);
    Ok(())
}
