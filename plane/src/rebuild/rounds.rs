//! Which nodes' receipts are read next, and down to where. Pure.
//!
//! A node is read when it is first seen, and again every [`EVERY_MS`]. Each time down to where it was read before, with a
//! margin for receipts that were signed late; the first time down to the last receipt that was known at the start. What one
//! visit does not reach is read at the next, so that no node holds up the others.

use infernet_wire::{id::NodeId, receipt_page::Place, time::UnixMillis};
use std::collections::BTreeMap;

/// Between two reads of a node that has told all.
pub const EVERY_MS: u64 = 60 * 60_000;
/// Before a node is tried again that did not answer.
const RETRY_MS: u64 = 60_000;
/// And one that told what is not its own, or not signed.
const LIAR_MS: u64 = 24 * 60 * 60_000;
/// How much earlier than the newest that was read another may still come: a receipt is countersigned in seconds, or when the
/// buyer is there again.
const MARGIN_MS: u64 = 60 * 60_000;
/// Nodes of one round.
const AT_ONCE: usize = 64;

/// A node that is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Which.
    pub node: NodeId,
    /// Down to receipts that ended before this.
    pub floor: UnixMillis,
    /// From where on; `None`: from the newest.
    pub from: Option<Place>,
}

impl Wish {
    /// All that `node` has.
    pub fn all(node: NodeId) -> Self {
        Wish { node, floor: UnixMillis(0), from: None }
    }
}

/// How a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All was told, down to the floor.
    Whole,
    /// There is more, from here on.
    More(Place),
    /// It could not be reached, or stopped answering.
    Silent,
    /// It told what is not its own, or not signed.
    Liar,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    due: UnixMillis,
    floor: UnixMillis,
    from: Option<Place>,
    /// The newest that this read has seen.
    newest: UnixMillis,
}

/// See the module.
#[derive(Debug)]
pub struct Rounds {
    floor: UnixMillis,
    nodes: BTreeMap<NodeId, Round>,
}

impl Rounds {
    /// `newest` is when the last receipt ended that is known; 0 if none is.
    pub fn new(newest: UnixMillis) -> Self {
        Rounds { floor: UnixMillis(newest.0.saturating_sub(MARGIN_MS)), nodes: BTreeMap::new() }
    }

    /// Those of `there` that are due, who waited longest first. Others are forgotten, so this is no larger than the network.
    pub fn due(&mut self, there: impl IntoIterator<Item = NodeId>, now: UnixMillis) -> Vec<Wish> {
        let new = Round { due: UnixMillis(0), floor: self.floor, from: None, newest: UnixMillis(0) };
        let known = std::mem::take(&mut self.nodes);
        self.nodes = there.into_iter().map(|node| (node, known.get(&node).copied().unwrap_or(new))).collect();
        let mut due: Vec<(&NodeId, &Round)> = self.nodes.iter().filter(|(_, round)| round.due <= now).collect();
        due.sort_by_key(|(node, round)| (round.due, **node));
        due.into_iter().take(AT_ONCE).map(|(node, round)| Wish { node: *node, floor: round.floor, from: round.from }).collect()
    }

    /// A visit has ended; `newest` is when the last receipt ended that it told of.
    pub fn ended(&mut self, node: NodeId, newest: Option<UnixMillis>, ended: Ended, now: UnixMillis) {
        let Some(round) = self.nodes.get_mut(&node) else { return };
        round.newest = round.newest.max(newest.unwrap_or_default());
        let wait = match ended {
            Ended::Whole => {
                round.floor = round.floor.max(UnixMillis(round.newest.0.saturating_sub(MARGIN_MS)));
                EVERY_MS
            }
            // At the next round, after those that were not read at all.
            Ended::More(_) => 0,
            Ended::Silent => RETRY_MS,
            Ended::Liar => LIAR_MS,
        };
        round.from = match ended {
            Ended::More(from) => Some(from),
            _ => None,
        };
        round.due = now.after(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::id::JobId;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn node(n: u8) -> NodeId {
        NodeId([n; 33])
    }

    fn place(finished: UnixMillis) -> Place {
        Place { finished, job: JobId([1; 16]), worker: node(1) }
    }

    #[test]
    fn each_node_is_read_at_once_and_then_every_hour_down_to_where_it_was() {
        let mut rounds = Rounds::new(NOW);
        let floor = UnixMillis(NOW.0 - MARGIN_MS);
        assert_eq!(rounds.due([node(1)], NOW), [Wish { node: node(1), floor, from: None }]);
        rounds.ended(node(1), Some(NOW.after(3 * MARGIN_MS)), Ended::Whole, NOW);
        assert_eq!(rounds.due([node(1), node(2)], NOW), [Wish { node: node(2), floor, from: None }], "one that is new");
        rounds.ended(node(2), None, Ended::Whole, NOW);
        assert_eq!(rounds.due([node(1), node(2)], NOW.after(EVERY_MS - 1)), []);
        let again = rounds.due([node(1), node(2)], NOW.after(EVERY_MS));
        assert_eq!(again.iter().map(|wish| wish.floor).collect::<Vec<_>>(), [NOW.after(2 * MARGIN_MS), floor]);
    }

    #[test]
    fn what_a_visit_did_not_reach_is_read_at_the_next() {
        let mut rounds = Rounds::new(UnixMillis(0));
        rounds.due([node(1)], NOW);
        rounds.ended(node(1), Some(NOW), Ended::More(place(UnixMillis(7))), NOW);
        let [wish] = rounds.due([node(1)], NOW)[..] else { panic!("it goes on at once") };
        assert_eq!((wish.floor, wish.from), (UnixMillis(0), Some(place(UnixMillis(7)))));
        rounds.ended(node(1), Some(UnixMillis(6)), Ended::Whole, NOW);
        let [wish] = rounds.due([node(1)], NOW.after(EVERY_MS))[..] else { panic!("an hour later") };
        assert_eq!((wish.floor, wish.from), (UnixMillis(NOW.0 - MARGIN_MS), None), "as of its newest visit");
    }

    #[test]
    fn liars_and_the_silent_wait_and_nobody_starves() {
        let mut rounds = Rounds::new(UnixMillis(0));
        rounds.due([node(1), node(2)], NOW);
        rounds.ended(node(1), None, Ended::Silent, NOW);
        rounds.ended(node(2), None, Ended::Liar, NOW);
        assert_eq!(rounds.due([node(1), node(2)], NOW.after(RETRY_MS)).len(), 1);
        assert_eq!(rounds.due([node(1), node(2)], NOW.after(LIAR_MS)).len(), 2);
        let all = || (0..=255).map(node);
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..4 {
            let now = NOW.after(2 * LIAR_MS + round);
            for wish in rounds.due(all(), now) {
                assert!(seen.insert(wish.node), "no second time before all had a first");
                rounds.ended(wish.node, None, Ended::More(place(NOW)), now);
            }
        }
        assert_eq!(seen.len(), 256);
        rounds.due([node(1)], NOW);
        assert_eq!(rounds.nodes.len(), 1, "who is gone is forgotten");
    }
}
