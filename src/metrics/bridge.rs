//! The bridge's own metrics: counters, gauges and histograms in a registry. All labels are bounded.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use prometheus::core::Collector as _;
use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder,
    register_histogram_vec_with_registry, register_histogram_with_registry,
    register_int_counter_vec_with_registry, register_int_counter_with_registry,
    register_int_gauge_vec_with_registry, register_int_gauge_with_registry,
};

#[cfg(target_os = "linux")]
use super::process::process_text;
use super::store::StoreMetrics;
use crate::payload::DegradedReason;

/// Stream to PUBACK, in seconds: a millisecond normally, minutes while the broker is away.
const DELIVERY_BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0, 600.0];
/// A gateway's calls, in seconds: its own time-outs are 10 and 20 s.
const RPC_BUCKETS: [f64; 9] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0];

/// The usual reasons of [`Metrics::publish_failed`]: their series exist from the start, since
/// `rate` and `increase` do not see the first count of a new series.
const PUBLISH_FAILURES: [&str; 11] = [
    "answer_not_connected",
    "answers_full",
    "closes_connection",
    "implementation_specific",
    "not_authorized",
    "packet_too_large",
    "payload_invalid",
    "quota_exceeded",
    "retain_not_supported",
    "topic_invalid",
    "unspecified",
];

/// The bridge's own metrics. Cheap to clone: all clones share the values.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Whether the broker is connected.
    pub mqtt_connected: IntGauge,
    /// Connections made to the broker.
    pub mqtt_connections: IntCounter,
    mqtt_published: IntCounterVec,
    mqtt_publish_failures: IntCounterVec,
    event_delivery: Histogram,
    outbox_events: IntGauge,
    outbox_bytes: IntGauge,
    outbox_dropped: IntCounter,
    /// Log and history.
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
        let gauge = |name, help| register_int_gauge_with_registry!(name, help, registry);
        let counter = |name, help| register_int_counter_with_registry!(name, help, registry);
        let counters = |name, help, labels: &[&str]| {
            register_int_counter_vec_with_registry!(name, help, labels, registry)
        };
        let degraded = register_int_gauge_vec_with_registry!(
            "gsdk_degraded",
            "Whether the bridge is degraded for this reason (1).",
            &["reason"],
            registry
        )?;
        let degraded =
            |&reason: &DegradedReason| (reason, degraded.with_label_values(&[reason.as_str()]));
        let mqtt_publish_failures = counters(
            "gsdk_mqtt_publish_failures_total",
            "Messages that the broker did not accept.",
            &["reason"],
        )?;
        for reason in PUBLISH_FAILURES {
            mqtt_publish_failures.with_label_values(&[reason]);
        }
        Ok(Self {
            mqtt_connected: gauge(
                "gsdk_mqtt_connected",
                "Whether the broker is connected (1) or not (0).",
            )?,
            mqtt_connections: counter(
                "gsdk_mqtt_connections_total",
                "Connections made to the broker.",
            )?,
            mqtt_published: counters(
                "gsdk_mqtt_published_total",
                "Messages that the broker acknowledged.",
                &["kind"],
            )?,
            mqtt_publish_failures,
            event_delivery: register_histogram_with_registry!(
                "gsdk_event_delivery_seconds",
                "From reading a device event off the stream to the broker's PUBACK.",
                DELIVERY_BUCKETS.to_vec(),
                registry
            )?,
            outbox_events: gauge("gsdk_outbox_events", "Events waiting for the broker.")?,
            outbox_bytes: gauge("gsdk_outbox_bytes", "Bytes of the events waiting.")?,
            outbox_dropped: counter(
                "gsdk_outbox_dropped_total",
                "Events dropped because the outbox was full, or not accepted by the broker.",
            )?,
            store: StoreMetrics::new(&registry)?,
            rpcs: Rpcs::new(registry.clone(), "gateway")?,
            master_rpcs: Rpcs::new(Registry::new(), "master")?,
            commands: counters(
                "gsdk_commands_total",
                "Requests by their result: ok, partial, or the error's code.",
                &["gateway", "command", "result"],
            )?,
            degraded: DegradedReason::ALL.iter().map(degraded).collect(),
            registry,
        })
    }

    /// Sets how many events wait for the broker, their bytes, and how many were dropped or refused
    /// so far.
    pub fn set_outbox(&self, events: usize, bytes: usize, dropped: u64) {
        self.outbox_events.set(i64::try_from(events).unwrap_or(i64::MAX));
        self.outbox_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.outbox_dropped.inc_by(dropped.saturating_sub(self.outbox_dropped.get()));
    }

    /// Counts an acknowledged message of this kind.
    pub fn published(&self, kind: &str) {
        self.mqtt_published.with_label_values(&[kind]).inc();
    }

    /// Counts a message that was not accepted.
    pub fn publish_failed(&self, reason: &str) {
        self.mqtt_publish_failures.with_label_values(&[reason]).inc();
    }

    /// Records the time of a device event from stream to PUBACK.
    pub fn event_delivered(&self, took: Duration) {
        self.event_delivery.observe(took.as_secs_f64());
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
