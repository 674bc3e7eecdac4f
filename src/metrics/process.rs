//! What the process uses, as every Prometheus client library names it; read from `/proc`.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Counter, IntGauge, Registry, register_counter_with_registry, register_int_gauge_with_registry,
};

/// Of the times in `/proc`: the same on every architecture that the program is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Cheap to clone: all clones share the values.
#[derive(Clone, Debug)]
pub(crate) struct ProcessMetrics {
    /// Locked so that two scrapes at once do not both add the same seconds.
    cpu_seconds: Arc<Mutex<Counter>>,
    open_fds: IntGauge,
    max_fds: IntGauge,
    virtual_memory: IntGauge,
    resident_memory: IntGauge,
    threads: IntGauge,
}

impl ProcessMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| register_int_gauge_with_registry!(name, help, registry);
        let started = gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
        )?;
        let cpu_seconds = register_counter_with_registry!(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            registry
        )?;
        let metrics = Self {
            cpu_seconds: Arc::new(Mutex::new(cpu_seconds)),
            open_fds: gauge("process_open_fds", "Number of open file descriptors.")?,
            max_fds: gauge("process_max_fds", "Maximum number of open file descriptors.")?,
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
            resident_memory: gauge(
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
            )?,
            threads: gauge("process_threads", "Number of OS threads in the process.")?,
        };
        if let (Some(stat), Some(boot)) = (ProcStat::read(), boot_time()) {
            #[expect(clippy::cast_possible_truncation, reason = "in whole seconds")]
            started.set(boot + stat.start_seconds as i64);
        }
        Ok(metrics)
    }

    /// Reads the values; one that cannot be read keeps its last value.
    pub(crate) fn update(&self) {
        if let Some(stat) = ProcStat::read() {
            let cpu = self.cpu_seconds.lock().unwrap_or_else(PoisonError::into_inner);
            cpu.inc_by((stat.cpu_seconds - cpu.get()).max(0.0));
            self.threads.set(stat.threads);
            self.virtual_memory.set(stat.virtual_bytes);
        }
        if let Some(kilobytes) = number_after("/proc/self/status", "VmRSS:") {
            self.resident_memory.set(kilobytes * 1024);
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // Without the folder that is being read.
            self.open_fds.set(i64::try_from(files.count()).unwrap_or(i64::MAX) - 1);
        }
        if let Some(files) = number_after("/proc/self/limits", "Max open files") {
            self.max_fds.set(files);
        }
    }
}

/// From `/proc/self/stat`.
struct ProcStat {
    cpu_seconds: f64,
    /// After the boot.
    start_seconds: f64,
    threads: i64,
    virtual_bytes: i64,
}

impl ProcStat {
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the name, in parentheses and with any characters.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // As `man proc_pid_stat` numbers them.
        let field = |number: usize| fields.get(number - 3);
        let seconds = |number| Some(field(number)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some(Self {
            cpu_seconds: seconds(14)? + seconds(15)?,
            start_seconds: seconds(22)?,
            threads: field(20)?.parse().ok()?,
            virtual_bytes: field(23)?.parse().ok()?,
        })
    }
}

/// When the system started, in seconds since the Unix epoch.
fn boot_time() -> Option<i64> {
    number_after("/proc/stat", "btime")
}

/// The number after these words, at the start of a line.
fn number_after(file: &str, words: &str) -> Option<i64> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(words))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use prometheus::Registry;

    use super::ProcessMetrics;

    #[test]
    fn values_are_those_of_this_process() {
        let metrics = ProcessMetrics::new(&Registry::new()).unwrap();
        metrics.update();
        let before = (metrics.open_fds.get(), metrics.threads.get());
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/proc/self/stat")).collect();
        let memory = vec![1_u8; 64 << 20];
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(100) {
            std::hint::black_box(&memory);
        }
        metrics.update();
        // Other tests run in the same process.
        assert!(metrics.open_fds.get() > before.0 + 20 && files.iter().all(Result::is_ok));
        assert!(metrics.max_fds.get() >= metrics.open_fds.get());
        assert!(metrics.resident_memory.get() > 64 << 20);
        assert!(metrics.virtual_memory.get() > metrics.resident_memory.get());
        assert!(metrics.cpu_seconds.lock().unwrap().get() > 0.0);
        assert!(before.1 > 0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let boot = super::boot_time().unwrap();
        assert!(boot > 0 && boot.unsigned_abs() <= now);
    }
}
