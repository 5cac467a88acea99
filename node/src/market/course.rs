//! What a job tries next: an ad, an auction, another one. It ends, since every try is counted.
//!
//! It does not know how a try fails: the driver asks for the next one as long as no token has arrived. An order that may wait
//! gets a new course after each pause ([`Pauses`]).

use super::standing::PathChoice;
use infernet_wire::id::NodeId;

/// Ads tried for one job before its auction. The second may have the room that the first lacked; more would only add up.
const MAX_ADS_TRIED: usize = 2;
/// The same without an auction to fall back on.
const MAX_ADS_TRIED_ALONE: usize = 4;
/// Auctions for one job: one more if every worker of the first failed.
const MAX_AUCTIONS: u32 = 2;
/// Auctions for one job in which nobody answered at all, each among other workers: after so many the network is to blame.
const MAX_DRAWS: u32 = 4;

/// The first pause in milliseconds: a short answer's time, after which a slot may be free.
const FIRST_PAUSE_MS: u64 = 250;
/// The longest: more often than this, ten waiting buyers would be heard once a second by each worker.
const LONGEST_PAUSE_MS: u64 = 10_000;

/// The pauses of an order that would rather wait than fail, each twice as long as the one before.
#[derive(Debug, Clone)]
pub struct Pauses {
    wait_ms: u64,
    next_ms: u64,
}

impl Pauses {
    /// Of an order that may wait `wait_ms` in all.
    pub fn new(wait_ms: u64) -> Self {
        Pauses { wait_ms, next_ms: FIRST_PAUSE_MS }
    }

    /// The next pause, `elapsed_ms` after the order came; `None` if there is no time for it.
    pub fn next(&mut self, elapsed_ms: u64) -> Option<u64> {
        let pause = self.next_ms;
        self.next_ms = (pause * 2).min(LONGEST_PAUSE_MS);
        (elapsed_ms.saturating_add(pause) <= self.wait_ms).then_some(pause)
    }
}

/// The tries that one job has.
#[derive(Debug, Clone)]
pub struct Course {
    path: PathChoice,
    tried: Vec<NodeId>,
    auctions: u32,
    draws: u32,
}

impl Course {
    /// The tries that `path` allows.
    pub fn new(path: PathChoice) -> Self {
        Course { path, tried: Vec::new(), auctions: 0, draws: 0 }
    }

    /// The workers not to ask again, if another ad may be tried.
    pub fn next_ad(&self) -> Option<&[NodeId]> {
        let most = match self.path {
            PathChoice::Auction => 0,
            PathChoice::Auto => MAX_ADS_TRIED,
            PathChoice::Standing => MAX_ADS_TRIED_ALONE,
        };
        (self.tried.len() < most).then_some(&self.tried)
    }

    /// The ad of `worker` is tried now.
    pub fn ad_tried(&mut self, worker: NodeId) {
        self.tried.push(worker);
    }

    /// Whether an auction may follow when no ad is left to try.
    pub fn may_auction(&self) -> bool {
        self.path != PathChoice::Standing
    }

    /// An auction begins.
    pub fn auction_held(&mut self) {
        self.auctions += 1;
    }

    /// Nobody has answered the last auction, though there are others who could have been asked. Whether they are asked now: it
    /// does not count as one of the job's auctions.
    pub fn may_draw_again(&mut self) -> bool {
        self.draws += 1;
        let again = self.draws < MAX_DRAWS;
        self.auctions = self.auctions.saturating_sub(u32::from(again));
        again
    }

    /// Whether there is another auction when every worker of the last one has failed.
    pub fn may_auction_again(&self) -> bool {
        self.auctions < MAX_AUCTIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: PathChoice, ads: usize, may_auction: bool) {
        let mut course = Course::new(path);
        let mut tried = 0;
        while course.next_ad().is_some() {
            tried += 1;
            course.ad_tried(NodeId([tried; 33]));
        }
        assert_eq!((usize::from(tried), course.may_auction()), (ads, may_auction), "{path}");
    }

    #[test]
    fn each_path_has_its_tries() {
        check(PathChoice::Auto, 2, true);
        check(PathChoice::Auction, 0, true);
        check(PathChoice::Standing, 4, false);
    }

    #[test]
    fn silence_is_no_auction_but_has_its_bound() {
        let mut course = Course::new(PathChoice::Auto);
        let draws = (0..10).take_while(|_| {
            course.auction_held();
            course.may_draw_again()
        });
        assert_eq!((draws.count(), course.may_auction_again()), (3, true));
    }

    #[test]
    fn pauses_grow_and_end_with_the_time() {
        let (mut pauses, mut elapsed, mut all) = (Pauses::new(60_000), 0, Vec::new());
        while let Some(pause) = pauses.next(elapsed) {
            elapsed += pause;
            all.push(pause);
        }
        assert_eq!(all, [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000, 10_000]);
        assert_eq!(Pauses::new(0).next(0), None);
    }

    #[test]
    fn a_job_has_two_auctions() {
        let mut course = Course::new(PathChoice::Auto);
        course.auction_held();
        assert!(course.may_auction_again());
        course.auction_held();
        assert!(!course.may_auction_again());
    }
}
