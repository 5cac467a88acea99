//! Processes that do one thing, and are killed on the way.

use super::{
    account::Told,
    stop::{STOPPED, Stop},
};
use crate::bench::BenchError;
use infernet_wire::codec;
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long a process may take, all its own deadlines included.
const PATIENCE: Duration = Duration::from_secs(100);
const SIGKILL: i32 = 9;

/// Why a life is over too early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Wrong {
    /// It is not as it should be.
    #[error("{0}")]
    Found(String),
    /// It can't be told.
    #[error(transparent)]
    Stage(#[from] BenchError),
}

/// How the last process ended.
pub(super) struct Ended {
    line: String,
    /// Stops that no process came to.
    pub(super) passed: u64,
}

impl Ended {
    /// What it said in the end.
    pub(super) fn said<T: DeserializeOwned>(&self) -> Result<T, Wrong> {
        let said = hex::decode(&self.line).ok().and_then(|said| codec::decode(&said).ok());
        said.ok_or_else(|| Wrong::Found("the last process did not end well".into()))
    }
}

/// Does it in as many processes as it takes, each of which is killed at whichever of the `stops` comes first, but the last.
pub(super) async fn to_its_end(
    binary: &Path,
    mut stops: Vec<Stop>,
    kills: &mut BTreeMap<Stop, u64>,
    told: impl Fn(Vec<Stop>) -> Told,
) -> Result<Ended, Wrong> {
    loop {
        let mut child = start(binary, &told(stops.clone())).await?;
        let said = first_line(&mut child).await.unwrap_or_default();
        let at = said.strip_prefix(STOPPED).and_then(|at| at.parse().ok()).filter(|at: &usize| *at < stops.len());
        let Some(at) = at else {
            // The disk can be slower than the chain's node: what is wanted has a nonce before it is known that the wish is kept.
            let passed = u64::try_from(stops.len()).unwrap_or_default();
            let ended = timeout(PATIENCE, child.wait()).await;
            if !matches!(ended, Ok(Ok(status)) if status.success()) {
                return Err(Wrong::Found(format!("the last process did not end well: {:?}", told(stops))));
            }
            return Ok(Ended { line: said, passed });
        };
        let stop = stops.remove(at);
        // SIGKILL.
        child.kill().await.map_err(BenchError::from)?;
        let ended: ExitStatus = child.wait().await.map_err(BenchError::from)?;
        if ended.signal() != Some(SIGKILL) {
            return Err(Wrong::Found(format!("it was not killed at: {stop}, but {ended}")));
        }
        *kills.entry(stop).or_default() += 1;
    }
}

async fn start(binary: &Path, told: &Told) -> Result<Child, BenchError> {
    let mut command = Command::new(binary);
    command.arg("account").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut child = command.spawn()?;
    if let Some(stdin) = &mut child.stdin {
        // It stays open: a process that has stopped ends with it.
        stdin.write_all(format!("{}\n", hex::encode(codec::encode(told))).as_bytes()).await?;
    }
    Ok(child)
}

async fn first_line(child: &mut Child) -> Option<String> {
    let (mut line, mut said) = (String::new(), BufReader::new(child.stdout.as_mut()?));
    timeout(PATIENCE, said.read_line(&mut line)).await.ok()?.ok()?;
    Some(line.trim().to_owned())
}
