//! Metrics of what is stored and sent: log, outbox, history, and the broker's connection.

use std::time::Duration;

use prometheus::{
    GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, Registry,
    register_gauge_vec_with_registry, register_histogram_with_registry,
    register_int_counter_vec_with_registry, register_int_counter_with_registry,
    register_int_gauge_with_registry,
};

use crate::ids::Moment;

/// A write to the log, in seconds: microseconds normally.
const WRITE_BUCKETS: [f64; 8] = [0.000_01, 0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0];

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

/// Metrics of log, outbox and history. Cheap to clone: all clones share the values.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    /// Duration of each write to the log.
    pub write_seconds: Histogram,
    ok: IntGauge,
    outbox_events: IntGauge,
    outbox_bytes: IntGauge,
    outbox_dropped: IntCounter,
    history_ok: IntGauge,
    history_events: IntGauge,
    /// Has no series while the history is empty.
    history_oldest: GaugeVec,
}

impl StoreMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| register_int_gauge_with_registry!(name, help, registry);
        let metrics = Self {
            write_seconds: register_histogram_with_registry!(
                "gsdk_store_write_seconds",
                "Duration of writes to the log, which precede the publishing of events.",
                WRITE_BUCKETS.to_vec(),
                registry
            )?,
            ok: gauge("gsdk_store_ok", "Whether the log is on the disk (1) or in memory (0).")?,
            outbox_events: gauge("gsdk_outbox_events", "Events waiting for the broker.")?,
            outbox_bytes: gauge("gsdk_outbox_bytes", "Bytes of the events waiting.")?,
            outbox_dropped: register_int_counter_with_registry!(
                "gsdk_outbox_dropped_total",
                "Events dropped because the outbox was full, or not accepted by the broker.",
                registry
            )?,
            history_ok: gauge(
                "gsdk_history_ok",
                "Whether the history is written and undamaged (1) or not (0).",
            )?,
            history_events: gauge("gsdk_history_events", "Events in the history.")?,
            history_oldest: register_gauge_vec_with_registry!(
                "gsdk_history_oldest_timestamp_seconds",
                "When the oldest event of the history was recorded.",
                &[],
                registry
            )?,
        };
        metrics.set_ok(true);
        metrics.set_history(true, 0, None);
        Ok(metrics)
    }

    /// Sets whether the log is on the disk.
    pub fn set_ok(&self, ok: bool) {
        self.ok.set(i64::from(ok));
    }

    /// Sets how many events wait for the broker, their bytes, and how many were dropped or refused
    /// so far.
    pub fn set_outbox(&self, events: usize, bytes: usize, dropped: u64) {
        self.outbox_events.set(i64::try_from(events).unwrap_or(i64::MAX));
        self.outbox_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.outbox_dropped.inc_by(dropped.saturating_sub(self.outbox_dropped.get()));
    }

    /// Sets whether the history can be written, its events, and when the oldest was recorded.
    #[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit a double")]
    pub fn set_history(&self, ok: bool, events: u64, oldest_at: Option<Moment>) {
        self.history_ok.set(i64::from(ok));
        self.history_events.set(i64::try_from(events).unwrap_or(i64::MAX));
        match oldest_at {
            Some(at) => {
                let seconds = at.millis() as f64 / 1e3;
                self.history_oldest.with_label_values::<&str>(&[]).set(seconds);
            }
            None => self.history_oldest.reset(),
        }
    }
}

/// Metrics of the connection to the broker, and its messages. Cheap to clone: all clones share the
/// values.
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
        let counters = |name, help, label| {
            register_int_counter_vec_with_registry!(name, help, &[label], registry)
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
                "kind",
            )?,
            publish_failures: counters(
                "gsdk_mqtt_publish_failures_total",
                "Messages that the broker did not accept.",
                "reason",
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
