//! What a chain has brought, and what the plane has sent there.

use super::{Answer, ClientId, Entry, EntryKind};
use infernet_wire::{evm::EvmAddress, id::Hash, money::MicroUsd, time::UnixMillis};
use serde::{Deserialize, Serialize};

/// A transfer to the plane's account. The same chain, transaction and place counts once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositRow {
    /// The chain.
    pub chain: u64,
    /// The transaction.
    pub tx: Hash,
    /// Its place among all logs of its block.
    pub log: u64,
    /// Of which token.
    pub token: EvmAddress,
    /// To which account of the plane.
    pub to: EvmAddress,
    /// From which wallet.
    pub from: EvmAddress,
    /// How much.
    pub amount: MicroUsd,
    /// In which block.
    pub block: u64,
    /// Whose it is; nobody's as long as no client has signed in by the wallet.
    pub client: Option<ClientId>,
    /// When it was credited.
    pub credited: Option<UnixMillis>,
}

impl DepositRow {
    /// The wallet as identities name it.
    pub fn subject(&self) -> String {
        hex::encode(self.from.0)
    }

    /// The entry by which `client` gets it.
    pub(super) fn entry(&self, client: &ClientId, now: UnixMillis) -> Entry {
        Entry {
            number: 0,
            client: client.clone(),
            kind: EntryKind::Deposit,
            // More than fits is more than there is of any dollar.
            amount: i64::try_from(self.amount.0).unwrap_or(i64::MAX),
            reference: format!("{}:0x{}:{}", self.chain, hex::encode(self.tx.as_bytes()), self.log),
            key: None,
            at: now,
        }
    }
}

/// One payment of the plane's account on a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRow {
    /// The account, with its chain.
    pub account: String,
    /// Its place among the account's payments, from 1 on.
    pub number: u64,
    /// How often it was kept before: whoever knows an older one may not replace it.
    pub revision: u64,
    /// When it was first kept.
    pub at: UnixMillis,
    /// What it is, as its owner writes it.
    pub step: Vec<u8>,
}

/// Deposits, how far the chain was read, and payments.
pub trait Onchain: Send + Sync {
    /// The first block that was not read for `source`; `None` if none was.
    fn block_mark<'a>(&'a self, source: &'a str) -> Answer<'a, Option<u64>>;

    /// Keeps transfers, nobody's yet, and that `source` was read up to the block before `next`, in one step. What is there stays
    /// as it is, and so does a mark that is further; a transaction that was seen in another block adds nothing: a chain that was
    /// rewritten brought it again. How many are new.
    fn put_deposits<'a>(&'a self, source: &'a str, rows: &'a [DepositRow], next: u64) -> Answer<'a, usize>;

    /// Deposits that are nobody's though a client signs in by their wallet, each with that client.
    fn claimable_deposits(&self, limit: usize) -> Answer<'_, Vec<DepositRow>>;

    /// Credits a deposit to its `client`, once. Whether it was nobody's until now.
    fn credit_deposit<'a>(&'a self, row: &'a DepositRow, now: UnixMillis) -> Answer<'a, bool>;

    /// A client's deposits, the newest credited first.
    fn deposits<'a>(&'a self, client: &'a ClientId, limit: usize) -> Answer<'a, Vec<DepositRow>>;

    /// Deposits that are nobody's: how many of them, and how much.
    fn unclaimed_deposits(&self) -> Answer<'_, (u64, MicroUsd)>;

    /// Keeps a payment. A new one has revision 0, and is kept if its number follows the newest; else it is kept if it was at the revision before. Whether it is kept.
    fn keep_payment<'a>(&'a self, row: &'a PaymentRow) -> Answer<'a, bool>;

    /// An account's payments, the newest first.
    fn payments<'a>(&'a self, account: &'a str, limit: usize) -> Answer<'a, Vec<PaymentRow>>;
}
