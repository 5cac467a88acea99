//! The chat stream: prompt and answer travel here, from buyer to worker, encrypted end to end, and nowhere else.
//!
//! [`endpoint`] is QUIC on UDP 46337 with the node's own key as TLS identity, so both sides know each other's PeerId before
//! the first byte. [`pool`] keeps connections to workers warm; `paced` lets many small frames share a packet. [`framing`] cuts
//! the byte stream into frames. [`session`] is the protocol, pure: what each side may send when, the transcript hash, the token
//! rules. [`server`] runs it for a worker between the stream, the engine and the market, and keeps a [`tally`]; [`client`] runs
//! it for a buyer.
//!
//! Where no UDP gets through, [`relayed`] carries the same over a libp2p stream; the rest does not notice.
//!
//! One job: the buyer opens a stream on a warm connection and sends `Open` and the request at once; the worker checks the
//! accept against its hold, answers `Opened`, and passes each token on as one `Delta`; at the end both sign the receipt.
//!
//! A stream may break and the job go on in another: `line` is the worker's way to a buyer that comes and goes, [`backlog`] what
//! it may have missed, [`lasting`] how its new stream finds the job.
//!
//! A job that costs something is paid as it runs, on the [tab](crate::settlement::tab) of the two; [`arrears`] is how long a worker
//! waits.
//!
//! This module does not know how the winner was chosen, and never sees gossip.

pub mod arrears;
pub mod backlog;
pub mod client;
pub mod deadline;
pub mod endpoint;
pub mod framing;
pub mod lasting;
mod line;
mod paced;
pub mod pool;
pub mod relayed;
pub mod server;
pub mod session;
pub mod stream;
pub mod tally;
