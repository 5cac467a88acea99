//! Reads the chain's transfers to the plane's account, range by range. What is asked is decided in [`range`]; an endpoint that
//! refuses a range, or answers too much, is asked for half of it.

use super::{
    CashierConfig, CashierError,
    transfer::{self, Transfer},
};
use crate::store::{DepositRow, Store};
use infernet_node::settlement::evm::rpc::{Log, MAX_LOG_BLOCKS, Rpc, RpcError};
use infernet_wire::{
    evm::{EvmAddress, address_word},
    money::MicroUsd,
};
use serde_json::json;

/// Blocks that are read again each time: behind one address there are often several nodes, of which some are late.
pub const OVERLAP: u64 = 64;

/// How far it is.
pub(super) struct Reading {
    source: String,
    chain: u64,
    token: EvmAddress,
    account: EvmAddress,
    /// Transfers from there are the operator's own.
    cold: Option<EvmAddress>,
    depth: u64,
    span: u64,
    /// The next block of this round.
    cursor: Option<u64>,
}

/// The blocks to ask for next, both included: none beyond the one that is deep enough.
fn range(cursor: u64, span: u64, head: u64, depth: u64) -> Option<(u64, u64)> {
    let deep = head.checked_add(1)?.checked_sub(depth.max(1))?;
    (cursor <= deep).then(|| (cursor, deep.min(cursor.saturating_add(span.max(1) - 1))))
}

impl Reading {
    pub(super) fn new(config: &CashierConfig, account: EvmAddress) -> Self {
        let (chain, token, depth) = (config.chain, config.token, config.depth);
        let cold = config.cold.map(|(cold, _)| cold);
        let source = format!("{chain}:{token}:{account}");
        Reading { source, chain, token, account, cold, depth, span: MAX_LOG_BLOCKS, cursor: None }
    }

    /// The newest block of the right chain. A round begins.
    pub(super) async fn head(&mut self, rpc: &Rpc) -> Result<u64, CashierError> {
        self.cursor = None;
        rpc.check_chain().await?;
        Ok(rpc.count("eth_blockNumber", json!([])).await?)
    }

    /// The last block that was read before this start, if any was.
    pub(super) async fn read_before(&self, store: &dyn Store) -> Result<Option<u64>, CashierError> {
        Ok(store.block_mark(&self.source).await?.map(|next| next.saturating_sub(1)))
    }

    /// Reads and keeps one range; the last block of it, or `None` when all is read.
    pub(super) async fn next(&mut self, rpc: &Rpc, store: &dyn Store, head: u64) -> Result<Option<u64>, CashierError> {
        let cursor = match self.cursor {
            Some(cursor) => cursor,
            // Nobody could know of this account before: it begins at what is deep now.
            None => {
                let mark = store.block_mark(&self.source).await?;
                mark.unwrap_or_else(|| head.saturating_sub(self.depth)).saturating_sub(OVERLAP)
            }
        };
        loop {
            let Some((from, to)) = range(cursor, self.span, head, self.depth) else { return Ok(None) };
            match self.ask(rpc, from, to).await {
                Ok(rows) => {
                    store.put_deposits(&self.source, &rows, to + 1).await?;
                    self.span = self.span.saturating_mul(2).min(MAX_LOG_BLOCKS);
                    self.cursor = Some(to + 1);
                    return Ok(Some(to));
                }
                Err(RpcError::Refused { .. } | RpcError::Malformed { .. } | RpcError::Silent { .. }) if to > from => {
                    self.span = (to - from).div_ceil(2);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn ask(&self, rpc: &Rpc, from: u64, to: u64) -> Result<Vec<DepositRow>, RpcError> {
        let topics = [Some(transfer::topic()), None, Some(address_word(&self.account))];
        let logs = rpc.logs(&self.token, &topics, (from, to)).await?;
        let rows: Option<Vec<_>> = logs.iter().map(|log| self.read(log)).collect();
        Ok(rows.ok_or_else(|| rpc.malformed("eth_getLogs"))?.into_iter().flatten().collect())
    }

    /// `None` if the log is not what was asked for, so that nothing of the answer can be believed; nothing inside if it is no deposit.
    fn read(&self, log: &Log) -> Option<Option<DepositRow>> {
        let Transfer { from, to, value, block, tx, log } = transfer::read(log).filter(|read| read.to == self.account)?;
        let is_own = from == self.account || Some(from) == self.cold;
        // Anybody may send nothing in anybody's name.
        if value == 0 || is_own {
            return Some(None);
        }
        // More than a balance holds is more than there is of any dollar.
        let amount = MicroUsd(u64::try_from(value).ok().filter(|amount| i64::try_from(*amount).is_ok())?);
        let (chain, token) = (self.chain, self.token);
        Some(Some(DepositRow { chain, tx, log, token, to, from, amount, block, client: None, credited: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn nothing_is_read_that_is_not_deep() {
        assert_eq!(range(0, 10, 5, 12), None, "the chain is too young");
        assert_eq!(range(0, 10, 11, 12), Some((0, 0)));
        assert_eq!(range(5, 10, 100, 1), Some((5, 14)));
        assert_eq!(range(95, 10, 100, 1), Some((95, 100)));
        assert_eq!(range(95, 10, 100, 0), Some((95, 100)), "no depth is one block");
        assert_eq!(range(101, 10, 100, 1), None);
        assert_eq!(range(7, 0, 100, 1), Some((7, 7)));
    }
}
