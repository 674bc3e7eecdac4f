//! The bridge's own metrics: counters and histograms that the rooms count on as things happen.
//!
//! May not know what is counted beyond its labels, all of which are bounded.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use super::store::StoreMetrics;
use crate::payload::DegradedReason;

/// Stream to PUBACK, in seconds: the path is a millisecond when well, minutes when the broker is
/// away.
const DELIVERY_BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0, 600.0];
/// A gateway's calls, in seconds: its own time-outs are 10 and 20 s.
const RPC_BUCKETS: [f64; 9] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0];

/// Counters and gauges of the bridge itself. Cheap to clone: all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Whether the broker has the bridge's `online`.
    pub mqtt_connected: IntGauge,
    /// Connections made to the broker.
    pub mqtt_connections: IntCounter,
    mqtt_published: IntCounterVec,
    mqtt_publish_failures: IntCounterVec,
    event_delivery: Histogram,
    /// Events waiting for the broker.
    pub outbox_events: IntGauge,
    /// Bytes of them.
    pub outbox_bytes: IntGauge,
    /// Events dropped because the outbox was full, or not accepted by the broker.
    pub outbox_dropped: IntCounter,
    /// The store's.
    pub store: StoreMetrics,
    rpc_duration: HistogramVec,
    rpcs: IntCounterVec,
    commands: IntCounterVec,
    degraded: IntGaugeVec,
}

impl Metrics {
    /// A registry with everything in it.
    ///
    /// # Errors
    /// When two metrics have one name, which no configuration can bring about.
    pub fn new(version: &str, commit: &str) -> Result<Self, prometheus::Error> {
        let rpc =
            HistogramOpts::new("gsdk_rpc_duration_seconds", "Duration of calls to a gateway.");
        let delivery = HistogramOpts::new(
            "gsdk_event_delivery_seconds",
            "From reading a device event off the stream to the broker's PUBACK.",
        );
        let registry = Registry::new();
        let metrics = Self {
            mqtt_connected: IntGauge::new(
                "gsdk_mqtt_connected",
                "Whether the broker is connected (1) or not (0).",
            )?,
            mqtt_connections: IntCounter::new(
                "gsdk_mqtt_connections_total",
                "Connections made to the broker.",
            )?,
            mqtt_published: counters(
                "gsdk_mqtt_published_total",
                "Messages that the broker acknowledged.",
                &["kind"],
            )?,
            mqtt_publish_failures: counters(
                "gsdk_mqtt_publish_failures_total",
                "Messages that the broker did not take.",
                &["reason"],
            )?,
            event_delivery: Histogram::with_opts(delivery.buckets(DELIVERY_BUCKETS.to_vec()))?,
            outbox_events: IntGauge::new(
                "gsdk_outbox_events",
                "Events waiting for the broker's acknowledgement.",
            )?,
            outbox_bytes: IntGauge::new("gsdk_outbox_bytes", "Bytes of the events waiting.")?,
            outbox_dropped: IntCounter::new(
                "gsdk_outbox_dropped_total",
                "Events dropped because the outbox was full, or not accepted by the broker.",
            )?,
            store: StoreMetrics::new(&registry)?,
            rpc_duration: HistogramVec::new(
                rpc.buckets(RPC_BUCKETS.to_vec()),
                &["gateway", "method"],
            )?,
            rpcs: counters(
                "gsdk_rpcs_total",
                "Calls to a gateway.",
                &["gateway", "method", "code"],
            )?,
            commands: counters(
                "gsdk_commands_total",
                "Requests by their result: ok, partial, or the error's code.",
                &["gateway", "command", "result"],
            )?,
            degraded: IntGaugeVec::new(
                Opts::new("gsdk_degraded", "Whether the bridge is degraded for this reason (1)."),
                &["reason"],
            )?,
            registry,
        };
        metrics.register(version, commit)?;
        Ok(metrics)
    }

    fn register(&self, version: &str, commit: &str) -> Result<(), prometheus::Error> {
        let opts = Opts::new("gsdk_build_info", "The program's version.");
        let build_info = IntGaugeVec::new(opts, &["version", "commit"])?;
        build_info.with_label_values(&[version, commit]).set(1);
        DegradedReason::ALL.into_iter().for_each(|reason| self.degraded(reason, false));
        let registry = &self.registry;
        registry.register(Box::new(build_info))?;
        registry.register(Box::new(self.mqtt_connected.clone()))?;
        registry.register(Box::new(self.mqtt_connections.clone()))?;
        registry.register(Box::new(self.mqtt_published.clone()))?;
        registry.register(Box::new(self.mqtt_publish_failures.clone()))?;
        registry.register(Box::new(self.event_delivery.clone()))?;
        registry.register(Box::new(self.outbox_events.clone()))?;
        registry.register(Box::new(self.outbox_bytes.clone()))?;
        registry.register(Box::new(self.outbox_dropped.clone()))?;
        registry.register(Box::new(self.rpc_duration.clone()))?;
        registry.register(Box::new(self.rpcs.clone()))?;
        registry.register(Box::new(self.commands.clone()))?;
        registry.register(Box::new(self.degraded.clone()))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(())
    }

    /// A message of this kind was acknowledged.
    pub fn published(&self, kind: &str) {
        self.mqtt_published.with_label_values(&[kind]).inc();
    }

    /// A message was not taken, for this reason.
    pub fn publish_failed(&self, reason: &str) {
        self.mqtt_publish_failures.with_label_values(&[reason]).inc();
    }

    /// A device event took this long from the stream to the PUBACK.
    pub fn event_delivered(&self, took: Duration) {
        self.event_delivery.observe(took.as_secs_f64());
    }

    /// A call to a gateway has ended.
    pub fn rpc(&self, gateway: &str, method: &str, code: &str, took: Option<Duration>) {
        self.rpcs.with_label_values(&[gateway, method, code]).inc();
        if let Some(took) = took {
            self.rpc_duration.with_label_values(&[gateway, method]).observe(took.as_secs_f64());
        }
    }

    /// A request was answered; commands that there are not count as `unknown`.
    pub fn command(&self, gateway: &str, command: &str, result: &str) {
        self.commands.with_label_values(&[gateway, command, result]).inc();
    }

    /// Whether the bridge is degraded for this reason.
    pub fn degraded(&self, reason: DegradedReason, lasts: bool) {
        self.degraded.with_label_values(&[reason.as_str()]).set(i64::from(lasts));
    }

    /// The bridge's own series as Prometheus text.
    ///
    /// # Errors
    /// When a metric cannot be written as text, which would be a mistake in this module.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}
