//! `demo --settle evm`: the same job, paid on a channel of a real chain.

use super::{DemoError, FORM, Say};
use crate::{
    bank::Bank,
    cluster::{ClusterError, Member, eventually},
};
use infernet_node::{report::ChatReport, settlement::service::Account};
use infernet_wire::{id::NodeId, money::MicroUsd};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the buyer has to begin with.
const PURSE: MicroUsd = MicroUsd(10_000_000);
/// What it deposits for each worker.
const DEPOSIT: MicroUsd = MicroUsd(1_000_000);

/// The chain's part of a demo.
pub(super) struct OnChain {
    bank: Bank,
    before: BTreeMap<NodeId, MicroUsd>,
}

impl OnChain {
    pub(super) async fn start(say: &mut Say<'_>) -> Result<Self, DemoError> {
        let bank = Bank::start().await?;
        let terms = bank.terms();
        say(format!("chain   anvil, id {}: contract {}, token {}", terms.chain, terms.contract, terms.token))?;
        Ok(OnChain { bank, before: BTreeMap::new() })
    }

    pub(super) fn bank(&self) -> &Bank {
        &self.bank
    }

    /// The buyer opens a channel to every worker; all see it.
    pub(super) async fn deposit(&mut self, buyer: &Member, workers: &[Member], say: &mut Say<'_>) -> Result<(), DemoError> {
        let us = buyer.node.id();
        self.bank.fund(&us, PURSE).await?;
        for worker in workers {
            self.bank.fund(&worker.node.id(), MicroUsd(0)).await?;
        }
        for member in workers.iter().chain([buyer]) {
            let id = member.node.id();
            self.before.insert(id, self.bank.balance(&id.evm_address()).await?);
        }
        let account = account(buyer)?;
        eventually("reading the chain", FORM, || async { account.state().ready }).await?;
        for worker in workers {
            let steps = account.deposit(worker.node.id(), DEPOSIT).await?;
            done(account, &steps).await?;
        }
        for worker in workers {
            let channels = worker.node.tabs().channels();
            eventually("a worker's seeing its channel", FORM, || async { !channels.from(&us).is_empty() }).await?;
        }
        say(format!("buyer   deposits {DEPOSIT} for each worker on a channel; no worker gives credit"))?;
        Ok(())
    }

    /// Every channel is closed, as both sides sign it; what the chain says then, as JSON.
    pub(super) async fn close(
        &self,
        buyer: &Member,
        workers: &[Member],
        report: &ChatReport,
        say: &mut Say<'_>,
    ) -> Result<Value, DemoError> {
        let account = account(buyer)?;
        for worker in workers {
            let steps = account.close(worker.node.id(), buyer.node.buyer()).await?;
            done(account, &steps).await?;
        }
        let mut rows = Vec::new();
        say("\non the chain, when all channels are closed:".into())?;
        for member in [buyer].into_iter().chain(workers) {
            let id = member.node.id();
            let (before, after) =
                (self.before.get(&id).copied().unwrap_or_default(), self.bank.balance(&id.evm_address()).await?);
            say(format!("  {}  {}  {before} → {after}", id.short(), id.evm_address()))?;
            rows.push(json!({ "node": id, "address": id.evm_address().to_string(),
                "before_micro_usd": before.0, "after_micro_usd": after.0 }));
        }
        let paid = report.receipt.as_ref().map(|receipt| receipt.amount());
        let spent = PURSE.0.checked_sub(self.bank.balance(&buyer.node.id().evm_address()).await?.0).map(MicroUsd);
        if spent.is_none() || spent != paid {
            return Err(DemoError::Books { spent, paid });
        }
        say(format!("the buyer has {} less, which is the receipt's amount", spent.unwrap_or_default()))?;
        let terms = self.bank.terms();
        Ok(json!({ "chain": terms.chain, "contract": terms.contract.to_string(), "token": terms.token.to_string(),
            "balances": rows }))
    }
}

fn account(member: &Member) -> Result<&Account, DemoError> {
    member.node.account().ok_or_else(|| ClusterError::Account("there is none".into()).into())
}

/// Waits for the good end of steps.
async fn done(account: &Account, numbers: &[u64]) -> Result<(), DemoError> {
    let wanted = || account.steps().into_iter().filter(|(number, _)| numbers.contains(number));
    eventually("a transaction", FORM, || async { wanted().all(|(_, entry)| entry.is_done()) }).await?;
    match wanted().find(|(_, entry)| entry.word() != "settled") {
        Some((_, entry)) => {
            let reason = entry.refused.clone().or(entry.reason()).unwrap_or_default();
            Err(DemoError::Transaction { what: entry.purpose.label(), reason })
        }
        None => Ok(()),
    }
}
