//! A peer of the infernet inference market, as a library; the `infernet` binary is a thin shell over it.

pub mod backend;
pub mod chat;
pub mod clock;
pub mod config;
pub mod hardware;
pub mod identity;
pub mod market;
pub mod net;
pub mod store;
