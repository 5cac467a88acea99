//! A relay: one small machine that is all a new network needs.
//!
//! It is a member of the mesh by the node's own code ([`infernet_node::net`]: the same rules for what is gossiped, the same
//! DHT, as a server of it), and beside that
//! - a **circuit relay** (libp2p's v2) for nodes that can't be dialled: [`hop`] takes the requests, [`message`] reads and writes
//!   them, [`book`] decides by [`limits`], [`pipe`] carries the bytes, [`fair`] says whose turn it is, and [`desk`] is the one
//!   task that owns the last two of those who decide;
//! - an **AutoNAT v2 server**, which tells a node whether it can be dialled;
//! - **`/bootstrap.json`** over HTTP, where a new node begins: [`bootstrap`].
//!
//! [`settings`] is what its operator sets, [`server`] starts and stops it all, [`cli`] is the command, [`watch`] what it is
//! watched by.
//!
//! **A circuit's way:** the target reserves a place → the source asks for it → the target is asked (`stop`) and takes it → bytes,
//! piece by piece, each in its turn → an end: both closed, one gone, or idle.
//!
//! **What it can't know:** what is said on a circuit. Its two ends do libp2p's own handshake through it, each knowing the other's
//! key. It sees who talks with whom, when, and how much; that it can't be kept from.
//!
//! **What it does not do:** sell, buy, or keep anything on the disk but its key. After a restart it has forgotten reservations; nodes
//! make them again.

pub mod book;
pub mod bootstrap;
pub mod cli;
pub mod desk;
pub mod fair;
pub mod hop;
pub mod limits;
pub mod message;
pub mod pipe;
pub mod server;
pub mod settings;
pub mod watch;
