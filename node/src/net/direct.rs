//! `/infernet/bid/1`: one answer to one neighbour. The request is the bytes of a `JobBid`, `NoBid` or `SealedAnswer`
//! envelope, ended by closing the stream; the response is one byte.

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use infernet_wire::{bid, limits};
use libp2p::{StreamProtocol, request_response};
use std::{io, sync::Arc, time::Duration};

/// The protocol's name.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/infernet/bid/1");
/// An answer inside a seal inside an envelope.
pub(super) const MAX_REQUEST_BYTES: usize = bid::MAX_ANSWER_BYTES + 2 * limits::ENVELOPE_OVERHEAD_BYTES;
/// Half the longest bid window: later, the other way is not worth trying either.
const TIMEOUT: Duration = Duration::from_millis(limits::MAX_BID_WINDOW_MS / 2);
/// Answers in flight per connection: those to one offer by all who may answer it, twice over.
const MAX_STREAMS: usize = 128;

/// What became of an answer. An open number: what we don't know counts as [`Reply::REFUSED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply(u8);

impl Reply {
    /// It is with the buyer.
    pub(super) const DELIVERED: Self = Reply(0);
    /// This way does not lead to the buyer, or not now.
    pub(super) const NO_ROUTE: Self = Reply(1);
    /// It was looked at and not wanted.
    pub(super) const REFUSED: Self = Reply(2);
}

pub(super) type Behaviour = request_response::Behaviour<Codec>;
pub(super) type Event = request_response::Event<Arc<[u8]>, Reply>;
pub(super) type Channel = request_response::ResponseChannel<Reply>;

pub(super) fn behaviour() -> Behaviour {
    let config = request_response::Config::default().with_request_timeout(TIMEOUT).with_max_concurrent_streams(MAX_STREAMS);
    Behaviour::new([(PROTOCOL, request_response::ProtocolSupport::Full)], config)
}

/// Raw bytes with a cap.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Codec;

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Arc<[u8]>;
    type Response = Reply;

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Arc<[u8]>> {
        let mut bytes = Vec::new();
        // One more than may be: the gate refuses and counts it, while an error here would go unnoticed.
        io.take(MAX_REQUEST_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
        Ok(bytes.into())
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Reply> {
        let mut byte = [0];
        io.read_exact(&mut byte).await?;
        let [code] = byte;
        Ok(Reply(code))
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Arc<[u8]>,
    ) -> io::Result<()> {
        io.write_all(&bytes).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        reply: Reply,
    ) -> io::Result<()> {
        io.write_all(&[reply.0]).await
    }
}
