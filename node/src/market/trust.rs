//! Whom a buyer deals with: its own choice, kept before any price is looked at.
//!
//! | filter | leaves out |
//! |---|---|
//! | `deny` | these workers |
//! | `allow` | everybody but these, if it names any |
//! | `min_reputation` | who has fewer settled receipts ([`super::reputation`]) |
//! | `regions` | who does not say that it is in one of these, if it names any; nobody proves where it is |
//!
//! What an order wants and what its node wants are kept together: an order can be stricter than its node, never laxer.

use infernet_wire::{capability::CapabilityAd, id::NodeId};
use std::collections::BTreeSet;

/// Begins the tag in which a worker's ad names its region.
pub const REGION_TAG: &str = "infernet:region:";

/// Whom a buyer deals with. The default is everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Settled receipts that a worker must have.
    pub min_reputation: u32,
    /// The only workers that will do; empty: all.
    pub allow: BTreeSet<NodeId>,
    /// Workers that won't do.
    pub deny: BTreeSet<NodeId>,
    /// The only regions that will do; empty: all, and those who name none.
    pub regions: BTreeSet<String>,
}

/// The filter that leaves a worker out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// It is denied.
    Denied,
    /// Others are allowed, it is not.
    NotAllowed,
    /// It has too few settled receipts.
    Reputation,
    /// It is elsewhere, or does not say where.
    Region,
}

impl LeftOut {
    /// The setting behind it, as people write it.
    pub fn label(self) -> &'static str {
        match self {
            LeftOut::Denied => "deny",
            LeftOut::NotAllowed => "allow",
            LeftOut::Reputation => "min_reputation",
            LeftOut::Region => "regions",
        }
    }
}

impl Trust {
    /// Whether `worker` will do. Without an ad it is nowhere.
    pub fn judge(&self, worker: &NodeId, ad: Option<&CapabilityAd>, reputation: u32) -> Result<(), LeftOut> {
        let elsewhere = || !ad.is_some_and(|ad| region(ad).is_some_and(|region| self.regions.contains(region)));
        match () {
            () if self.deny.contains(worker) => Err(LeftOut::Denied),
            () if !self.allow.is_empty() && !self.allow.contains(worker) => Err(LeftOut::NotAllowed),
            () if reputation < self.min_reputation => Err(LeftOut::Reputation),
            () if !self.regions.is_empty() && elsewhere() => Err(LeftOut::Region),
            () => Ok(()),
        }
    }

    /// Both: whoever passes it passes each of the two.
    #[must_use]
    pub fn and(&self, other: &Trust) -> Trust {
        let (allow, nobody) = both(&self.allow, &other.allow);
        let (regions, nowhere) = both(&self.regions, &other.regions);
        Trust {
            // Two lists that exclude each other leave nobody, and an empty list would leave everybody.
            min_reputation: if nobody || nowhere { u32::MAX } else { self.min_reputation.max(other.min_reputation) },
            allow,
            deny: self.deny.union(&other.deny).copied().collect(),
            regions,
        }
    }
}

/// What two lists have in common, where an empty one stands for all; and whether that is nothing.
fn both<T: Ord + Clone>(a: &BTreeSet<T>, b: &BTreeSet<T>) -> (BTreeSet<T>, bool) {
    if a.is_empty() || b.is_empty() {
        return (a.union(b).cloned().collect(), false);
    }
    let common: BTreeSet<T> = a.intersection(b).cloned().collect();
    let none = common.is_empty();
    (common, none)
}

/// The region that `ad` names.
fn region(ad: &CapabilityAd) -> Option<&str> {
    ad.tags.iter().find_map(|tag| tag.strip_prefix(REGION_TAG))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{T0, ad, node};

    fn check(change: impl FnOnce(&mut Trust), region: Option<&str>, reputation: u32, expected: Result<(), LeftOut>) {
        let mut trust = Trust::default();
        change(&mut trust);
        let mut ad = ad(1, 1, 1, T0).into_body();
        ad.tags.extend(region.map(|region| format!("{REGION_TAG}{region}")));
        assert_eq!(trust.judge(&node(1), Some(&ad), reputation), expected);
    }

    #[test]
    fn each_filter_leaves_out_whom_it_names() {
        check(|_| {}, None, 0, Ok(()));
        check(|trust| trust.deny = [node(1)].into(), None, 9, Err(LeftOut::Denied));
        check(|trust| trust.allow = [node(2)].into(), None, 9, Err(LeftOut::NotAllowed));
        check(|trust| trust.allow = [node(2), node(1)].into(), None, 0, Ok(()));
        check(|trust| trust.min_reputation = 3, None, 2, Err(LeftOut::Reputation));
        check(|trust| trust.min_reputation = 3, None, 3, Ok(()));
        check(|trust| trust.regions = ["eu".into()].into(), None, 0, Err(LeftOut::Region));
        check(|trust| trust.regions = ["eu".into()].into(), Some("us"), 0, Err(LeftOut::Region));
        check(|trust| trust.regions = ["eu".into()].into(), Some("eu"), 0, Ok(()));
        let nowhere = Trust { regions: ["eu".into()].into(), ..Trust::default() };
        assert_eq!(nowhere.judge(&node(1), None, 0), Err(LeftOut::Region));
    }

    #[test]
    fn an_order_is_stricter_than_its_node_and_never_laxer() {
        let node_wants =
            Trust { min_reputation: 2, allow: [node(1), node(2)].into(), deny: [node(3)].into(), ..Trust::default() };
        let order = Trust { min_reputation: 1, allow: [node(2), node(4)].into(), deny: [node(5)].into(), ..Trust::default() };
        let both = order.and(&node_wants);
        let allowed = |n| both.judge(&node(n), None, 2);
        assert_eq!((both.min_reputation, allowed(2)), (2, Ok(())));
        assert_eq!([1, 4].map(allowed), [Err(LeftOut::NotAllowed); 2]);
        assert_eq!([3, 5].map(allowed), [Err(LeftOut::Denied); 2]);
        let nobody = Trust { allow: [node(6)].into(), ..Trust::default() }.and(&node_wants);
        assert!((1..9).all(|n| nobody.judge(&node(n), None, 1_000).is_err()));
    }
}
