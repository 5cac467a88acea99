//! What a plane remembers, behind one trait, so that one suite of tests holds every store to the same rules.
//!
//! | part | what | who needs it |
//! |---|---|---|
//! | [`Receipts`] | the receipts it has heard, as signed | the index, made anew from them at each start |
//! | [`Nodes`] | nodes that registered over HTTP, and the nonces they have used | the node API |
//! | [`Jobs`] | jobs of web clients | the jobs API |
//! | [`Clients`] | who these are, their keys, sessions, balances | every route of clients |
//! | [`Commands`] | operators' signed commands, and how far they got | nodes, operators |
//! | [`Onchain`] | what a chain has brought, what was sent there | [`crate::cashier`] |
//! | [`Notices`] | that something has changed | pages that are live, on any instance |
//!
//! **Rules.** A change that depends on what was there before (a reservation, a command's lease, a job's next status, a nonce)
//! happens in one step, whoever asks at the same time, on any instance. What a method says it did is durable. Money is in whole
//! micro-USD, times are unix milliseconds, pages are at most [`MAX_PAGE`] rows. No prompt and no answer is kept unless its
//! client asks for it; keys and sessions are kept as hashes. What is in a store was checked when it was put there: whoever can write
//! a plane's store is the plane.

mod clients;
mod commands;
#[cfg(test)]
mod conformance;
mod embedded;
mod fact;
mod jobs;
mod nodes;
mod notices;
mod onchain;
mod postgres;
mod receipts;

pub use self::{
    clients::{ClientId, ClientRow, Clients, Entry, EntryKind, Identity, KeyRow, Reservation, Reserved, SessionRow},
    commands::{CommandRow, CommandStatus, Commands},
    embedded::EmbeddedStore,
    jobs::{
        Idempotency, Inserted, JobError, JobQuery, JobRow, JobStatus, Jobs, KEPT_MS, Renewal, StoredText, UNDER_WAY, WebJobId,
    },
    nodes::{NodePut, NodeRow, Nodes, PayoutRow, Pubkey, Role, is_brief},
    notices::{Notice, Notices},
    onchain::{DepositRow, Onchain, PaymentRow},
    postgres::PostgresStore,
    receipts::{MAX_FACTS, ReceiptPut, Receipts},
};

use futures::future::BoxFuture;

/// Rows of one page at most.
pub const MAX_PAGE: usize = 500;

/// What a store's methods return.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A plane's memory.
pub trait Store: Receipts + Nodes + Jobs + Clients + Commands + Onchain + Notices {
    /// What it is and where, for people; never with a password.
    fn place(&self) -> String;

    /// Whether it answers now.
    fn ready(&self) -> Answer<'_, ()>;
}

/// Why a store can't do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It can't be reached, or lost its connection. It may work again a moment later.
    #[error("the store can't be reached: {0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("the store did not answer within {0} ms")]
    Timeout(u64),
    /// What it holds can't be read.
    #[error("the store holds what can't be read: {0}")]
    Corrupt(String),
    /// It refused what a plane writes: a bug, or another program's database.
    #[error("the store refused: {0}")]
    Refused(String),
}
