//! One directory on a disk, as far as the journal needs it: few operations, each of which may fail, and none durable before
//! its sync. The second implementation is a disk for tests that forgets, tears, fills up and fails on demand.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// A directory of files that grow at their end.
pub trait Disk: Send + Sync {
    /// Where it is, for people.
    fn place(&self) -> &Path;
    /// The names in it, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A file's length.
    fn len(&self, name: &str) -> io::Result<u64>;
    /// Reads from `at` on, as much as there is room and content for; 0 at the end.
    fn read(&self, name: &str, at: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes at the end of a file; makes it if there is none. After an error some of the bytes may be there.
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file.
    fn truncate(&self, name: &str, len: u64) -> io::Result<()>;
    /// Makes a file's content durable. What was written before a failed sync may be lost, whatever a later sync says.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Gives a file another name; one that has it is replaced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Takes a file away.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes durable which files there are, and their names.
    fn sync_dir(&self) -> io::Result<()>;
}

/// Whether there is no room left, by size or by quota.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// A real directory. The file written last stays open: after a failed `fdatasync` only the same handle is sure to tell.
#[derive(Debug)]
pub(in crate::store) struct RealDisk {
    place: PathBuf,
    open: Mutex<Option<(String, File)>>,
}

impl RealDisk {
    /// The directory at `place`, made if need be; durable in its parent.
    pub(in crate::store) fn open(place: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&place)?;
        place.parent().map_or(Ok(()), sync_directory)?;
        Ok(RealDisk { place, open: Mutex::new(None) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// Runs `act` on the file's handle.
    fn with<T>(&self, name: &str, act: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.as_mut().filter(|(last, _)| last == name) {
            return act(file);
        }
        let file = OpenOptions::new().create(true).read(true).append(true).open(self.path(name))?;
        act(&mut open.insert((name.to_owned(), file)).1)
    }

    fn forget(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    // A relative home such as `x` has the parent ``.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

impl Disk for RealDisk {
    fn place(&self) -> &Path {
        &self.place
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.place)?;
        // Names that are no text are not ours.
        entries.filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose()).collect()
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path(name))?.len())
    }

    fn read(&self, name: &str, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = File::open(self.path(name))?;
        file.seek(SeekFrom::Start(at))?;
        let mut filled = 0;
        while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            match file.read(room) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.with(name, |file| file.write_all(bytes))
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.with(name, |file| file.set_len(len))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.with(name, |file| file.sync_data())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.forget();
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.forget();
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_directory(&self.place)
    }
}
