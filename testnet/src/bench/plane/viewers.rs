//! What those cost who look at a live page: each has a connection of its own, and the page is made once for all.
//!
//! 13.2 KB each were measured, 132 MB for ten thousand, where the goal is 100. 8 KB of that are hyper's buffer for reading, which
//! it never makes smaller (`http1::Builder::max_buf_size` refuses less); the rest is the task, the body and the feed's place.

use crate::{bench::BenchError, cluster::NETWORK, machine};
use serde::Serialize;
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

/// Connections that are made at the same time: a listener's queue holds a thousand or so.
const AT_ONCE: usize = 100;
/// How long each may wait for what it must get; a page says every ten seconds that it lives.
const SOON: Duration = Duration::from_secs(60);

/// The result.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ViewersResult {
    /// Connections.
    pub viewers: usize,
    /// Resident memory of the plane's process before them, in kilobytes.
    pub before_kb: u64,
    /// And with all of them, after each was told twice.
    pub with_kb: u64,
}

/// A plane in a process of its own, and `count` who look at its first page.
pub(super) async fn run(count: usize) -> Result<ViewersResult, BenchError> {
    let home = tempfile::tempdir()?;
    let (child, addr) = plane(home.path()).await?;
    let rss = || child.id().and_then(machine::rss_kb_of).ok_or_else(|| BenchError::Options("the plane has ended".into()));
    // So that what it needs once is there.
    let mut viewers = look(&addr, AT_ONCE).await?;
    let before_kb = rss()?;
    while viewers.len() < AT_ONCE + count {
        viewers.extend(look(&addr, AT_ONCE.min(AT_ONCE + count - viewers.len())).await?);
    }
    // All of them are live: each is told once more.
    let again: Vec<_> = viewers.iter_mut().map(told).collect();
    futures::future::try_join_all(again).await?;
    Ok(ViewersResult { viewers: count, before_kb, with_kb: rss()? })
}

async fn plane(home: &std::path::Path) -> Result<(Child, String), BenchError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["plane", "--json", "--home"]).arg(home).args(["start", "--listen", "127.0.0.1:0", "--watch-listen", "none"]);
    command.args(["--p2p-listen", "/ip4/127.0.0.1/tcp/0", "--mdns", "false", "--buys", "false", "--network", NETWORK]);
    // All of them come from one address here.
    command.args(["--per-minute", "1000000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let out = child.stdout.take().ok_or_else(|| BenchError::Options("the plane says nothing".into()))?;
    let mut line = String::new();
    let read = timeout(SOON, async { BufReader::new(out).read_line(&mut line).await }).await;
    read.map_err(|_| BenchError::Options("the plane did not start".into()))??;
    let said: serde_json::Value = serde_json::from_str(&line).map_err(|error| BenchError::Options(error.to_string()))?;
    let addr = said.get("listen").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    Ok((child, addr))
}

async fn look(addr: &str, count: usize) -> Result<Vec<TcpStream>, BenchError> {
    let ask = |_| async {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("GET /live?of=%2F HTTP/1.1\r\nhost: {addr}\r\naccept: text/event-stream\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        told(&mut stream).await?;
        Ok::<_, BenchError>(stream)
    };
    futures::future::try_join_all((0..count).map(ask)).await
}

/// Reads until the page says as of when.
async fn told(stream: &mut TcpStream) -> Result<(), BenchError> {
    let mut seen = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    let reading = async {
        loop {
            let read = stream.read(&mut buffer).await?;
            seen.extend_from_slice(buffer.get(..read).unwrap_or_default());
            let text = String::from_utf8_lossy(&seen);
            match () {
                () if text.contains("event: asof") => return Ok(()),
                () if read == 0 || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 5") => {
                    let first = text.lines().next().unwrap_or("nothing").to_owned();
                    return Err(BenchError::Options(format!("a viewer was answered {first:?}")));
                }
                () => {}
            }
        }
    };
    timeout(SOON, reading).await.map_err(|_| BenchError::Options("a viewer was told nothing".into()))?
}
