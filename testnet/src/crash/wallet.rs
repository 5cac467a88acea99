//! A process with a node's wallet on Solana, store and tabs, which does one thing, or stops on the way and waits to be killed. As
//! [`super::account`] is on an EVM chain: it asks for a thing unless its journal says that it was asked for before and goes on.

use super::stop::{self, Stop};
use infernet_node::{
    settlement::{
        solana::{
            account::Account,
            book::{Bought, FIRST_STEP},
            desk::Desk,
            key::SolanaKey,
            payee::NotCounted,
            payment::Rules,
            transaction::Address,
            withdrawals::Withdrawal,
        },
        tabs::{Credit, Tabs},
    },
    store::Store,
};
use infernet_wire::{
    codec,
    id::NodeId,
    key::NodeKey,
    money::MicroUsd,
    solana::{Coin, SolanaTerms, Tranche},
    topic::NetworkId,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::{path::Path, time::Duration};
use tokio::time::{sleep, timeout};

/// Between two looks: everything is near.
const POLL: Duration = Duration::from_millis(10);
/// Longer than a blockhash of these clusters lives.
const RULES: Rules = Rules { resend_ms: 100, life_ms: 5_000 };
/// For everything that it waits for, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A tranche.
pub const TRANCHE: MicroUsd = MicroUsd(50_000);

/// What such a process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// Its node's key.
    pub key: ByteBuf,
    /// Its wallet's seed.
    pub wallet: ByteBuf,
    /// Its home.
    pub home: String,
    /// The cluster's node.
    pub rpc: String,
    /// Which cluster.
    pub genesis: Address,
    /// The token that is paid in.
    pub mint: Address,
    /// What to do.
    pub task: Task,
    /// Where to stop: at whichever comes first.
    pub stops: Vec<Stop>,
}

/// What there is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Task {
    /// Prepay a worker its tranche of that number.
    Buy(NodeId, SolanaTerms, u64),
    /// A job was opened with it.
    Take(NodeId, u64),
    /// Count what a buyer shows.
    Count(NodeId, Tranche),
    /// Send so much away, after the withdrawal of that number.
    Withdraw(Address, MicroUsd, u64),
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Said {
    /// The newest tranche of each worker.
    pub bought: Vec<Bought>,
    /// What the worker is to be shown.
    pub shown: Option<Tranche>,
    /// The number of the newest tranche that was counted, and what all came to.
    pub counted: Option<(u64, MicroUsd)>,
    /// The newest withdrawal.
    pub withdrawn: Option<Withdrawal>,
}

/// The terms of a worker with that wallet.
pub fn terms(wallet: &SolanaKey, node: &NodeId, mint: Address) -> SolanaTerms {
    SolanaTerms::new(wallet.bind(&NetworkId::default(), node), coin(mint), TRANCHE)
}

fn coin(mint: Address) -> Coin {
    Coin::Token { mint, decimals: 6 }
}

/// Does it.
pub async fn run(orders: Orders) -> anyhow::Result<Said> {
    let Orders { key, wallet, home, rpc, genesis, mint, task, stops } = orders;
    let key = NodeKey::from_bytes(key.as_slice().try_into()?)?;
    let wallet = SolanaKey::from_bytes(wallet.as_slice().try_into()?);
    let network = NetworkId::default();
    let store = stop::open(Path::new(&home), &network, stops)?;
    let tabs = Tabs::new(key.clone(), &[], network.clone(), store.clone(), Credit::default());
    let (desk, sells) = (tabs.solana().clone(), matches!(task, Task::Count(..)));
    let account = Account {
        rpc: vec![rpc.parse().map_err(anyhow::Error::msg)?],
        genesis,
        coin: coin(mint),
        tranche: TRANCHE,
        unit_price: 0,
        payout: None,
        rules: RULES,
        poll: POLL,
    };
    account.open(&desk, &wallet, (key.id(), &network), store.clone(), sells)?;
    let (mut shown, mut counted) = (None, None);
    match task {
        Task::Buy(worker, terms, number) => {
            buy(&desk, worker, terms, number).await?;
            shown = desk.to_show(&worker);
        }
        Task::Take(worker, number) => take(&desk, &*store, &worker, number).await?,
        Task::Count(buyer, tranche) => {
            count(&desk, &tabs, &buyer, &tranche).await?;
            let tab = tabs.sold_to(&buyer)?;
            counted = Some((tab.prepayments(), tab.prepaid()));
        }
        Task::Withdraw(to, amount, after) => withdraw(&desk, to, amount, after).await?,
    }
    store.flush()?;
    // Whatever waited for the disk has its turn, and may stop there.
    sleep(4 * POLL).await;
    let withdrawn = desk.withdrawals().and_then(|withdrawals| withdrawals.newest());
    Ok(Said { bought: desk.tranches()?.all(), shown, counted, withdrawn })
}

async fn buy(desk: &Desk, worker: NodeId, terms: SolanaTerms, number: u64) -> anyhow::Result<()> {
    let tranches = desk.tranches()?;
    let newest = || tranches.all().into_iter().find(|bought| bought.worker == worker && bought.number == number);
    desk.heard(worker, Some(terms));
    if newest().is_none_or(|bought| bought.payment.is_done() && bought.paid_by().is_none()) {
        anyhow::ensure!(desk.buy(worker, Some(TRANCHE)).await? == number, "it has another number");
    }
    until("the tranche is paid", || newest().is_some_and(|bought| bought.paid_by().is_some())).await
}

async fn take(desk: &Desk, store: &dyn Store, worker: &NodeId, number: u64) -> anyhow::Result<()> {
    desk.tranches()?.taken(worker, number);
    sleep(POLL).await;
    let is_taken = |(_, bytes): &(u64, Vec<u8>)| {
        codec::decode::<Bought>(bytes).is_ok_and(|bought| bought.worker == *worker && bought.number == number && bought.taken)
    };
    until("it is kept", || store.steps(FIRST_STEP).is_ok_and(|steps| steps.iter().any(is_taken))).await
}

async fn count(desk: &Desk, tabs: &Tabs, buyer: &NodeId, tranche: &Tranche) -> anyhow::Result<()> {
    let counting = async {
        loop {
            match desk.count(tabs, buyer, tranche).await {
                Ok(()) => return Ok(()),
                Err(error) if error.retryable() => sleep(POLL).await,
                Err(error) => return Err::<(), NotCounted>(error),
            }
        }
    };
    Ok(timeout(PATIENCE, counting).await??)
}

async fn withdraw(desk: &Desk, to: Address, amount: MicroUsd, after: u64) -> anyhow::Result<()> {
    let withdrawals = desk.withdrawals().ok_or_else(|| anyhow::anyhow!("no wallet"))?;
    let newest = || withdrawals.newest().filter(|newest| newest.number > after && newest.word() != "failed");
    if newest().is_none() {
        withdrawals.withdraw(to, Some(amount), false).await?;
    }
    until("it is sent away", || newest().is_some_and(|newest| newest.word() == "settled")).await
}

async fn until(what: &str, holds: impl Fn() -> bool) -> anyhow::Result<()> {
    let waiting = async {
        while !holds() {
            sleep(POLL).await;
        }
    };
    timeout(PATIENCE, waiting).await.map_err(|_| anyhow::anyhow!("{what}: not within {} s", PATIENCE.as_secs()))
}
