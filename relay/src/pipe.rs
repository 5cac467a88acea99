//! A circuit's bytes, carried from stream to stream in both directions: a piece is read, waits for its turn, is written and
//! flushed. Nothing else is read meanwhile, so that a reader that is slow holds up only whoever writes to it.

use crate::{book::CircuitId, desk::Desk, fair::QUANTUM};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use infernet_node::clock;
use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// How a circuit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides have closed.
    Closed,
    /// A side is gone.
    Broken,
    /// Nothing was carried for too long.
    Idle,
}

impl End {
    /// A short stable name, for counters.
    pub fn label(self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Broken => "broken",
            End::Idle => "idle",
        }
    }
}

/// A copy of all that is carried, for tests that search for what must not be there; what does not fit is left out.
pub type Tap = mpsc::Sender<Vec<u8>>;

/// What carries it.
pub struct Pipe<'a> {
    desk: &'a Desk,
    id: CircuitId,
    tap: Option<&'a Tap>,
    began: Instant,
    /// When something was last carried, in milliseconds since it began.
    last: AtomicU64,
}

impl<'a> Pipe<'a> {
    /// Of a circuit that is open.
    pub fn new(desk: &'a Desk, id: CircuitId, tap: Option<&'a Tap>) -> Self {
        Pipe { desk, id, tap, began: clock::instant(), last: AtomicU64::new(0) }
    }

    /// Carries until both sides have closed, one is gone, or nothing was carried for `idle`.
    pub async fn carry<A, B>(&self, a: A, b: B, idle: Duration) -> End
    where
        A: AsyncRead + AsyncWrite,
        B: AsyncRead + AsyncWrite,
    {
        let ((from_a, to_a), (from_b, to_b)) = (a.split(), b.split());
        let both = futures::future::try_join(self.one_way(from_a, to_b), self.one_way(from_b, to_a));
        tokio::select! {
            ended = both => if ended.is_ok() { End::Closed } else { End::Broken },
            () = self.wait_idle(idle) => End::Idle,
        }
    }

    async fn one_way(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut buffer = vec![0; QUANTUM as usize];
        loop {
            let length = from.read(&mut buffer).await?;
            let piece = buffer.get(..length).unwrap_or_default();
            if piece.is_empty() {
                return to.close().await;
            }
            let turn = self.desk.turn(self.id, length as u64).await.ok_or(io::ErrorKind::BrokenPipe)?;
            to.write_all(piece).await?;
            to.flush().await?;
            self.last.store(self.elapsed(), Ordering::Relaxed);
            self.tap.into_iter().for_each(|tap| drop(tap.try_send(piece.to_vec())));
            if !turn.pause.is_zero() {
                tokio::time::sleep(turn.pause).await;
            }
        }
    }

    async fn wait_idle(&self, idle: Duration) {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        loop {
            let ends = self.last.load(Ordering::Relaxed).saturating_add(idle);
            let left = ends.saturating_sub(self.elapsed());
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(left)).await;
        }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
