//! A process with a node's own account on an EVM chain, store and tabs (see [`super::wallet`] for Solana), which does one thing, or stops on the way and waits to be killed.
//!
//! It is told what to do by a line on stdin. It asks its account for that unless its journal says that it was asked for before, as an
//! owner would who looks at `infernet payout list` first; waits until every step has ended; and tells all steps.

use super::{
    stop::{self, Stop},
    wallet,
};
use infernet_node::settlement::{
    evm::EvmSettings,
    service::{Account, Settings, State},
    steps::{Entry, Purpose},
    tabs::{Credit, Sale, Tabs},
};
use infernet_wire::{
    chat::{Closed, Payment},
    codec,
    evm::EvmAddress,
    id::{ChannelId, EvmSignature, JobId, NodeId},
    key::NodeKey,
    money::MicroUsd,
    settle::EvmTerms,
    topic::NetworkId,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// Between two looks: everything is near.
const POLL: Duration = Duration::from_millis(10);
/// For everything that it waits for, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a worker redeems by itself, in these lives: everything.
const PAYOUT_AT: MicroUsd = MicroUsd(1);

/// What a process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Told {
    /// On an EVM chain.
    Evm(Orders),
    /// On Solana.
    Solana(wallet::Orders),
}

/// What such a process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// Its key.
    pub key: ByteBuf,
    /// Its home.
    pub home: String,
    /// The chain's node.
    pub rpc: String,
    /// Where channels are.
    pub terms: EvmTerms,
    /// The number of its last step before this.
    pub after: u64,
    /// What to do.
    pub task: Task,
    /// Where to stop: at whichever comes first.
    pub stops: Vec<Stop>,
}

/// What there is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Task {
    /// Put money into a channel.
    Deposit(NodeId, MicroUsd),
    /// Take a buyer's payment for a job; it is redeemed by itself.
    Sell(NodeId, ChannelId, Payment),
    /// Send money away.
    Withdraw(EvmAddress, MicroUsd),
    /// End a channel as both sides have signed it.
    Close(ChannelId, Closed, EvmSignature),
    /// Want out of the channels to a worker.
    Exit(NodeId),
    /// Take what is left, by itself when the time has come.
    FinishExit,
}

impl Task {
    /// Whether a step is what this comes to.
    pub fn comes_to(&self, purpose: &Purpose) -> bool {
        match self {
            Task::Deposit(..) => matches!(purpose, Purpose::Open { .. } | Purpose::TopUp { .. }),
            Task::Sell(..) => matches!(purpose, Purpose::Redeem { .. }),
            Task::Withdraw(..) => matches!(purpose, Purpose::Withdraw { .. }),
            Task::Close(..) => matches!(purpose, Purpose::Close { .. }),
            Task::Exit(..) => matches!(purpose, Purpose::StartExit { .. }),
            Task::FinishExit => matches!(purpose, Purpose::FinishExit { .. }),
        }
    }
}

/// Does what stdin says, and tells on `out` what came of it. On one thread: where that stops, everything does.
pub fn main(out: &mut dyn Write) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let told: Told = codec::decode(&hex::decode(line.trim())?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let said = match told {
        Told::Evm(orders) => codec::encode(&runtime.block_on(run(orders))?),
        Told::Solana(orders) => codec::encode(&runtime.block_on(wallet::run(orders))?),
    };
    writeln!(out, "{}", hex::encode(said))?;
    Ok(out.flush()?)
}

async fn run(orders: Orders) -> anyhow::Result<Vec<(u64, Entry)>> {
    let Orders { key, home, rpc, terms, after, task, stops } = orders;
    let key = NodeKey::from_bytes(key.as_slice().try_into()?)?;
    let network = NetworkId::default();
    let store = stop::open(Path::new(&home), &network, stops)?;
    let tabs = Tabs::new(key.clone(), &[], network, store.clone(), Credit::default());
    let evm = EvmSettings { rpc: rpc.parse().map_err(anyhow::Error::msg)?, terms, depth: 1, max_gwei: 200 };
    let settings = Settings { evm, payout_at: PAYOUT_AT, payout_to: None, poll: POLL };
    let (account, _driver) = Account::spawn(settings, key.clone(), store.clone(), tabs.clone())?;
    until("the chain is read", || account.state().ready, &account).await?;
    let asked = || account.steps().iter().any(|(number, entry)| *number > after && task.comes_to(&entry.purpose));
    if !asked() {
        match &task {
            Task::Deposit(worker, amount) => _ = account.deposit(*worker, *amount).await?,
            Task::Withdraw(to, amount) => _ = account.withdraw(*to, Some(*amount), false).await?,
            Task::Close(channel, closed, payer) => _ = account.end(*channel, closed, *payer).await?,
            Task::Exit(worker) => _ = account.exit(*worker).await?,
            Task::Sell(buyer, channel, payment) => sell(&tabs, *buyer, channel, payment).await?,
            Task::FinishExit => {}
        }
    }
    let ended = || asked() && account.steps().iter().all(|(_, entry)| entry.is_done());
    until("the steps end", ended, &account).await?;
    store.flush()?;
    Ok(account.steps())
}

/// As a worker does that is paid for a job beforehand; what counted before a crash counts.
async fn sell(tabs: &Tabs, buyer: NodeId, channel: &ChannelId, payment: &Payment) -> anyhow::Result<()> {
    if tabs.sold_on(&buyer, channel)?.promised() >= u128::from(payment.paid.0) {
        return Ok(());
    }
    let sale = Sale { buyer, job: JOB, most: payment.paid, tokens: 1, payment: Some(payment), rate: 1 };
    let mut till = tabs.open(&sale)?;
    till.take(payment)?;
    till.kept().await?;
    till.close(payment.paid, true);
    Ok(())
}

/// The job that is sold.
pub const JOB: JobId = JobId([7; 16]);

async fn until(what: &str, holds: impl Fn() -> bool, account: &Account) -> anyhow::Result<()> {
    let waiting = async {
        while !holds() {
            sleep(POLL).await
        }
    };
    timeout(PATIENCE, waiting).await.map_err(|_| {
        let State { error, waits, .. } = account.state();
        anyhow::anyhow!("{what}: not within {} s; {error:?} {waits:?} {:?}", PATIENCE.as_secs(), account.steps())
    })
}
