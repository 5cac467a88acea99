//! The wire crate from outside: vectors, compatibility, and what must hold for any bytes.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a failing test may panic")]

mod http_auth;
mod properties;
mod samples;
mod solana;
mod vectors;
mod voucher;
