//! What infernet nodes say to each other, and nothing about how it gets there.
//!
//! This crate owns identities, the signed [`envelope`], the messages of the market, the frames of a chat stream, money and
//! every size limit. It does no IO, reads no clock and draws no random number: `now` and fresh bytes are arguments. It knows
//! nothing of tokio, libp2p, quinn or any store.
//!
//! | module | what it says |
//! |---|---|
//! | [`key`], [`id`], [`hash`] | one secp256k1 key per node; its PeerId; tagged hashes |
//! | [`codec`], [`envelope`] | canonical CBOR; how a message is signed, checked, forwarded |
//! | [`capability`], [`offer`], [`bid`], [`accept`] | the auction |
//! | [`ad_page`] | the live ads, for one that has just come |
//! | [`standing`] | a job without one, at the price in an ad |
//! | [`chat`] | the stream: frames, tokens, transcript |
//! | [`receipt`], [`receipt_page`] | what both sides sign at the end; how anybody may read it |
//! | [`voucher`], [`evm`] | how a buyer pays as it goes; addresses and typed data of EVM chains |
//! | [`model_name`] | whether two names mean the same model |
//! | [`command`], [`rotation`] | what an operator tells a node; one node's old and new key |
//! | [`money`], [`time`], [`topic`], [`limits`] | units, names and bounds |
//! | [`http_auth`] | `X-Infernet-Auth` |
//!
//! **One message's way in:** bytes → [`envelope::Envelope::decode`] → `open::<T>` (network, fields, age) → seen before? →
//! `verify` → [`envelope::Verified<T>`]. Only a `Verified` value reaches a decision.
//!
//! **Departures from the written protocol**, and why: the request follows the `Open` frame instead of being inside it, so that
//! an accept is checked before a long context is read ([`chat`]); `SealedAnswer` is a kind of its own, so that bids and
//! refusals look alike to everybody but the buyer ([`bid`]); an offer at a standing price is not signed, since the accept beside
//! it vouches for it ([`standing`]).

pub mod accept;
pub mod ad_page;
pub mod bid;
pub mod capability;
pub mod chat;
pub mod codec;
pub mod command;
pub mod envelope;
pub mod evm;
#[cfg(any(test, fuzzing))]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a fuzzer's checks panic")]
#[doc(hidden)]
pub mod fuzz;
pub mod hash;
pub mod http_auth;
pub mod id;
pub mod key;
pub mod limits;
pub mod model_name;
pub mod money;
pub mod offer;
pub mod receipt;
pub mod receipt_page;
pub mod rotation;
pub mod settle;
pub mod standing;
pub mod time;
pub mod topic;
pub mod voucher;
