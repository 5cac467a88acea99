//! What may happen next.

use super::{JobNo, StreamNo, Who, fault::FaultKind, stream::Piece};
use infernet_wire::{bid::Answer, id::NodeId};

/// An event of the simulated world.
#[derive(Debug)]
pub enum Event {
    /// A copy of a gossip message arrives.
    Rumour {
        /// Where.
        to: Who,
        /// From which neighbour.
        from: Who,
        /// Which.
        rumour: u32,
    },
    /// A node has checked the signature of a gossip message.
    Checked {
        /// Which node.
        to: Who,
        /// In which of its lives.
        epoch: u32,
        /// From which neighbour it came.
        from: Who,
        /// Which.
        rumour: u32,
    },
    /// A bid or refusal arrives, at its buyer or on its way.
    Answer {
        /// Where.
        to: Who,
        /// From whom, and what.
        answer: Box<(NodeId, Answer)>,
    },
    /// Something arrives on a chat stream.
    Piece {
        /// Which stream.
        stream: StreamNo,
        /// To its worker, or to its buyer.
        to_worker: bool,
        /// Over which of its connections; `None`: over whichever there is.
        way: Option<u32>,
        /// What.
        piece: Box<Piece>,
    },
    /// A node's timer rings, unless it was started anew since.
    Timer {
        /// Whose.
        who: Who,
        /// In which of its lives it was set.
        epoch: u32,
        /// Which.
        timer: Timer,
    },
    /// A caller of this node wants something.
    Order(Who),
    /// A fault is drawn.
    Fault,
    /// A fault strikes.
    Strike {
        /// Which.
        kind: FaultKind,
        /// The job that it is aimed at; without one it has waited long enough.
        job: Option<JobNo>,
    },
    /// A fault is over.
    Over(Recovery),
    /// An attacker's turn.
    Attack,
}

/// A node's timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The buyer's decider wants to look again.
    BuyerWake,
    /// The worker's decider wants to look again.
    WorkerWake,
    /// An ad is due.
    Advertise,
    /// What others' ads were is written down.
    SaveSequences,
    /// A buyer's stream may have been silent for too long.
    Silence(StreamNo),
    /// The engine has another token.
    Token(StreamNo),
    /// A worker that has nothing to say says so.
    KeepAlive(StreamNo),
    /// The countersignature should be here.
    Countersign(StreamNo),
    /// A receipt that was sent already is written (a planted bug).
    KeepLate(StreamNo),
    /// A job has waited for its auction for too long.
    Turn(JobNo),
    /// A job has waited for somebody to have room, and is tried again.
    Again(JobNo),
    /// A caller wants no more.
    Cancel(JobNo),
    /// A buyer notices that a connection of its stream is broken.
    BuyerLost(StreamNo, u32),
    /// A worker notices it.
    WorkerLost(StreamNo, u32),
    /// A buyer tries to come back for its job.
    ComeBack(StreamNo),
    /// A worker has waited for its buyer for long enough.
    Grace(StreamNo, u32),
    /// A worker can't be reached.
    Unreachable(StreamNo),
}

/// What ends when a fault is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// A node that crashed is started again.
    Restart(Who),
    /// The network is whole again.
    Heal,
    /// Ways are as fast as ever.
    Faster,
    /// Gossip is lost no more often than ever.
    LessLoss,
    /// The engine works again.
    Engine(Who),
    /// There is room on the disk.
    Room(Who),
    /// A process that could not write is gone.
    Die(Who),
}
