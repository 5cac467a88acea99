//! Files that are replaced whole or not at all, and by one writer at a time.

use crate::clock;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Who changes a file holds its lock for some milliseconds; a disk that is asleep takes seconds.
const LOCK: Duration = Duration::from_secs(5);
/// How often it is looked whether the lock is free.
const LOOK: Duration = Duration::from_millis(10);

/// Replaces the file at `path` by `bytes`, on the disk when this returns. A new file can be read by its owner alone; permissions
/// are `mode`, else those of the file that was there.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: Option<u32>) -> io::Result<()> {
    // Its own for every writer: what one has half written, no other puts in place.
    let draft = beside(path, &hex::encode(clock::random::<8>()));
    let old = || fs::metadata(path).ok().map(|about| about.permissions().mode() & 0o7777);
    let place = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        if let Some(mode) = mode.or_else(old) {
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    let placed = place();
    if placed.is_err() {
        // Half a file is of no use.
        let _ = fs::remove_file(&draft);
    }
    placed?;
    // The name is durable with its directory.
    path.parent().map_or(Ok(()), |home| File::open(home)?.sync_all())
}

/// The right to change the file at `path`, of whatever process, until it is dropped. Blocks for at most five seconds.
pub(crate) fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(beside(path, "lock"))?;
    let begin = clock::instant();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begin.elapsed() < LOCK => thread::sleep(LOOK),
            Err(TryLockError::WouldBlock) => {
                let text = format!("another command has been changing it for {} s; try again when it is done", LOCK.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// `.config.toml.lock`, for `config.toml` and `lock`.
fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_permissions_unless_told() {
        let home = tempfile::tempdir().expect("a place");
        let path = home.path().join("a.toml");
        replace(&path, b"1", None).expect("written");
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        replace(&path, b"2", None).expect("written");
        assert_eq!((fs::read(&path).expect("read").as_slice(), mode(&path)), (&b"2"[..], 0o644));
        replace(&path, b"3", Some(0o600)).expect("written");
        assert_eq!((mode(&path), fs::read_dir(home.path()).expect("a place").count()), (0o600, 1), "no draft stays");
        assert!(replace(&home.path().join("nowhere/a"), b"", None).is_err());
    }

    #[test]
    fn one_writer_at_a_time_so_that_no_change_is_lost() {
        let home = tempfile::tempdir().expect("a place");
        let path = home.path().join("n");
        replace(&path, b"0", None).expect("written");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let _lock = lock(&path).expect("free in time");
                        let n: u32 = fs::read_to_string(&path).expect("whole").parse().expect("a number");
                        replace(&path, (n + 1).to_string().as_bytes(), None).expect("written");
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).expect("whole"), "20");
    }
}
