//! Metrics of the store: the log and the history.

use prometheus::{
    GaugeVec, Histogram, IntGauge, Registry, register_gauge_vec_with_registry,
    register_histogram_with_registry, register_int_gauge_with_registry,
};

use crate::ids::Moment;

/// A write to the log, in seconds: microseconds normally.
const WRITE_BUCKETS: [f64; 8] = [0.000_01, 0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0];

/// Cheap to clone: all clones share the values.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    /// Duration of each write to the log.
    pub write_seconds: Histogram,
    ok: IntGauge,
    history_ok: IntGauge,
    history_events: IntGauge,
    /// Has no series while the history is empty.
    history_oldest: GaugeVec,
}

impl StoreMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            write_seconds: register_histogram_with_registry!(
                "gsdk_store_write_seconds",
                "Duration of writes to the log, which precede the publishing of events.",
                WRITE_BUCKETS.to_vec(),
                registry
            )?,
            ok: register_int_gauge_with_registry!(
                "gsdk_store_ok",
                "Whether the log is on the disk (1) or in memory (0).",
                registry
            )?,
            history_ok: register_int_gauge_with_registry!(
                "gsdk_history_ok",
                "Whether the history is written and undamaged (1) or not (0).",
                registry
            )?,
            history_events: register_int_gauge_with_registry!(
                "gsdk_history_events",
                "Events in the history.",
                registry
            )?,
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
