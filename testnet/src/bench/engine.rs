//! A metronome as a process of its own: this very binary, started again as `infernet-testnet engine …`.

use super::BenchError;
use crate::cluster::process;
use std::{path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long it may take until it listens.
const START: Duration = Duration::from_secs(30);

/// A running metronome. Dropping it kills it.
pub struct EngineProcess {
    child: Child,
    url: String,
}

impl EngineProcess {
    /// Starts one whose every stream has `tokens_per_second`.
    pub async fn metronome(binary: &Path, tokens_per_second: f64) -> Result<Self, BenchError> {
        let mut command = Command::new(binary);
        command.args(["engine", "--tokens-per-second", &tokens_per_second.to_string()]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut url = String::new();
        let reading = async {
            match child.stdout.take() {
                Some(out) => BufReader::new(out).read_line(&mut url).await,
                None => Ok(0),
            }
        };
        let read = timeout(START, reading).await;
        match read {
            Ok(Ok(1..)) => Ok(EngineProcess { child, url: url.trim().to_owned() }),
            _ => Err(BenchError::Options(format!("the engine did not start within {} s", START.as_secs()))),
        }
    }

    /// Its base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a signal by name, such as `STOP`. Whether there was a process to take it.
    pub async fn signal(&self, name: &str) -> bool {
        match self.child.id() {
            Some(pid) => process::signal(pid, name).await,
            None => false,
        }
    }

    /// Its process id; 0 once it has ended.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }
}
