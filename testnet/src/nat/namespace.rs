//! Network namespaces of our own: nothing in them reaches this machine's network, nor it them.
//!
//! No privilege is needed where user namespaces are allowed. One process holds each namespace, and ends with this one, however
//! this one ends; with it go its interfaces.

use std::{path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long `ip`, `nft` or a namespace may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A namespace could not be had, or not be set up.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// This machine gives none.
    #[error("no network namespaces here ({0}): user namespaces must be allowed, or run it as root")]
    Refused(String),
    /// A program that sets it up failed, or is missing.
    #[error("`{program}` failed in a namespace: {said}; iproute2, nftables and util-linux must be installed")]
    Program {
        /// Which.
        program: String,
        /// Its last words.
        said: String,
    },
    /// The kernel can't.
    #[error("this kernel delays no packets in a namespace (no netem: {said})")]
    NoDelay {
        /// The last words of `tc`.
        said: String,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Namespace {
    // Its stdin is ours: it ends when we do.
    holder: Child,
}

impl Namespace {
    /// The first, with users of its own, in which we are root.
    pub async fn world() -> Result<Self, NamespaceError> {
        let mut command = Command::new("unshare");
        command.arg("-Urn");
        Self::hold(command).await
    }

    /// Another network of the same users.
    pub async fn another(&self) -> Result<Self, NamespaceError> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid(), "-U", "--preserve-credentials", "--", "unshare", "-n"]);
        let other = Self::hold(command).await?;
        other.shell("ip link set lo up").await?;
        Ok(other)
    }

    async fn hold(mut command: Command) -> Result<Self, NamespaceError> {
        command.args(["--", "sh", "-c", "echo held && exec cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut holder = command.spawn().map_err(|error| NamespaceError::Refused(error.to_string()))?;
        let mut line = String::new();
        let reading = async {
            match holder.stdout.take() {
                Some(out) => BufReader::new(out).read_line(&mut line).await,
                None => Ok(0),
            }
        };
        match timeout(PATIENCE, reading).await {
            Ok(Ok(1..)) => Ok(Namespace { holder }),
            _ => {
                let mut said = String::new();
                if let Some(stderr) = holder.stderr.as_mut() {
                    let _ = timeout(Duration::from_secs(1), stderr.read_to_string(&mut said)).await;
                }
                Err(NamespaceError::Refused(said.trim().to_owned()))
            }
        }
    }

    /// Its holder.
    pub fn pid(&self) -> String {
        // A holder that has ended has no id, and nothing can enter.
        self.holder.id().unwrap_or_default().to_string()
    }

    /// A command that runs `program` in it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid(), "-U", "-n", "--preserve-credentials", "--"]).arg(program);
        command
    }

    /// Runs lines of shell in it.
    pub async fn shell(&self, lines: &str) -> Result<(), NamespaceError> {
        let mut command = self.command(Path::new("sh"));
        command.args(["-ec", lines]);
        self.finish(command, lines, "").await
    }

    /// Has nftables read `rules`.
    pub async fn filter(&self, rules: &str) -> Result<(), NamespaceError> {
        let mut command = self.command(Path::new("nft"));
        command.args(["-f", "-"]);
        self.finish(command, "nft", rules).await
    }

    async fn finish(&self, mut command: Command, program: &str, input: &str) -> Result<(), NamespaceError> {
        let failed = |said: String| NamespaceError::Program { program: program.to_owned(), said };
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let running = async {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes()).await?;
            }
            child.wait_with_output().await
        };
        match timeout(PATIENCE, running).await {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("it took more than {} s", PATIENCE.as_secs()))),
        }
    }
}
