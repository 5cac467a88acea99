//! The log: lines for people on stderr, and JSON lines in `<home>/infernet.log`, for `infernet logs` and whatever collects logs.
//!
//! The file is bounded: at [`MAX_LOG_BYTES`] it becomes `infernet.log.1`, that becomes `.2`, and the oldest goes. Prompts,
//! answers and keys are in no log line, so they are in no file either. A log that can't be written stops nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

/// The log's name in a home.
pub const LOG_FILE: &str = "infernet.log";
/// A file's size at most: a few days of a busy node at the level `info`, and a moment to search.
pub const MAX_LOG_BYTES: u64 = 10 * 1024 * 1024;
/// Files in all, with the one that is written: 30 MiB on disk, a week or two.
pub const LOG_FILES: usize = 3;

/// The name of the `n`th oldest file of the log; 0 is the one that is written.
pub fn path(home: &Path, n: usize) -> PathBuf {
    match n {
        0 => home.join(LOG_FILE),
        n => home.join(format!("{LOG_FILE}.{n}")),
    }
}

/// Logs to stderr and, if it can be opened, to the log of `home`. `RUST_LOG` decides what, else `level` for this software and
/// errors of the libraries. Only a process's first call counts. Returns why there is no file, if there should be one.
pub fn log_to(home: Option<&Path>, level: &str) -> Option<io::Error> {
    let filter = || {
        let fallback = format!("error,infernet_node={level},infernet_testnet={level}");
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback))
    };
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let people = tracing_subscriber::fmt::layer().with_writer(Stderr::default).with_ansi(colour).with_filter(filter());
    let opened = home.map(Rotating::open).transpose();
    let (file, failed) = match opened {
        Ok(file) => (file, None),
        Err(error) => (None, Some(error)),
    };
    let layer = |file| tracing_subscriber::fmt::layer().json().with_writer(Mutex::new(file)).with_filter(filter());
    // A second call, in tests, keeps the first.
    let _ = Registry::default().with(people).with(file.map(layer)).try_init();
    failed
}

/// Whether a line of progress stands on the terminal that the next line of text must take away.
static LIVE_LINE: AtomicBool = AtomicBool::new(false);

/// stderr for whole lines. One that is written over, by [`Stderr::show_live`], is taken away before anything else is written.
#[derive(Debug, Default)]
pub struct Stderr(());

impl Stderr {
    /// Shows `text` on the line where the cursor is, over what was there. Only for terminals.
    pub fn show_live(text: &str) {
        LIVE_LINE.store(true, Ordering::Relaxed);
        // To the line's begin, the text, and nothing behind it. Whoever has closed stderr does not want it.
        let _ = write!(io::stderr().lock(), "\r{text}\x1b[K");
    }

    /// Takes the live line away, if there is one.
    pub fn clear_live() {
        if LIVE_LINE.swap(false, Ordering::Relaxed) {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Stderr::clear_live();
        io::stderr().lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// A file that never grows beyond its bound.
#[derive(Debug)]
pub struct Rotating {
    home: PathBuf,
    file: File,
    bytes: u64,
    limit: u64,
}

impl Rotating {
    /// Goes on with the log of `home`.
    pub fn open(home: &Path) -> io::Result<Self> {
        Self::open_at(home, MAX_LOG_BYTES)
    }

    fn open_at(home: &Path, limit: u64) -> io::Result<Self> {
        let file = append(&path(home, 0))?;
        let bytes = file.metadata()?.len();
        Ok(Rotating { home: home.into(), file, bytes, limit })
    }

    fn rotate(&mut self) -> io::Result<()> {
        for n in (1..LOG_FILES).rev() {
            match fs::rename(path(&self.home, n - 1), path(&self.home, n)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = append(&path(&self.home, 0))?;
        self.bytes = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

impl Write for Rotating {
    /// A line comes as one call, so no line is cut in two.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let len = line.len() as u64;
        if self.bytes > 0 && self.bytes + len > self.limit {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.bytes += len;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn lines(home: &Path, n: usize) -> Vec<String> {
        fs::read_to_string(path(home, n)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_log_is_bounded_and_loses_its_oldest_lines_whole() {
        let home = tempfile::tempdir().unwrap();
        let mut log = Rotating::open_at(home.path(), 10).unwrap();
        for n in 0..9 {
            log.write_all(format!("{n}{n}{n}\n").as_bytes()).unwrap();
        }
        assert_eq!(lines(home.path(), 0), ["888"]);
        assert_eq!(lines(home.path(), 1), ["666", "777"]);
        assert_eq!(lines(home.path(), 2), ["444", "555"]);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), LOG_FILES);
        assert_eq!(fs::metadata(path(home.path(), 0)).unwrap().permissions().mode() & 0o777, 0o600);

        let mut again = Rotating::open_at(home.path(), 10).unwrap();
        again.write_all(b"999\n").unwrap();
        assert_eq!(lines(home.path(), 0), ["888", "999"], "a restart goes on with the file");
    }

    #[test]
    fn a_line_that_is_too_long_is_kept_whole_in_a_file_of_its_own() {
        let home = tempfile::tempdir().unwrap();
        let mut log = Rotating::open_at(home.path(), 10).unwrap();
        log.write_all(b"1\n").unwrap();
        log.write_all(b"a long, long line\n").unwrap();
        log.write_all(b"2\n").unwrap();
        assert_eq!([0, 1, 2].map(|n| lines(home.path(), n)), [vec!["2"], vec!["a long, long line"], vec!["1"]]);
    }
}
