//! `bench vouchers`: what it costs to pay and to be paid as an answer streams.
//!
//! A buyer's and a seller's tabs, each in a store on the disk, as two nodes have them; no network. Each round is one job of many pieces:
//! the buyer signs a voucher for each ([`Payer::pay`](infernet_node::settlement::tabs::Payer::pay), which writes a step ahead now and
//! then), the seller checks it and writes it ([`Till::take`](infernet_node::settlement::tabs::Till::take)). Processor time is of the
//! whole process, the disk's threads included; a piece is [`limits::CHUNK_TOKENS`] tokens.

use super::{BenchError, receipts::median};
use crate::{
    cluster::{CREDIT, NETWORK},
    machine::{Machine, cpu_time},
};
use infernet_node::{
    clock,
    settlement::tabs::{Credit, Sale, Tabs},
    store,
};
use infernet_wire::{chat::Payment, id::JobId, key::NodeKey, limits, money::MicroUsd};
use serde::Serialize;

const ROUNDS: usize = 9;
/// Vouchers of one round: an answer of 128 000 tokens.
const VOUCHERS: u64 = 2_000;
const TOKENS: u32 = 128_000;

/// The result; medians of the rounds.
#[derive(Debug, Clone, Serialize)]
pub struct VouchersResult {
    /// Where.
    pub machine: Machine,
    /// Vouchers of a round.
    pub vouchers: u64,
    /// Processor time to sign one, in microseconds.
    pub pay_us: f64,
    /// Processor time to check one and have it written, in microseconds.
    pub take_us: f64,
    /// The same for each token that it pays.
    pub pay_us_per_token: f64,
    /// The same for each token that it pays.
    pub take_us_per_token: f64,
    /// From taking one to its being on the disk when none is before it, in milliseconds.
    pub durable_ms: f64,
}

impl std::fmt::Display for VouchersResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{} vouchers a round, median of {ROUNDS}; processor time", self.vouchers)?;
        writeln!(f, "  to pay      {:>7.1} µs each, {:.2} µs per token", self.pay_us, self.pay_us_per_token)?;
        writeln!(f, "  to be paid  {:>7.1} µs each, {:.2} µs per token", self.take_us, self.take_us_per_token)?;
        write!(f, "on the disk after {:.2} ms", self.durable_ms)
    }
}

/// Measures.
pub async fn run() -> Result<VouchersResult, BenchError> {
    let (buyer, seller) = (side()?, side()?);
    let (mut pay, mut take, mut durable) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let job = JobId(clock::random());
        let most = MicroUsd(VOUCHERS);
        let failed = |error: &dyn std::fmt::Display| BenchError::Options(error.to_string());
        let mut payer = buyer.tabs.payer(seller.key.id(), job, most, 1);
        let mut till = seller.tabs.open(&sale(&buyer, job, most)).map_err(|error| failed(&error))?;

        let before = cpu_time();
        let mut payments: Vec<Payment> = Vec::new();
        for paid in 1..=VOUCHERS {
            payments.push(payer.pay(MicroUsd(paid)).await.map_err(|error| failed(&error))?);
        }
        let between = cpu_time();
        for payment in &payments {
            till.take(payment).map_err(|error| failed(&error))?;
        }
        till.settled().await.map_err(|error| failed(&error))?;
        let after = cpu_time();
        pay.push((between - before).as_secs_f64() * 1e6 / VOUCHERS as f64);
        take.push((after - between).as_secs_f64() * 1e6 / VOUCHERS as f64);
        payer.close(Some(most));
        till.close(most, true);

        let job = JobId(clock::random());
        let mut payer = buyer.tabs.payer(seller.key.id(), job, most, 1);
        let mut till = seller.tabs.open(&sale(&buyer, job, most)).map_err(|error| failed(&error))?;
        let payment = payer.pay(MicroUsd(1)).await.map_err(|error| failed(&error))?;
        let began = clock::instant();
        till.take(&payment).map_err(|error| failed(&error))?;
        till.settled().await.map_err(|error| failed(&error))?;
        durable.push(began.elapsed().as_secs_f64() * 1e3);
        payer.close(Some(MicroUsd(1)));
        till.close(MicroUsd(1), true);
    }
    let (pay_us, take_us) = (median(pay), median(take));
    let tokens = f64::from(limits::CHUNK_TOKENS);
    Ok(VouchersResult {
        machine: Machine::here(),
        vouchers: VOUCHERS,
        pay_us,
        take_us,
        pay_us_per_token: pay_us / tokens,
        take_us_per_token: take_us / tokens,
        durable_ms: median(durable),
    })
}

fn sale(buyer: &Side, job: JobId, most: MicroUsd) -> Sale<'static> {
    Sale { buyer: buyer.key.id(), job, most, tokens: TOKENS, payment: None, rate: 1 }
}

struct Side {
    key: NodeKey,
    tabs: Tabs,
    _home: tempfile::TempDir,
}

fn side() -> Result<Side, BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::Options(error.to_string());
    let home = tempfile::tempdir()?;
    let network = NETWORK.parse().map_err(|_| failed(&"no network"))?;
    let key = NodeKey::from_bytes(&clock::random()).map_err(|error| failed(&error))?;
    let store = store::open(home.path(), &network).map_err(|error| failed(&error))?;
    let credit = Credit { free: CREDIT, ..Credit::default() };
    Ok(Side { tabs: Tabs::new(key.clone(), &[], network, store, credit), key, _home: home })
}
