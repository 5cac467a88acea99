//! The jobs of a worker whose buyers may come back, and the way from a new stream to its job.
//!
//! A job is known by its accept, which its buyer has signed; only streams of that buyer's key get to it. It is listed here until it
//! is over.

use super::line::Newcomer;
use infernet_wire::id::{Hash, NodeId};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::mpsc;

/// Streams that wait for one job to take them: an honest buyer opens one after the other.
const WAITING: usize = 1;
/// Jobs that are over and wait for their buyer to come for the receipt. Their slots are free, so only this bounds them; each keeps
/// at most [`MAX_UNACKED_BYTES`](infernet_wire::limits::MAX_UNACKED_BYTES), together 64 MB.
pub const MAX_OVER: usize = 128;

/// A stream can't go on with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotResumed {
    /// There is none, or it is not this buyer's: which of both is nobody's business.
    #[error("no such job runs here for this buyer; start a new one")]
    Unknown,
    /// Another stream is just being taken.
    #[error("another stream is just taking over; try again")]
    Busy,
}

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub struct Lasting {
    jobs: Arc<Mutex<Jobs>>,
}

#[derive(Default)]
struct Jobs {
    by_accept: BTreeMap<Hash, Entry>,
    over: usize,
}

struct Entry {
    buyer: NodeId,
    newcomers: mpsc::Sender<Newcomer>,
}

impl Lasting {
    /// Lists the job of `accept` until the guard is dropped; its buyer's streams come out of the receiver.
    pub fn list(&self, accept: Hash, buyer: NodeId) -> (Listed, mpsc::Receiver<Newcomer>) {
        let (newcomers, receiver) = mpsc::channel(WAITING);
        self.lock().by_accept.insert(accept, Entry { buyer, newcomers });
        (Listed { all: self.clone(), accept, is_over: false }, receiver)
    }

    /// Brings a stream of `buyer` to its job.
    pub fn resume(&self, accept: &Hash, buyer: &NodeId, newcomer: Newcomer) -> Result<(), (NotResumed, Box<Newcomer>)> {
        let found =
            self.lock().by_accept.get(accept).filter(|entry| entry.buyer == *buyer).map(|entry| entry.newcomers.clone());
        let Some(newcomers) = found else { return Err((NotResumed::Unknown, Box::new(newcomer))) };
        newcomers.try_send(newcomer).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(newcomer) => (NotResumed::Busy, Box::new(newcomer)),
            mpsc::error::TrySendError::Closed(newcomer) => (NotResumed::Unknown, Box::new(newcomer)),
        })
    }

    /// Jobs whose buyers may come back.
    pub fn len(&self) -> usize {
        self.lock().by_accept.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        // Nothing panics while it holds the lock.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job that its buyer may come back for. It is not after this is dropped.
pub struct Listed {
    all: Lasting,
    accept: Hash,
    is_over: bool,
}

impl Listed {
    /// The engine is done. Whether there is room to wait for a buyer that is away.
    pub fn may_wait(&mut self) -> bool {
        let mut jobs = self.all.lock();
        if !self.is_over && jobs.over < MAX_OVER {
            jobs.over += 1;
            self.is_over = true;
        }
        self.is_over
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut jobs = self.all.lock();
        jobs.by_accept.remove(&self.accept);
        jobs.over -= usize::from(self.is_over);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            framing::{FrameReader, FrameWriter},
            stream::Path,
        },
        *,
    };

    const BUYER: NodeId = NodeId([2; 33]);

    fn newcomer() -> Newcomer {
        let (reader, writer) =
            (FrameReader::new(Box::pin(tokio::io::empty()) as _), FrameWriter::new(Box::pin(tokio::io::sink()) as _));
        Newcomer { from: 0, path: Path::Mesh(None), reader, writer }
    }

    #[test]
    fn only_the_buyer_of_a_job_gets_to_it_and_one_stream_at_a_time() {
        let all = Lasting::default();
        let (listed, mut streams) = all.list(Hash([1; 32]), BUYER);
        let resume = |accept, buyer| all.resume(&Hash([accept; 32]), &buyer, newcomer()).map_err(|(reason, _)| reason);
        assert_eq!(resume(1, NodeId([3; 33])), Err(NotResumed::Unknown), "another key");
        assert_eq!(resume(2, BUYER), Err(NotResumed::Unknown), "another job");
        assert_eq!(resume(1, BUYER), Ok(()));
        assert_eq!(resume(1, BUYER), Err(NotResumed::Busy));
        assert!(streams.try_recv().is_ok());
        assert_eq!(resume(1, BUYER), Ok(()));
        drop(listed);
        assert_eq!(resume(1, BUYER), Err(NotResumed::Unknown), "over");
        assert!(all.is_empty());
    }

    #[test]
    fn only_so_many_jobs_that_are_over_wait_for_their_buyers() {
        let all = Lasting::default();
        let mut listed: Vec<Listed> = (0..=MAX_OVER).map(|n| all.list(Hash([n as u8; 32]), BUYER).0).collect();
        let waiting = listed.iter_mut().filter_map(|job| job.may_wait().then_some(())).count();
        assert_eq!(waiting, MAX_OVER);
        listed.remove(0);
        assert!(listed.last_mut().expect("there are more").may_wait(), "the room of one that is gone");
    }
}
