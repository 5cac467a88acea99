//! Where the endpoint asks for money and books it: the node's own [`Purse`], or whoever else serves these routes for others.

use super::{access::Caller, error::ApiError};
use crate::spend::{Purse, Spending};
use futures::{FutureExt, future::BoxFuture};
use infernet_wire::{id::NodeId, money::MicroUsd};
use tokio::sync::watch;

/// A job that somebody wants.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The model asked for.
    pub model: &'a str,
    /// The most it may cost.
    pub most: MicroUsd,
    /// How many jobs its request has: they share what a request may cost.
    pub jobs: usize,
}

/// What a job was, at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bill {
    /// What it has cost.
    pub cost: MicroUsd,
    /// What was promised beside that to workers that gave nothing for it.
    pub lost: MicroUsd,
    /// Who served it, if anybody did.
    pub worker: Option<NodeId>,
    /// Tokens of input and output, if the answer is whole.
    pub usage: Option<(u32, u32)>,
    /// A short stable name of what went wrong.
    pub failure: Option<&'static str>,
}

/// Says what may be spent, before it is.
pub trait Till: Send + Sync {
    /// Reserves up to `wish.most` for a job of `caller`; less, if there is less, and then that is the job's budget. `None` if
    /// nobody counts.
    fn authorise<'a>(&'a self, caller: &'a Caller, wish: Wish<'a>) -> BoxFuture<'a, Result<Option<Box<dyn Charge>>, ApiError>>;
}

/// A reservation of a running job.
pub trait Charge: Send {
    /// The most the job may cost.
    fn most(&self) -> MicroUsd;

    /// Tells when somebody wants the job cancelled; `None` if nobody can but its client, by going away.
    fn cancelled(&self) -> Option<watch::Receiver<bool>> {
        None
    }

    /// What the job has cost by now, and its output tokens.
    fn note(&self, _cost: MicroUsd, _tokens: u32) {}

    /// The job has ended. It must not wait: the client's last bytes do.
    fn settle(self: Box<Self>, bill: Bill);
}

impl Till for Purse {
    fn authorise<'a>(&'a self, caller: &'a Caller, wish: Wish<'a>) -> BoxFuture<'a, Result<Option<Box<dyn Charge>>, ApiError>> {
        async move {
            let spending = Purse::authorise(self, &caller.key, caller.caps, wish.most, wish.jobs).await;
            let spending = spending.map_err(|error| ApiError::of_cap(&error))?;
            Ok(spending.map(|spending| Box::new(spending) as Box<dyn Charge>))
        }
        .boxed()
    }
}

impl Charge for Spending {
    fn most(&self) -> MicroUsd {
        Spending::most(self)
    }

    fn settle(self: Box<Self>, bill: Bill) {
        Spending::settle(*self, bill.cost, bill.lost);
    }
}
