//! Deposits of web clients, and the plane's own account, on a real EVM chain. Each test has a chain of its own.

#![cfg(test)]

mod deposits;
mod served;
mod sweeps;

use infernet_node::settlement::evm::{contract, wallet::Wallet};
use infernet_plane::{
    accounts::{self, Proven},
    cashier::{Cashier, CashierConfig, CashierError, Report, Task},
    http::HttpConfig,
    store::{ClientId, EmbeddedStore, Store},
};
use infernet_testnet::{
    cluster::{self, NETWORK},
    evm::{self, Anvil, CHAIN, Program, act, at_once, call},
};
use infernet_wire::{
    evm::{EvmAddress, address_word, word},
    key::NodeKey,
    money::MicroUsd,
};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;

/// For everything that must happen, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Between two looks of a cashier.
const POLL: Duration = Duration::from_millis(30);
/// Blocks that bury a deposit.
const DEPTH: u64 = 3;
/// A dollar.
const DOLLAR: u64 = 1_000_000;

fn key(n: u8) -> NodeKey {
    NodeKey::from_bytes(&[n; 32]).expect("a scalar")
}

fn address(n: u8) -> EvmAddress {
    key(n).id().evm_address()
}

/// A chain with a token, a wallet that has a thousand dollars, and a store.
struct Scene {
    anvil: Anvil,
    token: EvmAddress,
    /// The client's.
    wallet: Wallet,
    store: Arc<dyn Store>,
    home: TempDir,
}

impl Scene {
    /// The client's wallet is that of `key(2)`, the plane's account that of `key(3)`.
    async fn new() -> Option<Self> {
        let anvil = evm::chain("deposits were not tested").await?;
        let wallet = anvil.wallet(&key(2), at_once()).await.expect("an account");
        let token = Program::TestToken.deploy(&wallet).await.expect("deployed");
        let thousand = [address_word(&wallet.address()), word(u128::from(1_000 * DOLLAR))];
        act(&wallet, call(&token, "mint(address,uint256)", &thousand, None)).await.expect("minted");
        anvil.fund(&address(3)).await.expect("coins for gas");
        let home = tempfile::Builder::new().prefix("infernet-plane-").tempdir().expect("a directory");
        let store = open(&home);
        Some(Scene { anvil, token, wallet, store, home })
    }

    fn config(&self) -> CashierConfig {
        let mut config = CashierConfig::new(self.anvil.url().parse().expect("a URL"), CHAIN, self.token);
        (config.depth, config.poll) = (DEPTH, POLL);
        config
    }

    async fn cashier(&self) -> (Cashier, Task) {
        self.cashier_with(self.config()).await.expect("a cashier")
    }

    async fn cashier_with(&self, config: CashierConfig) -> Result<(Cashier, Task), CashierError> {
        Cashier::start(config, key(3), self.store.clone()).await
    }

    /// What was kept is read from the disk again.
    fn reopened(self) -> Self {
        let Scene { anvil, token, wallet, store, home } = self;
        drop(store);
        let store = open(&home);
        Scene { anvil, token, wallet, store, home }
    }

    /// Sends to the plane's account; mined in a block of its own.
    async fn pay(&self, dollars: u64) {
        act(&self.wallet, contract::transfer(&self.token, &address(3), u128::from(dollars * DOLLAR))).await.expect("paid");
    }

    async fn held(&self, account: &EvmAddress) -> u64 {
        let held = self.wallet.balance(&self.token, account).await.expect("a balance");
        u64::try_from(held).expect("some dollars")
    }

    /// Who signs in by the wallet of `key(n)`.
    async fn signs_in(&self, n: u8) -> ClientId {
        signs_in(&*self.store, n).await
    }

    async fn has(&self, client: &ClientId, dollars: u64) -> bool {
        self.balance(client).await == MicroUsd(dollars * DOLLAR)
    }

    async fn balance(&self, client: &ClientId) -> MicroUsd {
        self.store.client(client).await.expect("a store").expect("a client").balance
    }
}

async fn signs_in(store: &dyn Store, n: u8) -> ClientId {
    let (subject, label) = (hex(&address(n)), "a wallet".to_owned());
    let proven = Proven { kind: "evm", subject, data: String::new(), label };
    accounts::sign_in(store, &HttpConfig::default(), proven, None).await.expect("signed in").id
}

fn hex(address: &EvmAddress) -> String {
    address.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn open(home: &TempDir) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(home.path(), &NETWORK.parse().expect("a network")).expect("a store"))
}

/// Waits until `holds`.
async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    cluster::eventually(what, SOON, holds).await.expect("in time");
}

/// Waits for a report.
async fn reports(cashier: &Cashier, what: &str, holds: impl Fn(&Report) -> bool) -> Report {
    eventually(what, || async { holds(&cashier.report()) }).await;
    cashier.report()
}

/// Until a whole round has seen the newest block.
async fn catches_up(scene: &Scene, cashier: &Cashier) {
    let head = scene.anvil.rpc().expect("a client").count("eth_blockNumber", serde_json::json!([])).await.expect("a number");
    let began = infernet_node::clock::now();
    reports(cashier, "a round after this block", |report| report.head >= Some(head) && report.well > Some(began)).await;
    // One that had read the chain just before this began may have ended after it.
    let again = infernet_node::clock::now();
    reports(cashier, "another round", |report| report.well > Some(again)).await;
}
