//! What a worker has said and its buyer may not have, so that another stream can go on where one broke. Pure.
//!
//! Frames are numbered as their `seq` is; `Usage` and `Receipt` come behind them and are kept to the end. The buyer's
//! acknowledgements make room; when there is none the engine has to wait, so memory is bounded per job.

use infernet_wire::limits;
use std::collections::VecDeque;

/// A job can't go on where its buyer wants to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody has sent that.
    #[error("asks for frame {seq}, {sent} were sent")]
    Beyond {
        /// What is asked for.
        seq: u64,
        /// How many there are.
        sent: u64,
    },
    /// The buyer has acknowledged it.
    #[error("asks for frame {seq}, those before {kept} were acknowledged")]
    Gone {
        /// What is asked for.
        seq: u64,
        /// The oldest there is.
        kept: u64,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub struct Backlog {
    frames: VecDeque<Vec<u8>>,
    /// The number of the first of them.
    first: u64,
    bytes: usize,
    /// The number of the next to be written to the stream that there is now.
    next: u64,
    /// How many at the end are no content.
    ending: u64,
}

impl Backlog {
    /// One more content frame.
    pub fn push(&mut self, frame: Vec<u8>) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// `Usage`, then `Receipt`: no content comes after them.
    pub fn push_ending(&mut self, frame: Vec<u8>) {
        self.ending += 1;
        self.push(frame);
    }

    /// Whether nothing more may be said until the buyer acknowledges.
    pub fn is_full(&self) -> bool {
        self.bytes >= limits::MAX_UNACKED_BYTES || self.frames.len() >= limits::MAX_UNACKED_FRAMES
    }

    /// The next frame to write; `None` when all are.
    pub fn unwritten(&self) -> Option<&[u8]> {
        let place = usize::try_from(self.next.checked_sub(self.first)?).ok()?;
        self.frames.get(place).map(Vec::as_slice)
    }

    /// It is written.
    pub fn wrote(&mut self) {
        self.next = (self.next + 1).min(self.end());
    }

    /// The buyer has all content below `seq`; `Err` if it can't. An older number than before tells nothing.
    pub fn acknowledge(&mut self, seq: u64) -> Result<(), Refused> {
        let sent = self.next.min(self.contents());
        if seq > sent {
            return Err(Refused::Beyond { seq, sent });
        }
        self.let_go(seq);
        Ok(())
    }

    /// Nobody will ask for what is written.
    pub fn forget_written(&mut self) {
        self.let_go(self.next);
    }

    /// Another stream: everything from `seq` on is written anew. The buyer has what is below.
    pub fn rewind(&mut self, seq: u64) -> Result<(), Refused> {
        let sent = self.contents();
        if seq > sent {
            return Err(Refused::Beyond { seq, sent });
        }
        if seq < self.first {
            return Err(Refused::Gone { seq, kept: self.first });
        }
        self.let_go(seq);
        self.next = seq;
        Ok(())
    }

    fn end(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    fn contents(&self) -> u64 {
        self.end() - self.ending
    }

    fn let_go(&mut self, below: u64) {
        while self.first < below
            && let Some(frame) = self.frames.pop_front()
        {
            self.first += 1;
            self.bytes -= frame.len();
        }
        self.next = self.next.max(self.first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Frames 0, 1, 2 …, of one byte each.
    fn said(count: u8) -> Backlog {
        let mut backlog = Backlog::default();
        (0..count).for_each(|n| backlog.push(vec![n]));
        backlog
    }

    fn write(backlog: &mut Backlog) -> Vec<u8> {
        let mut written = Vec::new();
        while let Some(frame) = backlog.unwritten() {
            written.extend_from_slice(frame);
            backlog.wrote();
        }
        written
    }

    #[test]
    fn another_stream_goes_on_where_the_buyer_wants() {
        let mut backlog = said(5);
        assert_eq!(write(&mut backlog), [0, 1, 2, 3, 4]);
        backlog.rewind(3).unwrap();
        backlog.push(vec![5]);
        assert_eq!(write(&mut backlog), [3, 4, 5]);
        backlog.rewind(6).unwrap();
        assert!(write(&mut backlog).is_empty(), "the buyer has all");
    }

    #[test]
    fn what_was_acknowledged_or_never_sent_is_refused() {
        let mut backlog = said(5);
        write(&mut backlog);
        assert_eq!(backlog.rewind(6), Err(Refused::Beyond { seq: 6, sent: 5 }));
        backlog.acknowledge(4).unwrap();
        assert_eq!(backlog.rewind(3), Err(Refused::Gone { seq: 3, kept: 4 }));
        backlog.rewind(4).unwrap();
        assert_eq!(write(&mut backlog), [4]);
        assert_eq!(backlog.rewind(3), Err(Refused::Gone { seq: 3, kept: 4 }), "to resume at 4 acknowledges 3");
    }

    #[test]
    fn the_end_is_sent_again_and_can_not_be_acknowledged() {
        let mut backlog = said(2);
        backlog.push_ending(vec![b'u']);
        backlog.push_ending(vec![b'r']);
        assert_eq!(write(&mut backlog), [0, 1, b'u', b'r']);
        assert_eq!(backlog.acknowledge(3), Err(Refused::Beyond { seq: 3, sent: 2 }));
        for _ in 0..3 {
            backlog.rewind(2).unwrap();
            assert_eq!(write(&mut backlog), *b"ur");
        }
    }

    #[test]
    fn nobody_acknowledges_what_was_not_written() {
        let mut backlog = said(2);
        assert_eq!(backlog.acknowledge(1), Err(Refused::Beyond { seq: 1, sent: 0 }));
        backlog.wrote();
        backlog.acknowledge(1).unwrap();
        backlog.acknowledge(0).unwrap();
        assert_eq!(write(&mut backlog), [1]);
    }

    #[test]
    fn it_is_full_by_frames_or_by_bytes_until_the_buyer_acknowledges() {
        let mut many = Backlog::default();
        (0..limits::MAX_UNACKED_FRAMES).for_each(|_| many.push(vec![0]));
        let mut large = Backlog::default();
        large.push(vec![0; limits::MAX_UNACKED_BYTES]);
        for mut backlog in [many, large] {
            assert!(backlog.is_full());
            write(&mut backlog);
            backlog.acknowledge(1).unwrap();
            assert!(!backlog.is_full());
        }
    }

    proptest! {
        /// Whatever the buyer does, each stream gets what it asked for, in order and whole.
        #[test]
        fn no_frame_is_lost_or_repeated(steps in prop::collection::vec((0u8..4, 0u64..40), 0..120)) {
            let (mut backlog, mut said, mut acknowledged, mut stream) = (Backlog::default(), 0u64, 0u64, 0u64);
            for (step, n) in steps {
                match step {
                    0 => { backlog.push(said.to_be_bytes().to_vec()); said += 1; }
                    1 if backlog.unwritten().is_some() => {
                        prop_assert_eq!(backlog.unwritten(), Some(&stream.to_be_bytes()[..]));
                        backlog.wrote();
                        stream += 1;
                    }
                    2 => {
                        prop_assert_eq!(backlog.acknowledge(n).is_ok(), n <= stream);
                        acknowledged = if n <= stream { acknowledged.max(n) } else { acknowledged };
                    }
                    3 => {
                        let possible = n >= acknowledged && n <= said;
                        prop_assert_eq!(backlog.rewind(n).is_ok(), possible);
                        if possible { (stream, acknowledged) = (n, n); }
                    }
                    _ => prop_assert_eq!(stream, said),
                }
                prop_assert_eq!(backlog.frames.len() as u64, said - acknowledged);
                prop_assert_eq!(backlog.bytes as u64, (said - acknowledged) * 8);
            }
        }
    }
}
