//! What the screen is fed with: the running node's answers, the receipts of the last day, the log. Three loops, one bounded
//! channel; a screen that is slow slows them down. Whatever fails is tried again.

use super::{
    income::{Earned, MAX_RECEIPTS, SPAN_MS},
    state::{Input, LOG_LINES, Snapshot},
};
use crate::{
    cli::{exit::Exit, logs, query},
    clock,
    control::client::{AskError, Client},
    store::{MAX_PAGE, Position},
};
use infernet_wire::{id::NodeId, time::UnixMillis, topic::NetworkId};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{sync::mpsc, time::sleep};

/// How often the node is asked: a person sees tokens flow, and the node hardly notices.
const ASK: Duration = Duration::from_secs(1);
/// How often new receipts are looked for. Each is verified, so this costs more.
const RECEIPTS: Duration = Duration::from_secs(5);
/// How often the log is looked at.
const LOG: Duration = Duration::from_millis(500);
/// Jobs that are asked for.
const JOBS: usize = 100;
/// Receipts of a look, unless more are new.
const NEWEST: usize = 50;
/// What ended so long before the newest known may still come in: the last job of several to be signed.
const LATE_MS: u64 = 10 * 60_000;

/// Feeds `inputs` from `home` until nobody listens.
pub(super) async fn run(home: PathBuf, us: BTreeSet<NodeId>, inputs: mpsc::Sender<Input>) {
    tokio::join!(ask(&home, &inputs), receipts(&home, &us, &inputs), log(&home, &inputs));
}

async fn ask(home: &Path, inputs: &mpsc::Sender<Input>) {
    let mut node = None;
    loop {
        let input = match snapshot(home, &mut node).await {
            Ok(snapshot) => Input::Snapshot(Box::new(snapshot)),
            Err(exit) => {
                node = None;
                Input::Gone(exit.message)
            }
        };
        if inputs.send(input).await.is_err() {
            return;
        }
        sleep(ASK).await;
    }
}

async fn snapshot(home: &Path, node: &mut Option<Client>) -> Result<Snapshot, Exit> {
    if node.is_none() {
        *node = Client::connect(home);
    }
    let node = node.as_ref().ok_or_else(|| Exit::not_running(home))?;
    Ok(Snapshot {
        status: node.get("status").await?,
        peers: node.get("peers").await?,
        jobs: node.get(&format!("jobs?limit={JOBS}")).await?,
    })
}

async fn receipts(home: &Path, us: &BTreeSet<NodeId>, inputs: &mpsc::Sender<Input>) {
    let mut newest = UnixMillis(0);
    loop {
        // A node that is gone is told of by `ask`.
        if let Ok(earned) = earned(home, us, newest).await {
            newest = earned.iter().map(|one| one.at).max().unwrap_or_default().max(newest);
            if !earned.is_empty() && inputs.send(Input::Earned(earned)).await.is_err() {
                return;
            }
        }
        if inputs.is_closed() {
            return;
        }
        sleep(RECEIPTS).await;
    }
}

/// What was earned since shortly before `newest`, and at most a day ago.
async fn earned(home: &Path, us: &BTreeSet<NodeId>, newest: UnixMillis) -> Result<Vec<Earned>, Exit> {
    let node = Client::connect(home).ok_or_else(|| Exit::not_running(home))?;
    let network: NetworkId = query::network_of(&node, None).await?;
    let since = newest.0.saturating_sub(LATE_MS).max(clock::now().0.saturating_sub(SPAN_MS));
    let (mut earned, mut before, mut limit) = (Vec::new(), None, NEWEST);
    while earned.len() < MAX_RECEIPTS {
        let (page, _) = query::receipts_page(&node, &network, before, limit).await?;
        earned.extend(page.iter().filter_map(|receipt| Earned::of(receipt, us)).filter(|one| one.at.0 >= since));
        match page.last() {
            Some(last) if last.receipt().finished.0 >= since => before = Some(Position::of(last)),
            _ => break,
        }
        limit = MAX_PAGE;
        // Verifying is work; keys are to be heard in between.
        tokio::task::yield_now().await;
    }
    Ok(earned)
}

async fn log(home: &Path, inputs: &mpsc::Sender<Input>) {
    let mut tail = None;
    loop {
        let lines = logs::read_on(home, LOG_LINES, &mut tail).unwrap_or_default();
        if !lines.is_empty() && inputs.send(Input::Log(lines)).await.is_err() {
            return;
        }
        if inputs.is_closed() {
            return;
        }
        sleep(LOG).await;
    }
}

/// Tells the node of `home` to drain, or to take jobs again. Returns whether it drains now.
pub(super) async fn drain(home: &Path, drain: bool) -> Result<bool, String> {
    let node = Client::connect(home).ok_or_else(|| Exit::not_running(home).message)?;
    let path = if drain { "drain" } else { "resume" };
    let answer: Result<Result<crate::control::schema::DrainReport, _>, AskError> = node.post(path, String::new()).await;
    match answer {
        Ok(Ok(report)) => Ok(report.draining),
        Ok(Err(refusal)) => Err(refusal.message),
        Err(error) => Err(error.to_string()),
    }
}
