//! The short commands: `init`, `models`, `peers`; and how others read receipts.

use super::{Context, chat, exit, exit::Exit, flags::MeshArgs};
use crate::{
    clock, config,
    control::{
        client::{AskError, Client},
        schema::{ModelReport, PeerReport, ReceiptRows, StatusReport},
    },
    identity,
    market::registry::KnownModel,
    node::Node,
    store::{self, Page, Position, Store, StoreError},
};
use clap::Args;
use infernet_wire::{
    id::{JobId, NodeId},
    limits,
    money::MicroUsd,
    receipt::SignedReceipt,
    topic::NetworkId,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::{path::PathBuf, time::Duration};
use tokio::time::sleep;

/// How long a newcomer listens for ads. Neighbours repeat theirs within ten seconds; others when they are due.
const LISTEN_MS: u64 = limits::AD_REFRESH_MS.end + 1_000;
/// How often it looks whether one came.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct ModelsArgs {
    #[command(flatten)]
    mesh: MeshArgs,
}

/// `infernet init --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InitReport {
    /// The node id.
    #[schemars(with = "String")]
    id: NodeId,
    /// Where key and configuration are.
    home: PathBuf,
    /// The configuration file.
    config: PathBuf,
}

pub(super) fn init(context: &Context) -> Result<(), Exit> {
    if !context.home.join(identity::KEY_FILE).exists() {
        context.may_make_key()?;
        identity::init(&context.home)?;
    }
    let (id, _) = identity::public(&context.home)?;
    let file = config::write_default(&context.home)?;
    if context.json {
        return context.print_json(&InitReport { id, home: context.home.clone(), config: file });
    }
    context.print(id.to_string());
    context.note(format!("key and configuration are in {}; next: `infernet start`", context.home.display()));
    Ok(())
}

pub(super) async fn models(context: &Context, args: ModelsArgs) -> Result<(), Exit> {
    let (models, none): (Vec<ModelReport>, _) = match Client::connect(&context.home) {
        Some(node) => (node.get("models").await?, "no other node's model is known yet; a node hears of all within a minute"),
        None => (listen_for_models(context, &args.mesh).await?, "nobody offers a model"),
    };
    if context.json {
        return context.print_json(&models);
    }
    tell_own_models(context).await?;
    if models.is_empty() {
        context.note(none);
        return Ok(());
    }
    context.print(format!("{:<40} {:>7} {:>14} {:>14} {:>9}", "MODEL", "WORKERS", "IN $/M FROM", "OUT $/M", "CONTEXT"));
    for model in &models {
        let (input, output) = (MicroUsd(model.price_in).to_string(), MicroUsd(model.price_out).to_string());
        context.print(format!("{:<40} {:>7} {input:>14} {output:>14} {:>9}", model.id, model.workers, model.context));
    }
    Ok(())
}

/// What the node of this home sells: it is not among those to buy.
async fn tell_own_models(context: &Context) -> Result<(), Exit> {
    let Some(node) = Client::connect(&context.home) else { return Ok(()) };
    let status: StatusReport = node.get("status").await?;
    if let Some(seller) = status.seller.filter(|seller| !seller.models.is_empty()) {
        context.note(format!("this node itself sells {}", seller.models.join(", ")));
    }
    Ok(())
}

/// Joins, and waits until ads have come and no more come.
async fn listen_for_models(context: &Context, mesh: &MeshArgs) -> Result<Vec<ModelReport>, Exit> {
    let node = chat::join(context, mesh).await?;
    context.note(format!("no node runs here, so listening to the mesh for up to {} s", LISTEN_MS / 1000));
    let models = context.during("listening for offers", hear_models(&node)).await;
    node.shutdown(Duration::ZERO).await;
    Ok(models.iter().map(ModelReport::from).collect())
}

async fn hear_models(node: &Node) -> Vec<KnownModel> {
    let end = clock::now().after(LISTEN_MS);
    let mut models = Vec::new();
    while clock::now() < end && models.is_empty() {
        sleep(LOOK).await;
        models = node.buyer().known_models().await;
    }
    if !models.is_empty() {
        // Whoever else answers the same greeting does so at about the same time.
        sleep(LOOK * 10).await;
        models = node.buyer().known_models().await;
    }
    models
}

