//! CPU time, memory and wake-ups of a process, from /proc. Linux only.

use std::fs;
use std::time::Duration;

/// A process by its number.
#[derive(Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    fn read(self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap()
    }

    /// CPU of all its threads so far, user and system.
    pub(crate) fn cpu(self) -> Duration {
        let stat = self.read("stat");
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // The kernel counts for user space in hundredths of a second on every machine we run on.
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory now, in MB.
    pub(crate) fn resident_mb(self) -> f64 {
        self.status_kib("VmRSS:") * 1024.0 / 1e6
    }

    /// The most it was since [`Self::forget_peak`], in MB.
    pub(crate) fn peak_mb(self) -> f64 {
        self.status_kib("VmHWM:") * 1024.0 / 1e6
    }

    pub(crate) fn forget_peak(self) {
        fs::write(format!("/proc/{}/clear_refs", self.0), "5").unwrap();
    }

    /// What it has written to disks so far, in MB.
    pub(crate) fn written_mb(self) -> f64 {
        let io = self.read("io");
        let line = io.lines().find(|line| line.starts_with("write_bytes:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1e6
    }

    fn status_kib(self, field: &str) -> f64 {
        let status = self.read("status");
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// How often its threads have gone to sleep, and so been woken.
    pub(crate) fn wake_ups(self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).unwrap();
        let of = |status: String| -> Option<u64> {
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let statuses =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
        statuses.filter_map(of).sum()
    }
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The quantile of all values.
pub(crate) fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
