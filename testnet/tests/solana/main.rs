//! The node's wallet on Solana's own runtime. Each test has a cluster of its own.
#![cfg(test)]

mod jobs;
mod payee;
mod units;
mod wallet;

use infernet_node::settlement::solana::{
    key::SolanaKey,
    payment::{Payment, Rules},
    rpc::Rpc,
    transaction::{Address, Asset, Order, Transfer},
    verify::Expected,
    wallet::Wallet,
};
use infernet_testnet::svm::{Cluster, Node};
use std::time::Duration;

/// Between two looks: everything is near.
const POLL: Duration = Duration::from_millis(5);
/// How long a payment may take that nothing holds up.
const PATIENCE: Duration = Duration::from_secs(30);
/// As patient as on the real chain, on a clock that is a thousand times as fast.
const FAST: Rules = Rules { resend_ms: 20, life_ms: 100 };
/// What the payer has at first.
const TOKENS: u64 = 1_000_000;

/// A cluster, a token, and one who pays another.
struct Scene {
    cluster: Cluster,
    nodes: Vec<Node>,
    mint: Address,
    asset: Asset,
    payer: SolanaKey,
    payee: Address,
}

impl Scene {
    /// With so many endpoints.
    async fn new(nodes: usize) -> Self {
        let cluster = Cluster::new();
        let asset = cluster.token(7, 6).expect("a token");
        let Asset::Token { mint, .. } = asset else { panic!("a token") };
        let payer = cluster.wallet(3, &mint, TOKENS).expect("a wallet");
        let mut endpoints = Vec::new();
        for _ in 0..nodes {
            endpoints.push(cluster.node().await.expect("an endpoint"));
        }
        Scene { cluster, nodes: endpoints, mint, asset, payer, payee: SolanaKey::from_bytes(&[4; 32]).address() }
    }

    fn rpc(&self, node: usize) -> Rpc {
        Rpc::new(self.nodes[node].url().parse().expect("a URL"), self.cluster.genesis()).expect("a client")
    }

    fn rpcs(&self) -> Vec<Rpc> {
        (0..self.nodes.len()).map(|node| self.rpc(node)).collect()
    }

    fn wallet_with(&self, key: &SolanaKey, rules: Rules) -> Wallet {
        Wallet::new(self.rpcs(), key.clone(), rules, POLL).expect("a wallet")
    }

    fn wallet(&self) -> Wallet {
        self.wallet_with(&self.payer, FAST)
    }

    /// What pays a tranche of `amount`.
    fn transfer(&self, amount: u64) -> Transfer {
        Transfer { to: self.payee, asset: self.asset, amount, hash: [9; 32] }
    }

    fn order(&self, amount: u64) -> Order {
        Order { transfers: vec![self.transfer(amount)], unit_price: 0 }
    }

    fn expected(&self, amount: u64) -> Expected {
        Expected { payer: self.payer.address(), transfer: self.transfer(amount) }
    }

    /// What the payee has.
    fn paid(&self) -> u64 {
        self.cluster.tokens(&self.mint, &self.payee)
    }
}

async fn keeps(_: Payment) -> Result<(), String> {
    Ok(())
}
