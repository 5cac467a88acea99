//! Chat streams: what a buyer and a worker say to each other alone.
//!
//! A stream keeps its order and loses nothing, as QUIC's do: what is sent into a partition waits and arrives when the network is
//! whole again. Only when its connection breaks (`World::break_stream`) is that lost which is on its way; both ends notice it,
//! each in its time, and the buyer may come back over another connection, for which the stream here has another number of its way. A
//! process that dies takes its ends with it without a word; the other side finds out by its own deadlines.

use super::{
    JobNo, StreamNo, Who, World,
    event::{Event, Timer},
    fault::IDLE_MS,
    member::Life,
};
use infernet_node::chat::deadline;
use infernet_wire::{
    accept::JobAccept,
    chat::{ErrorCode, Frame, StreamError},
    envelope::Verified,
    id::NodeId,
    receipt::{Countersign, JobReceipt},
};
use std::rc::Rc;

/// How long a buyer takes at most to notice that a connection is broken: its patience with a worker that it can come back to.
const NOTICED_MS: u64 = deadline::SILENCE_IF_RESUMABLE.as_millis() as u64;

/// How a stream begins.
#[derive(Debug, Clone)]
pub struct OpenPiece {
    /// Whom the connection has proved to be at the other end.
    pub from: NodeId,
    /// The open frame's bytes.
    pub frame: Rc<[u8]>,
    /// The request's bytes.
    pub request: Rc<[u8]>,
    /// The accept in the frame: it was signed, as the frame's bytes don't show here.
    pub accept: Verified<JobAccept>,
}

/// Whose own uplink it was that broke hears so from its system at once.
const AT_ONCE_MS: u64 = 50;

/// What travels.
#[derive(Debug, Clone)]
pub enum Piece {
    /// The beginning.
    Open(Rc<OpenPiece>),
    /// A frame's bytes; beside them the signed message in it, if there is one.
    Frame {
        /// The bytes.
        frame: Vec<u8>,
        /// A worker's receipt.
        receipt: Option<Verified<JobReceipt>>,
        /// A buyer's agreement.
        countersign: Option<Verified<Countersign>>,
    },
    /// The buyer is back, and wants to go on at this content frame.
    Resume(u64),
    /// The other side has let go.
    Reset,
}

impl Piece {
    /// A frame without a signed message.
    pub fn frame(frame: Vec<u8>) -> Self {
        Piece::Frame { frame, receipt: None, countersign: None }
    }
}

/// One stream, as the network sees it.
#[derive(Debug)]
pub struct Stream {
    /// For which job.
    pub job: JobNo,
    /// Who asks.
    pub buyer: Who,
    /// Who answers.
    pub worker: Who,
    /// The lives in which it began.
    pub epochs: (u32, u32),
    /// When the last piece arrives on each way.
    last: [u64; 2],
    /// What waits for a way.
    held: Vec<(bool, Piece)>,
    /// The number of its connection.
    way: u32,
    /// The number of the one that its worker knows.
    taken: u32,
    /// Whether that is broken.
    broken: bool,
    /// Whether it is still of use.
    pub open: bool,
}

impl Stream {
    /// A stream for `job`.
    pub fn new(job: JobNo, buyer: Who, worker: Who, epochs: (u32, u32)) -> Self {
        Stream { job, buyer, worker, epochs, last: [0; 2], held: Vec::new(), way: 0, taken: 0, broken: false, open: true }
    }
}

impl World {
    /// The stream of this number.
    pub(super) fn stream(&self, no: StreamNo) -> Option<&Stream> {
        self.streams.get(no as usize)
    }

    fn stream_mut(&mut self, no: StreamNo) -> Option<&mut Stream> {
        self.streams.get_mut(no as usize)
    }

    /// Sends a piece on its way.
    pub(super) fn send(&mut self, no: StreamNo, to_worker: bool, piece: Piece) {
        self.send_after(no, to_worker, piece, 0);
    }

