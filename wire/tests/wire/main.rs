//! The wire crate from outside: vectors, compatibility, and what must hold for any bytes.

mod http_auth;
mod properties;
mod samples;
mod vectors;
