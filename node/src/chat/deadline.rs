//! Every wait of a chat stream has its deadline here. When one passes, the stream ends with a typed error.

use std::time::Duration;

/// Where a stream is, as its buyer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// `Open` is sent.
    Opening,
    /// The worker has the job, and has said nothing of the answer yet.
    Reading,
    /// The answer runs.
    Streaming,
    /// The answer is whole, its receipt is not.
    Signing,
    /// The buyer wants no more.
    Cancelling,
}

impl Stage {
    /// How long the next frame may take.
    pub fn patience(self) -> Duration {
        match self {
            Stage::Opening => OPENED,
            Stage::Reading => SILENCE_BEFORE_TOKEN,
            Stage::Streaming => SILENCE,
            Stage::Signing => SIGN,
            Stage::Cancelling => CANCEL,
        }
    }
}

/// A buyer's QUIC handshake with a worker. It starts when the bid comes in, so a live worker's is long over when the job is
/// due; a dead one must not use up the time for which runners-up hold their slots.
pub const CONNECT: Duration = Duration::from_millis(750);
/// The same handshake, where a connection of the mesh is there to be used instead: both ways together must leave time for a runner-up.
pub const CONNECT_STRAIGHT: Duration = Duration::from_millis(250);
/// A libp2p stream to a worker, of the connection that there is: a round trip, through a relay. Dialling first takes longer than
/// runners-up hold their slots, so it only helps where there is nobody else.
pub const CONNECT_MESH: Duration = Duration::from_secs(3);
/// A stranger's handshake with us: two lost packets, each repeated after about a second, are forgiven.
pub const HANDSHAKE: Duration = Duration::from_secs(5);
/// From `Open` to `Opened` on a live connection: one round trip and a table look-up. A worker that was killed costs the buyer
/// this much before the runner-up is tried, so it is short; 250 ms of network leave room for the slowest links.
pub const OPENED: Duration = Duration::from_millis(750);
/// From `Opened` to the first token, keep-alives or not: a large model on a CPU reads a long prompt for a minute.
pub const FIRST_TOKEN: Duration = Duration::from_secs(120);
/// Between two frames before the first token. A killed worker sends nothing more, not even a close, so this is what a take-over
/// costs; it must end before the runners-up's holds lapse. Workers send a keep-alive every [`KEEP_ALIVE`].
pub const SILENCE_BEFORE_TOKEN: Duration = Duration::from_millis(1_000);
/// Between two frames after the first token. Nobody can take over unseen any more, so a network that pauses gets time.
pub const SILENCE: Duration = Duration::from_secs(10);
/// The same, if the job can go on in another stream: twelve keep-alives are missed, so the way is broken. A worker that only pauses
/// loses nothing by a new stream.
pub const SILENCE_IF_RESUMABLE: Duration = Duration::from_secs(3);
/// Between two tries to go on with a job in a new stream: the first, and the longest that it grows to. So that the way that comes
/// back first is soon found, and a worker that is gone is asked some thirty times in the grace.
pub const RESUME_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How often a worker that has nothing to say says so: four chances to be heard in time.
pub const KEEP_ALIVE: Duration = Duration::from_millis(250);
/// How long a worker whose answer waits for a voucher waits for it: a round trip, a signature and a disk that is slow once. A buyer that
/// can't go on for a while repeats its last one every [`REPEAT_VOUCHER`]; for [`WRITE`] at most, as any reader. One that can come back in
/// another stream has as long without a word: it may not know yet that its way is broken.
pub const VOUCHER: Duration = Duration::from_secs(2);
/// See [`VOUCHER`]: one repetition may be lost.
pub const REPEAT_VOUCHER: Duration = Duration::from_millis(700);
/// From `Usage` to `Receipt`, and from `Receipt` to `Countersign`: signing and one disk flush.
pub const SIGN: Duration = Duration::from_secs(10);
/// From the countersignature to the worker's end of the stream, which says that it was kept: a round trip and two disk flushes.
/// A buyer that closes its connection earlier may take the bytes with it.
pub const KEPT: Duration = Duration::from_secs(2);
/// From an accepted stream to the whole `Open` frame.
pub const OPEN_FRAME: Duration = Duration::from_secs(5);
/// From the `Open` frame to the last byte of the request: 8 MiB at 1 MB/s.
pub const REQUEST: Duration = Duration::from_secs(10);
/// One write: a reader that takes nothing for this long is gone.
pub const WRITE: Duration = Duration::from_secs(30);
/// One step of a bought job: a caller that takes nothing for this long wants no more, and its job is cancelled.
pub const TAKE: Duration = Duration::from_secs(30);
/// From a buyer's `Cancel` to the worker's last frame.
pub const CANCEL: Duration = Duration::from_secs(5);
/// From closing the endpoint until every peer has been told: a lost packet is repeated twice.
pub const GOODBYE: Duration = Duration::from_secs(2);
