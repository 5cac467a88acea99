//! The control plane: a convenience for web clients and operators, never a part of the network. It follows gossip like any
//! node, indexes what it hears, buys on the mesh for clients that have no node, and may be deleted and rebuilt.
//!
//! | module | what |
//! |---|---|
//! | [`follow`], [`rebuild`] | how messages come: gossip, and nodes' own receipts |
//! | [`index`], [`query`] | **pure**: what was heard as an index, and what it tells |
//! | [`store`] | what is remembered, behind one trait: embedded, or PostgreSQL |
//!
//! **What it is trusted with:** prompts and answers of the jobs that it buys for others, and its own money. Not with anybody's
//! keys, not with a node's commands (operators sign them), not with what nodes earn (receipts are signed by both sides).

pub mod follow;
pub mod index;
pub mod query;
pub mod rebuild;
pub mod store;
