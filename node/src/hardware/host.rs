//! Processor load and memory from `/proc`, so on Linux only, room on a disk, and files that may be open. The only file that names
//! `rustix`.

use rustix::process::{Resource, getrlimit};
use std::{fs, path::Path, thread};

/// See [`super::Reading::load_percent`].
pub(super) fn load_percent() -> Option<u16> {
    let processors = thread::available_parallelism().ok()?.get();
    parse_load(&fs::read_to_string("/proc/loadavg").ok()?, processors)
}

/// The machine's memory, and what programs could still have, in bytes.
pub fn memory() -> (Option<u64>, Option<u64>) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    (field(&text, "MemTotal:"), field(&text, "MemAvailable:"))
}

/// What is free for us on the disk of `path`, in bytes. `None` if nobody can tell, as for a path that is not there.
pub fn free_disk(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// Files that this process may open: now, and at most.
pub fn descriptors() -> (Option<u64>, Option<u64>) {
    let limit = getrlimit(Resource::Nofile);
    (limit.current, limit.maximum)
}

fn parse_load(loadavg: &str, processors: usize) -> Option<u16> {
    let load: f64 = loadavg.split(' ').next()?.parse().ok()?;
    let percent = (load * 100.0 / processors.max(1) as f64).round();
    // Saturates; what is not a number is 0.
    percent.is_finite().then_some(percent as u16)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let kib: u64 = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_a_share_of_the_processors() {
        assert_eq!(parse_load("1.50 0.7 0.6 1/200 999\n", 2), Some(75));
        assert_eq!(parse_load("0.00 0 0", 64), Some(0));
        assert_eq!(parse_load("99999999 0 0", 1), Some(u16::MAX));
        assert_eq!((parse_load("", 1), parse_load("NaN", 1), parse_load("x", 1)), (None, None, None));
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       16374120 kB\nMemFree:  1 kB\nMemAvailable:   9374120 kB\n";
        assert_eq!((field(text, "MemTotal:"), field(text, "MemAvailable:")), (Some(16_374_120 << 10), Some(9_374_120 << 10)));
        assert_eq!((field("", "MemTotal:"), field("MemTotal: many", "MemTotal:")), (None, None));
    }

    #[test]
    fn a_disk_that_is_there_has_its_room() {
        assert!(free_disk(Path::new("/")).is_some());
        assert_eq!(free_disk(Path::new("/nonexistent/path")), None);
    }
}
