//! Metrics of the broker's side: the connection with its messages, and the outbox.

use std::time::Duration;

use prometheus::{
    Histogram, IntCounter, IntCounterVec, IntGauge, Registry, register_histogram_with_registry,
    register_int_counter_vec_with_registry, register_int_counter_with_registry,
    register_int_gauge_with_registry,
};

/// Stream to PUBACK, in seconds: a millisecond normally, minutes while the broker is away.
const DELIVERY_BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0, 600.0];

/// The usual reasons of [`MqttMetrics::publish_failed`]: their series exist from the start, since
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

/// Cheap to clone: all clones share the values.
#[derive(Clone, Debug)]
pub struct MqttMetrics {
    /// Whether the broker is connected.
    pub connected: IntGauge,
    /// Connections made to the broker.
    pub connections: IntCounter,
    published: IntCounterVec,
    publish_failures: IntCounterVec,
    event_delivery: Histogram,
}

impl MqttMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name, help, labels: &[&str]| {
            register_int_counter_vec_with_registry!(name, help, labels, registry)
        };
        let metrics = Self {
            connected: register_int_gauge_with_registry!(
                "gsdk_mqtt_connected",
                "Whether the broker is connected (1) or not (0).",
                registry
            )?,
            connections: register_int_counter_with_registry!(
                "gsdk_mqtt_connections_total",
                "Connections made to the broker.",
                registry
            )?,
            published: counters(
                "gsdk_mqtt_published_total",
                "Messages that the broker acknowledged.",
                &["kind"],
            )?,
            publish_failures: counters(
                "gsdk_mqtt_publish_failures_total",
                "Messages that the broker did not accept.",
                &["reason"],
            )?,
            event_delivery: register_histogram_with_registry!(
                "gsdk_event_delivery_seconds",
                "From reading a device event off the stream to the broker's PUBACK.",
                DELIVERY_BUCKETS.to_vec(),
                registry
            )?,
        };
        for reason in PUBLISH_FAILURES {
            metrics.publish_failures.with_label_values(&[reason]);
        }
        Ok(metrics)
    }

    /// Counts an acknowledged message of this kind.
    pub fn published(&self, kind: &str) {
        self.published.with_label_values(&[kind]).inc();
    }

    /// Counts a message that was not accepted.
    pub fn publish_failed(&self, reason: &str) {
        self.publish_failures.with_label_values(&[reason]).inc();
    }

    /// Records the time of a device event from stream to PUBACK.
    pub fn event_delivered(&self, took: Duration) {
        self.event_delivery.observe(took.as_secs_f64());
    }
}

/// Cheap to clone: all clones share the values.
#[derive(Clone, Debug)]
pub struct OutboxMetrics {
    events: IntGauge,
    bytes: IntGauge,
    dropped: IntCounter,
}

impl OutboxMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| register_int_gauge_with_registry!(name, help, registry);
        Ok(Self {
            events: gauge("gsdk_outbox_events", "Events waiting for the broker.")?,
            bytes: gauge("gsdk_outbox_bytes", "Bytes of the events waiting.")?,
            dropped: register_int_counter_with_registry!(
                "gsdk_outbox_dropped_total",
                "Events dropped because the outbox was full, or not accepted by the broker.",
                registry
            )?,
        })
    }

    /// Sets how many events wait for the broker, their bytes, and how many were dropped or refused
    /// so far.
    pub fn set(&self, events: usize, bytes: usize, dropped: u64) {
        self.events.set(i64::try_from(events).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.dropped.inc_by(dropped.saturating_sub(self.dropped.get()));
    }
}
