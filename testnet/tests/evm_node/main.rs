//! Accounts of nodes on a real EVM chain: what they want, what the chain's node does to them, and where they crash.
#![cfg(test)]

mod crash;
mod gate;
mod restored;
mod strict;
mod trade;
mod trouble;

use infernet_node::{
    settlement::{
        channels::Known,
        evm::{EvmSettings, contract, wallet::Wallet},
        service::{Account, Settings},
        steps::Entry,
        tab::{Cover, PayeeTab},
        tabs::{Credit, Tabs},
    },
    store::{MemoryStore, Side, Store, TabOf},
};
use infernet_testnet::evm::{self, Anvil, CHAIN, Program, act, at_once};
use infernet_wire::{
    evm::{EvmAddress, address_word, word},
    id::JobId,
    key::NodeKey,
    money::MicroUsd,
    settle::EvmTerms,
    topic::NetworkId,
    voucher::{ChannelTerms, SignedVoucher, Voucher},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Nothing here takes longer, on a busy machine either.
const DEADLINE: Duration = Duration::from_secs(60);
/// Everything is near.
const POLL: Duration = Duration::from_millis(20);
const DOLLAR: MicroUsd = MicroUsd(1_000_000);

/// A chain with the contract and a token.
struct Scene {
    anvil: Anvil,
    terms: EvmTerms,
    stranger: Wallet,
}

fn key(n: u8) -> NodeKey {
    NodeKey::from_bytes(&[n; 32]).expect("a scalar")
}

impl Scene {
    async fn new() -> Option<Self> {
        Self::with(Program::TestToken).await
    }

    async fn with(token: Program) -> Option<Self> {
        let anvil = evm::chain("accounts on a chain were not tested").await?;
        let stranger = anvil.wallet(&key(9), at_once()).await.expect("an account");
        let contract = Program::Channels.deploy(&stranger).await.expect("deployed");
        let token = token.deploy(&stranger).await.expect("deployed");
        Some(Scene { anvil, terms: EvmTerms { chain: CHAIN, contract, token, rate: 1 }, stranger })
    }

    /// Coins for gas, and so many units of the token.
    async fn fund(&self, key: &NodeKey, units: u128) {
        let address = key.id().evm_address();
        self.anvil.fund(&address).await.expect("coins");
        let mint = evm::call(&self.terms.token, "mint(address,uint256)", &[address_word(&address), word(units)], None);
        act(&self.stranger, mint).await.expect("tokens");
    }

    async fn balance(&self, key: &NodeKey) -> u128 {
        self.stranger.balance(&self.terms.token, &key.id().evm_address()).await.expect("a balance")
    }

    fn settings(&self, url: &str) -> Settings {
        let evm = EvmSettings { rpc: url.parse().expect("a URL"), terms: self.terms, depth: 1, max_gwei: 200 };
        Settings { evm, payout_at: DOLLAR, payout_to: None, poll: POLL }
    }

    fn party(&self, key: NodeKey) -> Party {
        Party::start(key, Arc::new(MemoryStore::default()), self.settings(self.anvil.url()))
    }

    /// A buyer with nine dollars and a worker with none, who both have read the chain.
    async fn parties(&self) -> (Party, Party) {
        self.fund(&key(1), 9_000_000).await;
        self.fund(&key(2), 0).await;
        (self.party(key(1)).ready().await, self.party(key(2)).ready().await)
    }

    /// The same, with a channel between them that is in the worker's book.
    async fn trading(&self, deposit: MicroUsd) -> (Party, Party) {
        let (buyer, worker) = self.parties().await;
        let steps = buyer.account.deposit(worker.key.id(), deposit).await.expect("wanted");
        assert_eq!(buyer.ended(&steps).await, ["settled", "settled"], "approve, open");
        eventually("it is in the book", async || !worker.channels().is_empty()).await;
        (buyer, worker)
    }
}

/// A node, as far as its money is concerned.
struct Party {
    key: NodeKey,
    account: Account,
    tabs: Tabs,
    store: Arc<dyn Store>,
    task: JoinHandle<()>,
}

impl Drop for Party {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Party {
    fn start(key: NodeKey, store: Arc<dyn Store>, settings: Settings) -> Self {
        let tabs = Tabs::new(key.clone(), &[], NetworkId::default(), store.clone(), Credit::default());
        let (account, task) = Account::spawn(settings, key.clone(), store.clone(), tabs.clone()).expect("an account");
        Party { key, account, tabs, store, task }
    }

    /// Waits until it has read the chain.
    async fn ready(self) -> Self {
        eventually("the chain is read", async || self.account.state().ready).await;
        self
    }

    /// Waits for the end of these steps; how each ended.
    async fn ended(&self, numbers: &[u64]) -> Vec<&'static str> {
        let steps = || self.account.steps().into_iter().filter(|(number, _)| numbers.contains(number));
        eventually("the steps end", async || steps().all(|(_, entry)| entry.is_done())).await;
        steps().map(|(_, entry)| entry.word()).collect()
    }

    /// Steps of a kind.
    fn steps(&self, what: &str) -> Vec<Entry> {
        let all = self.account.steps().into_iter().map(|(_, entry)| entry);
        all.filter(|entry| entry.purpose.label() == what).collect()
    }

    fn channels(&self) -> Vec<Known> {
        self.tabs.channels().all()
    }

    /// The tab holds a voucher of `buyer` on a channel, as after jobs.
    fn promised(&self, buyer: &NodeKey, terms: &ChannelTerms, amount: u128) {
        let (job, paid) = (JobId([1; 16]), MicroUsd(u64::try_from(amount).expect("fits")));
        let ChannelTerms { chain, contract, .. } = *terms;
        let voucher = Voucher { chain, contract, channel: terms.id(), job, amount };
        let voucher = SignedVoucher::sign(buyer, voucher).expect("a voucher");
        let mut tab = PayeeTab::default();
        tab.open(job, paid, Cover::Deposit { units: amount, rate: 1 }).expect("covered");
        tab.take(&job, amount, Some(voucher), paid).expect("taken");
        tab.settle(&job, paid, true);
        let of = TabOf { side: Side::Sold, me: self.key.id(), other: buyer.id(), channel: Some(terms.id()) };
        self.store.put_tab(&of, tab.record()).expect("kept");
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(POLL).await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("{what}: not within {} s", DEADLINE.as_secs()));
}

/// The exit's wait.
const CHALLENGE: u64 = contract::CHALLENGE_SECS;
const NOBODY: EvmAddress = EvmAddress([0x11; 20]);