    /// Sends a piece when `delay_ms` have passed.
    pub(super) fn send_after(&mut self, no: StreamNo, to_worker: bool, piece: Piece, delay_ms: u64) {
        let Some(stream) = self.streams.get_mut(no as usize) else { return };
        // A worker that has not heard yet that its buyer is back still writes to the connection that broke.
        if stream.broken || !to_worker && stream.taken != stream.way {
            return;
        }
        let way = Some(stream.way);
        let (from, to) = if to_worker { (stream.buyer, stream.worker) } else { (stream.worker, stream.buyer) };
        if !self.mesh.has_way(from, to) {
            stream.held.push((to_worker, piece));
            return;
        }
        let arrives = self.ms + delay_ms + self.mesh.takes_ms(from, to, &mut self.way_dice);
        let Some(last) = stream.last.get_mut(usize::from(to_worker)) else { return };
        *last = arrives.max(*last);
        self.stats.frames += 1;
        self.wheel.put(*last, Event::Piece { stream: no, to_worker, way, piece: Box::new(piece) });
    }

    /// The network is whole again: what waited is sent.
    pub(super) fn send_held(&mut self) {
        for no in 0..self.streams.len() as StreamNo {
            let held = self.stream_mut(no).map(|stream| std::mem::take(&mut stream.held)).unwrap_or_default();
            for (to_worker, piece) in held {
                self.send(no, to_worker, piece);
            }
        }
    }

    /// A piece has arrived.
    pub(super) fn on_piece(&mut self, no: StreamNo, to_worker: bool, way: Option<u32>, piece: Piece) {
        let Some(stream) = self.stream(no) else { return };
        if way.is_some_and(|way| way != stream.way || stream.broken) {
            return;
        }
        let (to, epoch) = if to_worker { (stream.worker, stream.epochs.1) } else { (stream.buyer, stream.epochs.0) };
        let member = self.member(to);
        // A process that was started anew knows nothing of it.
        if member.life != Life::Up || member.epoch != epoch {
            // But says so, if it is up.
            if member.life == Life::Up && matches!(piece, Piece::Resume(_)) {
                self.refuse_resume(no);
            }
            return;
        }
        match piece {
            Piece::Resume(from) => self.on_resume(to, no, from),
            Piece::Open(open) => self.on_open(to, no, &open),
            piece if to_worker => self.on_worker_frame(to, no, piece),
            piece => self.on_buyer_frame(to, no, piece),
        }
    }

    /// The connection breaks; what is on its way is lost. Both ends notice it, each in its time.
    pub(super) fn break_stream(&mut self, no: StreamNo) {
        let mut noticed =
            |last| if self.fault_dice.chance(500) { self.fault_dice.below(AT_ONCE_MS) } else { self.fault_dice.below(last) };
        let (by_buyer, by_worker) = (noticed(NOTICED_MS), noticed(IDLE_MS));
        let ms = self.ms;
        let Some(stream) = self.stream_mut(no).filter(|stream| stream.open && !stream.broken) else { return };
        stream.broken = true;
        stream.held.clear();
        let (buyer, worker, way) = (stream.buyer, stream.worker, stream.way);
        self.stats.count("stream", "broken");
        self.set(buyer, ms + by_buyer, Timer::BuyerLost(no, way));
        self.set(worker, ms + by_worker, Timer::WorkerLost(no, way));
    }

    /// Whether connection `way` of a stream is its last, and broken.
    pub(super) fn is_broken(&self, no: StreamNo, way: u32) -> bool {
        self.stream(no).is_some_and(|stream| stream.broken && stream.way == way)
    }

    /// Whether it has no later connection.
    pub(super) fn is_last(&self, no: StreamNo, way: u32) -> bool {
        self.stream(no).is_some_and(|stream| stream.way == way)
    }

    /// The buyer has another connection.
    pub(super) fn reconnect(&mut self, no: StreamNo) {
        if let Some(stream) = self.stream_mut(no) {
            stream.way += 1;
            stream.broken = false;
        }
    }

    /// The worker goes on over the connection on which its buyer came back.
    pub(super) fn take_way(&mut self, no: StreamNo) {
        if let Some(stream) = self.stream_mut(no) {
            stream.taken = stream.way;
        }
    }

    /// There is no such job.
    pub(super) fn refuse_resume(&mut self, no: StreamNo) {
        self.take_way(no);
        self.stats.count("resume", "refused");
        let error = StreamError { code: ErrorCode::BAD_RESUME, retryable: false, message: "no such job".into() };
        self.send(no, false, Piece::frame(Frame::Error(error).encode()));
    }

    /// Nothing follows.
    pub(super) fn close(&mut self, no: StreamNo) {
        if let Some(stream) = self.stream_mut(no) {
            stream.open = false;
            stream.held.clear();
        }
    }
}
