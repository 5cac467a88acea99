//! A disk that is small enough to be filled: a tmpfs in a mount namespace of its own.
//!
//! No privilege is needed where user namespaces are allowed (`unshare -Urm`); elsewhere [`SmallDisk::mount`] says why not. It
//! lives as long as one process that holds it, and that process ends with this one, however this one ends.

use super::ClusterError;
use std::{
    fs::{File, OpenOptions, remove_file},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long a mount may take.
const MOUNT: Duration = Duration::from_secs(10);
/// What fills it.
const BALLAST: &str = "ballast";
/// Written at once; the end of the disk is approached in smaller and smaller pieces.
const PIECE: usize = 1 << 20;

/// See the module.
pub struct SmallDisk {
    // Its stdin is ours: it ends when we do.
    holder: Child,
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts it over the directory `at`, for processes started by [`Self::command`] alone.
    pub async fn mount(at: &Path, megabytes: u32) -> Result<Self, ClusterError> {
        let script = r#"mount -t tmpfs -o "size=$2m,mode=700" tmpfs "$1" && echo mounted && exec cat"#;
        let mut command = Command::new("unshare");
        command.args(["-Urm", "--", "sh", "-c", script, "sh"]).arg(at).arg(megabytes.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut holder = command.spawn().map_err(|error| refused(&format!("`unshare`: {error}")))?;
        let mut line = String::new();
        let reading = async {
            match holder.stdout.take() {
                Some(out) => BufReader::new(out).read_line(&mut line).await,
                None => Ok(0),
            }
        };
        match timeout(MOUNT, reading).await {
            Ok(Ok(1..)) => Ok(SmallDisk { holder, at: at.to_owned() }),
            _ => Err(refused(&last_words(&mut holder).await)),
        }
    }

    /// A command that runs `program` where the disk is mounted.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid(), "-U", "-m", "--preserve-credentials", "--"]).arg(program);
        command
    }

    /// Its root, for processes outside.
    pub fn seen_from_outside(&self) -> PathBuf {
        let inside = self.at.strip_prefix("/").unwrap_or(&self.at);
        Path::new("/proc").join(self.pid()).join("root").join(inside)
    }

    /// Leaves no byte free. Bounded by the disk's size.
    pub fn fill(&self) -> io::Result<()> {
        let mut ballast = OpenOptions::new().create(true).append(true).open(self.ballast())?;
        let zeros = vec![0; PIECE];
        let mut piece = PIECE;
        while piece > 0 {
            if fill_with(&mut ballast, zeros.get(..piece).unwrap_or_default())? {
                piece /= 2;
            }
        }
        Ok(())
    }

    /// Frees what [`Self::fill`] took.
    pub fn empty(&self) -> io::Result<()> {
        match remove_file(self.ballast()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.seen_from_outside().join(BALLAST)
    }

    fn pid(&self) -> String {
        self.holder.id().unwrap_or_default().to_string()
    }
}

/// Whether `piece` no longer fits.
fn fill_with(ballast: &mut File, piece: &[u8]) -> io::Result<bool> {
    match ballast.write_all(piece) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(true),
        Err(error) => Err(error),
        Ok(()) => Ok(false),
    }
}

fn refused(why: &str) -> ClusterError {
    ClusterError::Engine(format!("no small disk on this machine (user namespaces are needed): {why}"))
}

async fn last_words(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = child.stderr.as_mut() {
        let _ = timeout(Duration::from_secs(1), stderr.read_to_string(&mut text)).await;
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_one_takes_nothing_and_an_emptied_one_does() {
        let home = tempfile::tempdir().expect("a directory");
        let disk = match SmallDisk::mount(home.path(), 4).await {
            Ok(disk) => disk,
            // It must say why, and then there is nothing to try.
            Err(error) => return assert!(error.to_string().contains("user namespaces"), "{error}"),
        };
        let file = disk.seen_from_outside().join("file");
        std::fs::write(&file, "before").expect("room");
        disk.fill().expect("fills");
        let full = std::fs::write(disk.seen_from_outside().join("more"), [0; 5_000]).expect_err("no room");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        disk.empty().expect("empties");
        disk.empty().expect("twice");
        std::fs::write(&file, [1; 100_000]).expect("room again");
        assert!(!home.path().join("file").exists(), "nobody else sees it");
    }
}
