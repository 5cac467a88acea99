//! Payments by hand, for buyers that are not nodes.

use infernet_wire::{
    accept::JobAccept,
    chat::{ChatRequest, Payment},
    evm::EvmAddress,
    id::{JobId, NodeId},
    key::NodeKey,
    money::MicroUsd,
    topic::NetworkId,
    voucher::{LEDGER, SignedVoucher, Voucher, ledger_channel},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// All that a buyer has promised, whomever: more than it needs for each of them.
#[derive(Clone)]
pub struct Promises {
    key: NodeKey,
    network: NetworkId,
    total: Arc<AtomicU64>,
}

impl Promises {
    /// Of the buyer with `key`, who has promised nothing yet.
    pub fn new(key: NodeKey, network: NetworkId) -> Self {
        Promises { key, network, total: Arc::default() }
    }

    /// Pays `paid` for `job`, of which `more` was not promised before.
    pub fn pay(&self, worker: &NodeId, job: JobId, paid: MicroUsd, more: MicroUsd) -> Option<Payment> {
        let amount = self.total.fetch_add(more.0, Ordering::Relaxed) + more.0;
        let channel = ledger_channel(&self.network, &self.key.id(), worker);
        let voucher = Voucher { chain: LEDGER, contract: EvmAddress::ZERO, channel, job, amount: amount.into() };
        let signed = SignedVoucher::sign(&self.key, voucher).ok()?;
        Some(Payment { voucher: signed.encode().into(), paid })
    }

    /// Pays all that the job may cost, beforehand.
    pub fn whole(&self, accept: &JobAccept, request: &[u8], budget: MicroUsd) -> Option<Payment> {
        let request = ChatRequest::decode(request).ok()?;
        let most = accept.price.cost(request.input_token_bound(), request.max_tokens)?.min(budget);
        self.pay(&accept.winner, accept.job, most, most)
    }
}
