//! Metrics of the store: the log and the history.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, Opts, Registry};

use crate::ids::Moment;

/// A write to the log, in seconds: microseconds when well.
const WRITE_BUCKETS: [f64; 8] = [0.000_01, 0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0];

/// Cheap to clone: all clones count together.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    /// Duration of each write to the log.
    pub write_seconds: Histogram,
    ok: Gauge,
    history_ok: Gauge,
    history_events: Gauge,
    /// Has no series while there is no event.
    history_oldest: GaugeVec,
}

impl StoreMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let write = HistogramOpts::new(
            "gsdk_store_write_seconds",
            "Duration of writes to the log, which precede the publishing of events.",
        );
        let oldest = Opts::new(
            "gsdk_history_oldest_timestamp_seconds",
            "When the oldest event of the history was recorded.",
        );
        let metrics = Self {
            write_seconds: Histogram::with_opts(write.buckets(WRITE_BUCKETS.to_vec()))?,
            ok: Gauge::new(
                "gsdk_store_ok",
                "Whether the log is on the disk (1) or in memory (0).",
            )?,
            history_ok: Gauge::new(
                "gsdk_history_ok",
                "Whether the history can be written (1) or not (0).",
            )?,
            history_events: Gauge::new("gsdk_history_events", "Events in the history.")?,
            history_oldest: GaugeVec::new(oldest, &[])?,
        };
        metrics.set_ok(true);
        metrics.set_history(true, 0, None);
        registry.register(Box::new(metrics.write_seconds.clone()))?;
        registry.register(Box::new(metrics.ok.clone()))?;
        registry.register(Box::new(metrics.history_ok.clone()))?;
        registry.register(Box::new(metrics.history_events.clone()))?;
        registry.register(Box::new(metrics.history_oldest.clone()))?;
        Ok(metrics)
    }

    /// Whether the log is on the disk.
    pub fn set_ok(&self, ok: bool) {
        self.ok.set(if ok { 1.0 } else { 0.0 });
    }

    /// Whether the history can be written, how many events it has, and since when.
    #[allow(clippy::cast_precision_loss, reason = "no history has 2^53 events")]
    pub fn set_history(&self, ok: bool, events: u64, oldest_at: Option<Moment>) {
        self.history_ok.set(if ok { 1.0 } else { 0.0 });
        self.history_events.set(events as f64);
        match oldest_at {
            Some(at) => {
                let seconds = at.millis() as f64 / 1e3;
                self.history_oldest.with_label_values::<&str>(&[]).set(seconds);
            }
            None => self.history_oldest.reset(),
        }
    }
}
