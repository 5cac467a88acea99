//! What a number was measured on, and the arithmetic of samples.

use serde::Serialize;
use std::{fs, path::Path, time::Duration};

/// Clock ticks per second of `/proc/*/stat`: fixed by the Linux ABI on every common architecture.
const TICKS: f64 = 100.0;

/// A machine and its state.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores available.
    pub cores: usize,
    /// Load average of the last minute.
    pub load_1m: f64,
    /// `release` or `debug`.
    pub build: &'static str,
    /// Operating system and kernel.
    pub system: String,
}

impl Machine {
    /// This machine, now.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()));
        let load = read("/proc/loadavg").split(' ').next().and_then(|l| l.parse().ok());
        let kernel = read("/proc/sys/kernel/osrelease");
        Machine {
            cpu: cpu.unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_1m: load.unwrap_or(f64::NAN),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            system: format!("{} {}", std::env::consts::OS, kernel.trim()),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {}, load {:.2}, {} build, {}", self.cores, self.cpu, self.load_1m, self.build, self.system)
    }
}

/// Processor time this process has used, user and system; zero where `/proc` does not tell.
pub fn cpu_time() -> Duration {
    cpu_time_of(std::process::id())
}

/// Processor time that the living threads of a process have used, to the nanosecond where the kernel keeps it.
pub fn cpu_time_of(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let times: Vec<u64> = threads.filter_map(|thread| on_cpu(&thread.path())).collect();
    if times.is_empty() { ticks_of(pid) } else { Duration::from_nanos(times.iter().sum()) }
}

fn on_cpu(thread: &Path) -> Option<u64> {
    fs::read_to_string(thread.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
}

fn ticks_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold spaces; fields after it are fixed: utime is the 14th of all, stime the 15th.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = after.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / TICKS)
}

/// Resident memory of a process in kilobytes; `None` once it has ended.
pub fn rss_kb_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
}

/// A distribution, in the samples' unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Distribution {
    /// How many samples.
    pub n: usize,
    /// The median.
    pub p50: f64,
    /// Nine of ten are below.
    pub p90: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Distribution {
    /// Of `samples`, by nearest rank; all zero if there are none.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let rank = |p: f64| {
            let index = ((samples.len() as f64 * p).ceil() as usize).saturating_sub(1);
            let value = samples.get(index).copied().unwrap_or_default();
            (value * 1e3).round() / 1e3
        };
        Distribution { n: samples.len(), p50: rank(0.5), p90: rank(0.9), p99: rank(0.99), max: rank(1.0) }
    }
}

impl std::fmt::Display for Distribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {:.2}  p90 {:.2}  p99 {:.2}  max {:.2}  (n {})", self.p50, self.p90, self.p99, self.max, self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_samples() {
        let d = Distribution::of((1..=100).map(f64::from).collect());
        assert_eq!((d.n, d.p50, d.p90, d.p99, d.max), (100, 50.0, 90.0, 99.0, 100.0));
        assert_eq!(Distribution::of(vec![7.0]).p99, 7.0);
        assert_eq!(Distribution::of(Vec::new()).n, 0);
    }

    #[test]
    fn this_machine_has_cores_and_spends_time() {
        assert!(Machine::here().cores > 0);
        assert!(Duration::ZERO < cpu_time() && cpu_time() < Duration::from_secs(1 << 20));
        assert!(rss_kb_of(std::process::id()).is_some_and(|kb| kb > 0));
    }
}
