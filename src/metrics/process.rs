//! What the process uses, as every Prometheus client library names it; read from `/proc`.

use std::fs;
use std::sync::LazyLock;

use super::text::Family;

/// Of the times in `/proc`: the same on every architecture that the program is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// When the process started, in seconds since the Unix epoch. Read once: the time of the system's
/// boot, from which it is calculated, changes when the clock is set.
static STARTED_AT: LazyLock<Option<f64>> = LazyLock::new(|| {
    let boot = number_after("/proc/stat", "btime")?;
    Some(boot + Stat::read().seconds(22)?)
});

/// The series as text, without those that cannot be read.
pub(crate) fn process_text() -> String {
    let stat = Stat::read();
    let cpu = stat.seconds(14).zip(stat.seconds(15)).map(|(user, system)| user + system);
    let resident = number_after("/proc/self/status", "VmRSS:").map(|kilobytes| kilobytes * 1024.0);
    // Without the folder that is being read.
    let files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64 - 1.0);
    let max_files = number_after("/proc/self/limits", "Max open files");
    let gauge = |name, help| Family { name, kind: "gauge", help };
    let cpu_family = Family {
        name: "process_cpu_seconds_total",
        kind: "counter",
        help: "Total user and system CPU time spent in seconds.",
    };
    let start_help = "Start time of the process since unix epoch in seconds.";
    let samples = [
        (cpu_family, cpu),
        (gauge("process_max_fds", "Maximum number of open file descriptors."), max_files),
        (gauge("process_open_fds", "Number of open file descriptors."), files),
        (gauge("process_resident_memory_bytes", "Resident memory size in bytes."), resident),
        (gauge("process_start_time_seconds", start_help), *STARTED_AT),
        (gauge("process_threads", "Number of OS threads in the process."), stat.field(20)),
        (gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."), stat.field(23)),
    ];
    let text = |(family, value): (Family, Option<f64>)| {
        value.map(|value| format!("{}{} {value}\n", family.head(), family.name))
    };
    samples.into_iter().filter_map(text).collect()
}

/// `/proc/self/stat`.
struct Stat(String);

impl Stat {
    fn read() -> Self {
        Self(fs::read_to_string("/proc/self/stat").unwrap_or_default())
    }

    /// A field, as `man proc_pid_stat` numbers them.
    fn field(&self, number: usize) -> Option<f64> {
        // The second field is the name, in parentheses and with any characters.
        let (_, fields) = self.0.rsplit_once(')')?;
        fields.split_whitespace().nth(number - 3)?.parse().ok()
    }

    fn seconds(&self, number: usize) -> Option<f64> {
        self.field(number).map(|ticks| ticks / TICKS_PER_SECOND)
    }
}

/// The number after these words, at the start of a line.
fn number_after(file: &str, words: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(words))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use super::process_text;

    fn value(text: &str, name: &str) -> f64 {
        let sample = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        sample.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
    }

    #[test]
    fn values_are_those_of_this_process() {
        let before = process_text();
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/proc/self/stat")).collect();
        let memory = vec![1_u8; 64 << 20];
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(100) {
            std::hint::black_box(&memory);
        }
        let after = process_text();
        // Other tests run in the same process.
        let open = "process_open_fds";
        assert!(value(&after, open) > value(&before, open) + 20.0);
        assert!(files.iter().all(Result::is_ok));
        assert!(value(&after, "process_max_fds") >= value(&after, open));
        let (resident, virtual_memory) = (
            value(&after, "process_resident_memory_bytes"),
            value(&after, "process_virtual_memory_bytes"),
        );
        assert!(resident > f64::from(64 << 20) && virtual_memory > resident);
        let cpu = "process_cpu_seconds_total";
        assert!(value(&after, cpu) > value(&before, cpu));
        assert!(value(&after, "process_threads") > 0.0);
        let start = "process_start_time_seconds";
        assert_eq!(value(&after, start), value(&before, start));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - value(&after, start)).abs() < 3_600.0, "{after}");
    }
}
