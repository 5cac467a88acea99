//! What a job tries next: an ad, an auction, another one. It ends, since every try is counted.
//!
//! It does not know how a try fails: the driver asks for the next one as long as no token has arrived.

use super::standing::PathChoice;
use infernet_wire::id::NodeId;

/// Ads tried for one job before its auction. The second may have the room that the first lacked; more would only add up.
const MAX_ADS_TRIED: usize = 2;
/// The same without an auction to fall back on.
const MAX_ADS_TRIED_ALONE: usize = 4;
/// Auctions for one job: one more if every worker of the first failed.
const MAX_AUCTIONS: u32 = 2;

/// The tries that one job has.
#[derive(Debug, Clone)]
pub struct Course {
    path: PathChoice,
    tried: Vec<NodeId>,
    auctions: u32,
}

impl Course {
    /// The tries that `path` allows.
    pub fn new(path: PathChoice) -> Self {
        Course { path, tried: Vec::new(), auctions: 0 }
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
    fn a_job_has_two_auctions() {
        let mut course = Course::new(PathChoice::Auto);
        course.auction_held();
        assert!(course.may_auction_again());
        course.auction_held();
        assert!(!course.may_auction_again());
    }
}
