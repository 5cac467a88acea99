//! The market: everything that decides, and nothing that acts.
//!
//! A buyer's offer becomes an [`auction`]; workers [`quote`] it and hold a slot ([`admission`]); the bids are put in order
//! ([`rank`]) and one wins, with others to fall back on ([`job`]). [`buyer`] and [`seller`] are the two deciders that own this
//! state; the drivers beside this module carry their outputs out: publish, sign, dial, set timers.
//!
//! | module | its one idea |
//! |---|---|
//! | [`registry`] | who is there: the newest live ad of each worker |
//! | [`quote`] | what a job may cost, and whether a model can serve it |
//! | [`pricing`] | what each model costs, and how prices follow the load |
//! | [`policy`], [`schedule`] | whether a worker sells at the moment |
//! | [`select`] | which of many workers answer an offer |
//! | [`admission`] | slots, holds and running jobs of a worker |
//! | `newcomers` | what a flood of new keys costs those who send it |
//! | [`advert`] | when a worker advertises what |
//! | [`own_ads`], [`used`] | which ads bind a worker, which accepts of them were used |
//! | [`claim`], [`outcome`] | why an accept got no slot; what became of the last offers |
//! | [`rank`] | which bid is best, and why |
//! | [`record`] | who usually answers, and how fast |
//! | [`patience`] | how long waiting for more bids is worth it |
//! | [`auction`] | one auction, from the offer to its outcome |
//! | [`standing`] | whose ad to accept without an auction |
//! | [`affinity`] | which worker has read a conversation's beginning |
//! | [`trust`], [`reputation`] | whom a buyer deals with; what receipts say of workers |
//! | [`job`] | the winner, then the runners-up |
//! | [`course`] | what a job tries next |
//! | [`buyer`], [`seller`] | the two deciders |
//! | [`recent`] | a map that forgets the least recently used |
//!
//! **One auction's way:** `buyer` opens it and the driver publishes the offer → each worker's `seller` quotes, takes a hold and
//! bids → the buyer's `auction` closes as soon as waiting is not worth it → `job` yields the accept → `seller::claim` turns the
//! hold into a running slot, once.
//!
//! **What is absent:** tokio, clocks, randomness, keys, sockets, stores, logging. `now` is an argument, so the simulator runs
//! exactly this code. Only `infernet_wire` and `std` are imported. Nothing here looks at a prompt: an offer has none.
//!
//! **Clocks.** Nodes' clocks differ by seconds, auctions take milliseconds. So no decision compares one node's time with
//! another's: a peer's message only lends *durations* (`hold_until − issued`, `deadline − issued`), which are then counted on
//! our own clock.

pub mod admission;
pub mod advert;
pub mod affinity;
pub mod auction;
pub mod buyer;
pub mod claim;
pub mod course;
pub mod job;
mod newcomers;
pub mod outcome;
pub mod own_ads;
pub mod patience;
pub mod policy;
pub mod pricing;
pub mod quote;
pub mod rank;
mod rate;
pub mod recent;
pub mod record;
pub mod registry;
pub mod reputation;
pub mod schedule;
pub mod select;
pub mod seller;
pub mod standing;
pub mod trust;
pub mod used;

#[cfg(any(test, fuzzing))]
#[cfg_attr(fuzzing, allow(dead_code, reason = "most of it is for tests alone"))]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a fuzzer's checks panic")]
pub(crate) mod fixture;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod stories;