pub(super) async fn peers(context: &Context) -> Result<(), Exit> {
    let node = Client::connect(&context.home).ok_or_else(|| Exit::not_running(&context.home))?;
    let peers: Vec<PeerReport> = node.get("peers").await?;
    if context.json {
        return context.print_json(&peers);
    }
    if peers.is_empty() {
        context.note("no peers yet: name one with --bootstrap, or wait for the local network to answer");
        return Ok(());
    }
    context.print(format!(
        "{:<10} {:<5} {:<9} {:<8} {:>8} {:>7} {:>9}  {}",
        "PEER", "OVER", "DIRECTION", "PATH", "RTT", "SCORE", "SINCE", "REMOTE"
    ));
    for peer in &peers {
        let rtt = peer.rtt_ms.map_or("-".into(), |ms| format!("{ms} ms"));
        let since = format!("{} s", peer.connected_ms / 1000);
        context.print(format!(
            "{:<10} {:<5} {:<9} {:<8} {rtt:>8} {:>7.1} {since:>9}  {}",
            peer.id.short(),
            peer.transport,
            peer.direction,
            peer.path,
            peer.score,
            peer.remote
        ));
        if let (Some(via), Some(why)) = (&peer.via, &peer.why_not_direct) {
            context.print(format!("{:<10} relayed through {via}: {why}", ""));
        }
    }
    Ok(())
}

/// Those of the running node, verified here, and how many do not verify.
pub(super) async fn ask_receipts(node: &Client, network: &NetworkId, limit: usize) -> Result<(Vec<SignedReceipt>, u64), Exit> {
    let (mut all, mut bad) = (Vec::new(), 0_u64);
    loop {
        let asked = limit.saturating_sub(all.len()).min(store::MAX_PAGE);
        let before = all.last().map(Position::of);
        let (page, refused) = receipts_page(node, network, before, asked).await?;
        bad = bad.saturating_add(refused);
        let is_last = page.is_empty();
        all.extend(page);
        if is_last || all.len() >= limit {
            return Ok((all, bad));
        }
    }
}

/// The network of the running node, which must be the one that was `wanted`, if any.
pub(super) async fn network_of(node: &Client, wanted: Option<NetworkId>) -> Result<NetworkId, Exit> {
    Ok(who(node, wanted).await?.0)
}

/// The same, and the node's id: its key need not be in its home.
pub(super) async fn who(node: &Client, wanted: Option<NetworkId>) -> Result<(NetworkId, NodeId), Exit> {
    let status: StatusReport = node.get("status").await?;
    if let Some(other) = wanted.filter(|network| network.to_string() != status.network) {
        let text = format!("the running node is on network {}; stop it to read the receipts of {other}", status.network);
        return Err(Exit::new(exit::USAGE, text));
    }
    Ok((status.network.parse().map_err(|_| AskError::Malformed)?, status.id))
}

/// A page of the running node's receipts, newest first, each verified here, and how many are not good.
pub(super) async fn receipts_page(
    node: &Client,
    network: &NetworkId,
    before: Option<Position>,
    limit: usize,
) -> Result<(Vec<SignedReceipt>, u64), Exit> {
    let before = before.map(|position| format!("&before={position}")).unwrap_or_default();
    Ok(verified(&node.get(&format!("receipts?limit={limit}{before}")).await?, network))
}

/// The running node's receipts of one job, each verified here, and how many are not good.
pub(super) async fn receipts_of(node: &Client, network: &NetworkId, job: &JobId) -> Result<(Vec<SignedReceipt>, u64), Exit> {
    // A node that does not know how to be asked for a job answers with its newest.
    let (mut receipts, bad) = verified(&node.get(&format!("receipts?limit={}&job={job}", store::MAX_PAGE)).await?, network);
    receipts.retain(|receipt| receipt.receipt().job == *job);
    Ok((receipts, bad))
}

fn verified(rows: &ReceiptRows, network: &NetworkId) -> (Vec<SignedReceipt>, u64) {
    let read = |row: &String| SignedReceipt::decode_stored(&hex::decode(row).ok()?, network).ok();
    let receipts: Vec<_> = rows.rows.iter().filter_map(read).collect();
    let refused = rows.rows.len() - receipts.len();
    (receipts, rows.unreadable.saturating_add(refused as u64))
}

/// Those on disk, and how many do not verify.
pub(super) fn read_receipts(context: &Context, network: &NetworkId, limit: usize) -> Result<(Vec<SignedReceipt>, u64), Exit> {
    if !context.home.is_dir() {
        return Ok((Vec::new(), 0));
    }
    let store = store::open(&context.home, network)?;
    let receipts = newest(&*store, limit)?;
    Ok((receipts, store.counts()?.unreadable))
}

/// The newest `limit` receipts of `store`, page by page.
fn newest(store: &dyn Store, limit: usize) -> Result<Vec<SignedReceipt>, StoreError> {
    let mut all: Vec<SignedReceipt> = Vec::new();
    while all.len() < limit {
        let page = Page { before: all.last().map(Position::of), limit: (limit - all.len()).min(store::MAX_PAGE) };
        let receipts = store.receipts(page)?;
        if receipts.is_empty() {
            break;
        }
        all.extend(receipts);
    }
    Ok(all)
}
