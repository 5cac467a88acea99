//! `demo --settle solana`: the same job on a tranche that was paid beforehand, on Solana's own runtime.

use super::{DemoError, FORM, Say};
use crate::{
    cluster::{ClusterError, Member, eventually},
    svm::{Clock, Cluster, Node},
};
use infernet_node::{
    report::ChatReport,
    settlement::{
        solana::{
            account::Account,
            key::SolanaKey,
            payment::Rules,
            transaction::{Address, Asset},
        },
        tab::Cover,
    },
};
use infernet_wire::{money::MicroUsd, solana::Coin};
use serde_json::{Value, json};
use std::time::Duration;

/// What the buyer has to begin with.
const PURSE: MicroUsd = MicroUsd(1_000_000);
/// What it pays each worker beforehand.
const TRANCHE: MicroUsd = MicroUsd(50_000);
/// As patient as on the real chain, on a clock that is a thousand times as fast.
const FAST: Rules = Rules { resend_ms: 20, life_ms: 100 };
/// Between two looks: everything is near.
const POLL: Duration = Duration::from_millis(20);
/// A slot.
const SLOT: Duration = Duration::from_millis(2);

/// The chain's part of a demo.
pub(super) struct OnSolana {
    cluster: Cluster,
    endpoint: Node,
    _clock: Clock,
    mint: Address,
    payer: SolanaKey,
}

impl OnSolana {
    pub(super) async fn start(say: &mut Say<'_>) -> Result<Self, DemoError> {
        let cluster = Cluster::new();
        let Asset::Token { mint, .. } = cluster.token(7, 6)? else { return Err(account("there is no token")) };
        let payer = cluster.wallet(3, &mint, PURSE.0)?;
        let (endpoint, clock) = (cluster.node().await?, cluster.tick(1, SLOT));
        say(format!("chain   Solana's runtime in this process (finality is made here): token {mint}"))?;
        Ok(OnSolana { cluster, endpoint, _clock: clock, mint, payer })
    }

    /// Where the worker at this place is paid.
    fn payee(place: usize) -> Address {
        SolanaKey::from_bytes(&[u8::try_from(place + 40).unwrap_or(40); 32]).address()
    }

    fn use_at(&self, member: &Member, key: &SolanaKey, payout: Option<Address>) -> Result<(), DemoError> {
        let settings = Account {
            rpc: vec![self.endpoint.url().parse().map_err(account)?],
            genesis: self.cluster.genesis(),
            coin: Coin::Token { mint: self.mint, decimals: 6 },
            tranche: TRANCHE,
            unit_price: 0,
            payout,
            rules: FAST,
            poll: POLL,
        };
        member.node.use_solana(settings, key).map_err(account)
    }

    /// The buyer pays by tranches: to be called at once, since it hears from ads where workers are paid.
    pub(super) fn buys(&self, buyer: &Member) -> Result<(), DemoError> {
        self.use_at(buyer, &self.payer, None)
    }

    /// A worker takes tranches: to be called at once, since its first ad says so.
    pub(super) fn sells(&self, place: usize, worker: &Member) -> Result<(), DemoError> {
        let key = SolanaKey::from_bytes(&[u8::try_from(place + 60).unwrap_or(60); 32]);
        self.use_at(worker, &key, Some(Self::payee(place)))
    }

    /// The buyer pays every worker a tranche.
    pub(super) async fn deposit(&self, buyer: &Member, workers: &[Member], say: &mut Say<'_>) -> Result<(), DemoError> {
        let desk = buyer.node.tabs().solana();
        for worker in workers {
            let id = worker.node.id();
            eventually("hearing where a worker is paid", FORM, || async { desk.terms_of(&id).is_some() }).await?;
            desk.buy(id, None).await.map_err(account)?;
            eventually("a tranche's being final", FORM, || async { desk.to_show(&id).is_some() }).await?;
        }
        say(format!("buyer   pays each worker a tranche of {TRANCHE} beforehand; no worker gives credit"))?;
        Ok(())
    }

    /// What everybody has then, as JSON.
    pub(super) fn close(
        &self,
        buyer: &Member,
        workers: &[Member],
        report: &ChatReport,
        say: &mut Say<'_>,
    ) -> Result<Value, DemoError> {
        let has = |wallet: &Address| MicroUsd(self.cluster.tokens(&self.mint, wallet));
        let us = self.payer.address();
        say("\non the chain, and prepaid for jobs to come:".into())?;
        say(format!("  {}  {us}  {PURSE} → {}", buyer.node.id().short(), has(&us)))?;
        let mut rows = vec![json!({ "node": buyer.node.id(), "address": us.to_string(),
            "before_micro_usd": PURSE.0, "after_micro_usd": has(&us).0 })];
        for (place, worker) in workers.iter().enumerate() {
            let (id, payee) = (worker.node.id(), Self::payee(place));
            let tab = worker.node.tabs().sold_to(&buyer.node.id()).map_err(account)?;
            // One that was not shown yet waits for the buyer's next job.
            let left = if tab.prepayments() == 0 { TRANCHE } else { tab.left(Cover::Credit(MicroUsd(0))) };
            say(format!("  {}  {payee}  $0.000000 → {}, of which {left} is prepaid", id.short(), has(&payee)))?;
            let paid = report.receipt.as_ref().filter(|receipt| receipt.worker == id).map(|receipt| receipt.amount());
            let spent = TRANCHE.0.checked_sub(left.0).map(MicroUsd);
            if spent != Some(paid.unwrap_or_default()) || has(&payee) != TRANCHE {
                return Err(DemoError::Books { spent, paid });
            }
            rows.push(json!({ "node": id, "address": payee.to_string(), "before_micro_usd": 0,
                "after_micro_usd": has(&payee).0, "prepaid_micro_usd": left.0 }));
        }
        Ok(json!({ "mint": self.mint.to_string(), "balances": rows }))
    }
}

fn account(error: impl ToString) -> DemoError {
    ClusterError::Account(error.to_string()).into()
}
