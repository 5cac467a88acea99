//! The control plane: a convenience for web clients and operators, never a part of the network. It follows gossip like any
//! node, indexes what it hears, buys on the mesh for clients that have no node, and may be deleted and rebuilt.
//!
//! | module | what |
//! |---|---|
//! | [`follow`], [`rebuild`] | how messages come: gossip, and nodes' own receipts |
//! | [`index`], [`query`] | **pure**: what was heard as an index, and what it tells |
//! | [`store`] | what is remembered, behind one trait: embedded, or PostgreSQL |
//! | [`gateway`] | buys for clients: jobs, leases, answers that can be resumed |
//! | [`cashier`] | what clients deposit on a chain, and what of it stays at hand |
//! | [`accounts`] | who the clients are, how they show it, what they may spend |
//! | [`http`] | every route |
//! | [`auth`] | which node signed a request, and that it was not heard before |
//! | [`commands`] | operators' commands on their way to nodes |
//! | [`legacy`] | jobs for daemons that know nothing of the mesh |
//! | [`shares`] | what nobody may take more of than a part |
//! | [`presence`] | which registered nodes are there |
//! | [`server`], [`watch`] | all of these, started in order; what they can be watched by |
//! | [`cli`], [`settings`] | the command, and what its operator sets |
//! | [`state`], [`config`] | what every route is given; what a plane is set to |
//!
//! **What it is trusted with:** prompts and answers of the jobs that it buys for others, and its own money. Not with anybody's
//! keys, not with a node's commands (operators sign them), not with what nodes earn (receipts are signed by both sides).

pub mod accounts;
pub mod auth;
pub mod cashier;
pub mod cli;
pub mod commands;
pub mod config;
pub mod follow;
pub mod gateway;
pub mod http;
pub mod index;
pub mod legacy;
pub mod presence;
pub mod query;
pub mod rebuild;
pub mod server;
pub mod settings;
pub mod shares;
pub mod state;
pub mod store;
mod uuid;
pub mod watch;
