//! Frames over a byte stream: four bytes of length, big endian, then that many bytes of CBOR.
//!
//! Works on any transport, since a relayed stream carries the same frames as QUIC. Memory is bounded by one frame plus one
//! read: a length above [`MAX_FRAME_BYTES`] is refused before anything is allocated for it.

use super::stream::{Ending, Path};
use bytes::{Buf, BytesMut};
use infernet_wire::{chat::Frame, limits::MAX_FRAME_BYTES};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// Bytes of the length prefix.
const PREFIX: usize = 4;
/// What a reader asks the transport for at once.
const READ_CHUNK: usize = 8 * 1024;
/// Raw bytes that go out in one write with the frame before them: a conversation of a few pages. A second write would wait until
/// the connection has sent the first.
const ONE_WRITE: usize = 16 * 1024;

/// Why no frame could be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side closed the stream between two frames.
    #[error("the stream was closed")]
    Closed,
    /// The other side closed the stream inside a frame.
    #[error("the stream was cut inside a frame")]
    Cut,
    /// A length above the limit.
    #[error("frame of {0} bytes exceeds {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    /// Not a frame.
    #[error("malformed frame")]
    Malformed,
    /// Nothing came, or nothing could be written, in time.
    #[error("no progress for {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The transport failed.
    #[error("transport: {0}")]
    Io(#[from] io::Error),
}

impl FrameError {
    /// A short stable name, for logs: the transport's text quotes the words with which the other side closed.
    pub fn label(&self) -> &'static str {
        match self {
            FrameError::Closed => "closed",
            FrameError::Cut => "cut",
            FrameError::TooLarge(_) => "too_large",
            FrameError::Malformed => "malformed",
            FrameError::Timeout(_) => "timeout",
            FrameError::Io(_) => "transport",
        }
    }

    /// What the error says of the other side, on a stream that goes over `path`.
    pub fn ending(&self, path: &Path) -> Ending {
        match self {
            FrameError::Closed | FrameError::Cut => Ending::of_close(path),
            FrameError::TooLarge(_) | FrameError::Malformed => Ending::Left,
            FrameError::Timeout(_) => Ending::Lost,
            FrameError::Io(error) => Ending::of_error(error),
        }
    }

    /// Whether the other side broke the protocol, rather than the network failing.
    pub fn is_violation(&self) -> bool {
        matches!(self, FrameError::TooLarge(_) | FrameError::Malformed)
    }
}

/// Reads frames.
pub struct FrameReader<R> {
    inner: R,
    buffer: BytesMut,
}

/// A frame and the bytes it was read from, which the transcript needs.
#[derive(Debug)]
pub struct RawFrame {
    /// The frame.
    pub frame: Frame,
    /// Its bytes, without the prefix.
    pub bytes: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `inner`.
    pub fn new(inner: R) -> Self {
        FrameReader { inner, buffer: BytesMut::new() }
    }

    /// The next frame. Cancel safe: bytes already read stay in the reader.
    pub async fn next(&mut self) -> Result<RawFrame, FrameError> {
        loop {
            if let Some(bytes) = self.take_frame()? {
                let frame = Frame::decode(&bytes).map_err(|_| FrameError::Malformed)?;
                return Ok(RawFrame { frame, bytes });
            }
            self.fill().await?;
        }
    }

    /// The next frame within `deadline`. Cancel safe.
    pub async fn next_within(&mut self, deadline: Duration) -> Result<RawFrame, FrameError> {
        timeout(deadline, self.next()).await.map_err(|_| FrameError::Timeout(deadline))?
    }

    /// Exactly `len` raw bytes, in all within `deadline`. The caller has bounded `len`; memory grows as bytes arrive.
    pub async fn read_raw(&mut self, len: usize, deadline: Duration) -> Result<BytesMut, FrameError> {
        let read = async {
            while self.buffer.len() < len {
                self.fill().await?;
            }
            Ok(self.buffer.split_to(len))
        };
        timeout(deadline, read).await.map_err(|_| FrameError::Timeout(deadline))?
    }

    fn take_frame(&mut self) -> Result<Option<BytesMut>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        let len = u32::from_be_bytes(*prefix) as usize;
        if len > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge(len));
        }
        if self.buffer.len() < PREFIX + len {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(len)))
    }

    async fn fill(&mut self) -> Result<(), FrameError> {
        self.buffer.reserve(READ_CHUNK);
        match self.inner.read_buf(&mut self.buffer).await? {
            0 if self.buffer.is_empty() => Err(FrameError::Closed),
            0 => Err(FrameError::Cut),
            _ => Ok(()),
        }
    }
}

