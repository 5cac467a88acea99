//! What the operating system tells of this machine. What a system does not tell is `None`.

use super::facts::Disk;
use crate::{clock, hardware};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{process::Command, time::timeout};

/// What is written to try a disk: a page, as a receipt is.
const PAGE: usize = 4096;
/// Asking systemd, which may have to start a service to answer.
const TIMEDATECTL: Duration = Duration::from_secs(3);
/// Linux's flags of an interface (`linux/if.h`).
const UP: u32 = 0x1;
const LOOPBACK: u32 = 0x8;
const MULTICAST: u32 = 0x1000;

/// The disk below `home`. Writes to it only if the home is there. May take as long as a sick disk takes.
pub(super) fn disk(home: &Path) -> Disk {
    let free = home.ancestors().find_map(hardware::free_disk);
    Disk { free, synced: home.is_dir().then(|| sync(home).map_err(|error| error.to_string())) }
}

fn sync(home: &Path) -> io::Result<Duration> {
    let path = home.join(format!(".doctor-{}", hex::encode(clock::random::<8>())));
    let begin = clock::instant();
    let written = write(&path).and_then(|()| File::open(home)?.sync_all());
    let took = begin.elapsed();
    let removed = fs::remove_file(&path);
    written?;
    removed.map(|()| took)
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&[0; PAGE])?;
    file.sync_all()
}

/// The largest receive and send buffers of a socket, in bytes (Linux).
pub(super) fn buffers() -> Option<(u64, u64)> {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?.trim().parse().ok();
    Some((read("rmem_max")?, read("wmem_max")?))
}

/// Whether an interface other than loopback is up and takes multicast (Linux).
pub(super) fn multicast() -> Option<bool> {
    let flags = |path: PathBuf| {
        let text = fs::read_to_string(path.join("flags")).ok()?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    let mut all = fs::read_dir("/sys/class/net").ok()?.filter_map(Result::ok).filter_map(|entry| flags(entry.path()));
    Some(all.any(|flags| flags & UP != 0 && flags & MULTICAST != 0 && flags & LOOPBACK == 0))
}

/// Whether the clock is set by time servers, if systemd knows.
pub(super) async fn synchronised() -> Option<bool> {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    let mut asking = Command::new("timedatectl");
    asking.args(["show", "--property=NTPSynchronized", "--value"]).kill_on_drop(true);
    let answer = timeout(TIMEDATECTL, asking.output()).await.ok()?.ok()?;
    match answer.stdout.as_slice() {
        b"yes\n" => Some(true),
        b"no\n" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_tried_without_a_trace() {
        let home = tempfile::tempdir().unwrap();
        let seen = disk(home.path());
        assert!(seen.free.is_some_and(|free| free > 0));
        assert!(matches!(seen.synced, Some(Ok(_))));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        let none = disk(&home.path().join("a/b"));
        assert!(none.free.is_some() && none.synced.is_none());
        assert!(!home.path().join("a").exists());
    }

    #[test]
    fn this_process_may_open_files() {
        assert!(hardware::descriptors().0.is_none_or(|files| files > 3));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells_of_memory() {
        assert!(hardware::memory().0.is_some_and(|bytes| bytes > 1 << 26));
    }
}
