//! Chat streams: what a buyer and a worker say to each other alone.
//!
//! A stream keeps its order and loses nothing, as QUIC's do: what is sent into a partition waits and arrives when the network is
//! whole again. A process that dies takes its ends with it without a word; the other side finds out by its own deadlines.

use super::{JobNo, StreamNo, Who, World, event::Event, member::Life};
use infernet_wire::{
    accept::JobAccept,
    envelope::Verified,
    id::NodeId,
    receipt::{Countersign, JobReceipt},
};
use std::rc::Rc;

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
    /// Whether it is still of use.
    pub open: bool,
}

impl Stream {
    /// A stream for `job`.
    pub fn new(job: JobNo, buyer: Who, worker: Who, epochs: (u32, u32)) -> Self {
        Stream { job, buyer, worker, epochs, last: [0; 2], held: Vec::new(), open: true }
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
        let (from, to) = if to_worker { (stream.buyer, stream.worker) } else { (stream.worker, stream.buyer) };
        if !self.mesh.has_way(from, to) {
            stream.held.push((to_worker, piece));
            return;
        }
        let arrives = self.ms + delay_ms + self.mesh.takes_ms(from, to, &mut self.way_dice);
        let Some(last) = stream.last.get_mut(usize::from(to_worker)) else { return };
        *last = arrives.max(*last);
        self.stats.frames += 1;
        self.wheel.put(*last, Event::Piece { stream: no, to_worker, piece: Box::new(piece) });
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
    pub(super) fn on_piece(&mut self, no: StreamNo, to_worker: bool, piece: Piece) {
        let Some(stream) = self.stream(no) else { return };
        let (to, epoch) = if to_worker { (stream.worker, stream.epochs.1) } else { (stream.buyer, stream.epochs.0) };
        let member = self.member(to);
        // A process that was started anew knows nothing of it.
        if member.life != Life::Up || member.epoch != epoch {
            return;
        }
        match piece {
            Piece::Open(open) => self.on_open(to, no, &open),
            piece if to_worker => self.on_worker_frame(to, no, piece),
            piece => self.on_buyer_frame(to, no, piece),
        }
    }

    /// Nothing follows.
    pub(super) fn close(&mut self, no: StreamNo) {
        if let Some(stream) = self.stream_mut(no) {
            stream.open = false;
            stream.held.clear();
        }
    }
}