/// Writes frames.
pub struct FrameWriter<W> {
    inner: W,
    buffer: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes to `inner`.
    pub fn new(inner: W) -> Self {
        FrameWriter { inner, buffer: Vec::new() }
    }

    /// Writes one frame given as [`Frame::encode`] made it, within `deadline`. Not cancel safe.
    pub async fn write(&mut self, frame: &[u8], deadline: Duration) -> Result<(), FrameError> {
        self.write_with(frame, &[], deadline).await
    }

    /// Writes one frame and raw bytes behind it. Not cancel safe.
    pub async fn write_with(&mut self, frame: &[u8], raw: &[u8], deadline: Duration) -> Result<(), FrameError> {
        if frame.len() > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge(frame.len()));
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        self.buffer.extend_from_slice(frame);
        let (near, rest) = raw.split_at(raw.len().min(ONE_WRITE));
        self.buffer.extend_from_slice(near);
        let (inner, buffer) = (&mut self.inner, &self.buffer);
        let write = async {
            inner.write_all(buffer).await?;
            inner.write_all(rest).await?;
            inner.flush().await
        };
        Ok(timeout(deadline, write).await.map_err(|_| FrameError::Timeout(deadline))??)
    }

    /// Closes the sending side in order: what was written still arrives.
    pub async fn finish(&mut self) -> Result<(), FrameError> {
        Ok(self.inner.shutdown().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::{
        chat::{Channel, Delta},
        limits::MAX_REQUEST_BYTES,
    };

    const SOON: Duration = Duration::from_secs(5);

    fn delta(text: &str) -> Frame {
        Frame::Delta(Delta { seq: 0, channel: Channel::ANSWER, text: text.into(), tokens: 1, logprobs: vec![] })
    }

    #[tokio::test]
    async fn frames_survive_any_cut_of_the_byte_stream() {
        let (near, far) = tokio::io::duplex(3);
        let sent = [delta("a"), Frame::Cancel, delta(&"x".repeat(500))];
        let frames = sent.clone();
        let writing = tokio::spawn(async move {
            let mut writer = FrameWriter::new(near);
            for frame in &frames {
                writer.write(&frame.encode(), SOON).await.expect("writes");
            }
            writer.write_with(&Frame::KeepAlive.encode(), b"raw tail", SOON).await.expect("writes");
            writer.finish().await.expect("finishes");
        });
        let mut reader = FrameReader::new(far);
        for frame in sent {
            assert_eq!(reader.next_within(SOON).await.expect("a frame").frame, frame);
        }
        assert_eq!(reader.next_within(SOON).await.expect("a frame").frame, Frame::KeepAlive);
        assert_eq!(&reader.read_raw(8, SOON).await.expect("raw")[..], b"raw tail");
        assert!(matches!(reader.next_within(SOON).await, Err(FrameError::Closed)));
        writing.await.expect("the writer ends");
    }

    #[tokio::test]
    async fn an_oversized_length_is_refused_before_its_bytes() {
        let mut reader = FrameReader::new(&[0xff, 0xff, 0xff, 0xff][..]);
        assert!(matches!(reader.next().await, Err(FrameError::TooLarge(4_294_967_295))));
        let mut writer = FrameWriter::new(Vec::new());
        assert!(matches!(writer.write(&vec![0; MAX_FRAME_BYTES + 1], SOON).await, Err(FrameError::TooLarge(_))));
    }

    #[tokio::test]
    async fn a_cut_stream_is_not_a_closed_one() {
        let mut reader = FrameReader::new(&[0, 0, 0, 9, 1][..]);
        assert!(matches!(reader.next().await, Err(FrameError::Cut)));
        let mut reader = FrameReader::new(&[0, 0, 0, 1, 0xff][..]);
        assert!(matches!(reader.next().await, Err(FrameError::Malformed)));
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let (_open, far) = tokio::io::duplex(8);
        let mut reader = FrameReader::new(far);
        let waited = reader.next_within(Duration::from_millis(5)).await;
        assert!(matches!(waited, Err(FrameError::Timeout(_))));
        let raw = reader.read_raw(MAX_REQUEST_BYTES, Duration::from_millis(5)).await;
        assert!(matches!(raw, Err(FrameError::Timeout(_))));
    }
}
