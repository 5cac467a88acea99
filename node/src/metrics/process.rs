//! What this process takes from the machine, under the names of Prometheus's own client libraries. From `/proc`, so on Linux
//! only; elsewhere the families are there and empty.

use super::family::{Family, Sample, Value};
use std::{fs, io};

/// Ticks in a second in `/proc`: Linux shows user space this many on every architecture, whatever its own clock does.
const TICKS: f64 = 100.0;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq)]
struct Usage {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
    threads: Option<u64>,
    started: Option<f64>,
}

/// Memory, CPU time, files and threads now.
pub(super) fn families() -> Vec<Family> {
    Usage::read().families()
}

impl Usage {
    fn read() -> Self {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (stat, status, limits) = (file("/proc/self/stat"), file("/proc/self/status"), file("/proc/self/limits"));
        let open_fds = open_fds().ok();
        Usage { open_fds, ..Usage::parse(&stat, &status, &limits, &file("/proc/stat")) }
    }

    fn parse(stat: &str, status: &str, limits: &str, machine: &str) -> Self {
        let ticks = |n: usize| field(stat, n).map(|ticks: u64| ticks as f64 / TICKS);
        let booted: Option<u64> = after(machine, "btime");
        Usage {
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| user + system),
            resident_bytes: after(status, "VmRSS:").map(|kib: u64| kib * 1_024),
            open_fds: None,
            max_fds: after(limits, "Max open files"),
            threads: after(status, "Threads:"),
            started: booted.zip(ticks(22)).map(|(booted, later)| booted as f64 + later),
        }
    }

    fn families(self) -> Vec<Family> {
        let whole = |n: Option<u64>| n.map(Sample::whole).into_iter().collect();
        let real = |n: Option<f64>| n.map(|n| Sample { labels: Vec::new(), value: Value::Real(n) }).into_iter().collect();
        vec![
            Family::counter("process_cpu_seconds", "CPU time used, by user and system together.", real(self.cpu_seconds)),
            Family::gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.", whole(self.resident_bytes)),
            Family::gauge("process_open_fds", "Open file descriptors.", whole(self.open_fds)),
            Family::gauge("process_max_fds", "File descriptors that may be open at most.", whole(self.max_fds)),
            Family::gauge("process_threads", "Threads of the process.", whole(self.threads)),
            Family::gauge("process_start_time_seconds", "When the process started, in unix seconds.", real(self.started)),
        ]
    }
}

/// The descriptor that lists the others is not counted.
fn open_fds() -> io::Result<u64> {
    Ok((fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1))
}

/// The `n`th field of `/proc/self/stat`, from 1. The second is a name in brackets, which may hold anything.
fn field<T: std::str::FromStr>(stat: &str, n: usize) -> Option<T> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    behind_name.split_whitespace().nth(n.checked_sub(3)?)?.parse().ok()
}

/// The first number behind `key` at the beginning of a line.
fn after<T: std::str::FromStr>(text: &str, key: &str) -> Option<T> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_by_its_manual() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 7 0 2000 1 1 1";
        let status = "Name:\ta\nVmRSS:\t   2048 kB\nThreads:\t7\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 4096                 files\n";
        let usage = Usage::parse(stat, status, limits, "cpu 1 2\nbtime 1700000000\n");
        let expected = Usage {
            cpu_seconds: Some(2.0),
            resident_bytes: Some(2_097_152),
            open_fds: None,
            max_fds: Some(1_024),
            threads: Some(7),
            started: Some(1_700_000_020.0),
        };
        assert_eq!(usage, expected);
        assert_eq!(Usage::parse("", "x", "Max open files unlimited", ""), Usage::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen() {
        let usage = Usage::read();
        assert!(usage.cpu_seconds.is_some() && usage.resident_bytes > Some(0) && usage.open_fds > Some(0), "{usage:?}");
    }
}
