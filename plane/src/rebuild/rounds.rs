//! Which nodes' receipts are read next, and down to where. Pure.
//!
//! A node is read when it comes, once more when gossip surely brings what it says, and then every [`EVERY_MS`]. It comes when it
//! is first seen, and when it is connected anew: a process that was killed may have signed what nobody heard. If only its worker
//! has signed a receipt, the buyer is asked for it, too. Each time a node is read down to where it was read before, with a margin
//! for receipts that were signed late; the first time down to the last receipt that was known at the start. What one visit does
//! not reach is read at the next, so that no node holds up the others.

use infernet_wire::{id::NodeId, receipt_page::Place, time::UnixMillis};
use std::collections::BTreeMap;

/// Between two reads of a node that has told all.
pub const EVERY_MS: u64 = 60 * 60_000;
/// After a node has come: both ends' meshes of gossip are made anew in seconds, at the next of their heartbeats.
pub const SETTLED_MS: u64 = 30_000;
/// Before a node is tried again that did not answer.
const RETRY_MS: u64 = 60_000;
/// And one that told what is not its own, or not signed.
const LIAR_MS: u64 = 24 * 60 * 60_000;
/// How much earlier than the newest that was read another may still come: a receipt is countersigned in seconds, or when the
/// buyer is there again.
const MARGIN_MS: u64 = 60 * 60_000;
/// Nodes of one round.
const AT_ONCE: usize = 64;

/// A node that may have receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub node: NodeId,
    /// Since when it has been connected; 0 if it is not.
    pub since: UnixMillis,
}

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
    /// When the last visit ended. Who is connected since then has come by itself: a visit connects us, too.
    visited: UnixMillis,
    /// It has come, and was not read since gossip has had its time.
    is_new: bool,
}

impl Round {
    /// Now, if it need not wait because it lied.
    fn sooner(&self, now: UnixMillis) -> UnixMillis {
        if self.due > now.after(EVERY_MS) { self.due } else { self.due.min(now) }
    }
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
    pub fn due(&mut self, there: impl IntoIterator<Item = Seen>, now: UnixMillis) -> Vec<Wish> {
        let never = UnixMillis(0);
        let new = Round { due: never, floor: self.floor, from: None, newest: never, visited: never, is_new: true };
        let known = std::mem::take(&mut self.nodes);
        let round = |Seen { node, since }| match known.get(&node).copied() {
            Some(round) if since > round.visited && round.visited > never => {
                (node, Round { is_new: true, due: round.sooner(now), ..round })
            }
            round => (node, round.unwrap_or(new)),
        };
        self.nodes = there.into_iter().map(round).collect();
        let mut due: Vec<(&NodeId, &Round)> = self.nodes.iter().filter(|(_, round)| round.due <= now).collect();
        due.sort_by_key(|(node, round)| (round.due, **node));
        due.into_iter().take(AT_ONCE).map(|(node, round)| Wish { node: *node, floor: round.floor, from: round.from }).collect()
    }

    /// `buyer` may have signed what its worker does not know of.
    pub fn ask(&mut self, buyer: &NodeId, now: UnixMillis) {
        if let Some(round) = self.nodes.get_mut(buyer) {
            round.due = round.sooner(now);
        }
    }

    /// A visit has ended at `now`; `newest` is when the last receipt ended that it told of.
    pub fn ended(&mut self, node: NodeId, newest: Option<UnixMillis>, ended: Ended, now: UnixMillis) {
        let Some(round) = self.nodes.get_mut(&node) else { return };
        round.newest = round.newest.max(newest.unwrap_or_default());
        round.visited = now;
        let wait = match ended {
            Ended::Whole => {
                round.floor = round.floor.max(UnixMillis(round.newest.0.saturating_sub(MARGIN_MS)));
                if std::mem::take(&mut round.is_new) { SETTLED_MS } else { EVERY_MS }
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

    fn seen(nodes: impl IntoIterator<Item = u8>) -> Vec<Seen> {
        nodes.into_iter().map(|n| Seen { node: node(n), since: UnixMillis(0) }).collect()
    }

    fn place(finished: UnixMillis) -> Place {
        Place { finished, job: JobId([1; 16]), worker: node(1) }
    }

    #[test]
    fn each_node_is_read_at_once_and_soon_again_and_then_every_hour_down_to_where_it_was() {
        let mut rounds = Rounds::new(NOW);
        let floor = UnixMillis(NOW.0 - MARGIN_MS);
        assert_eq!(rounds.due(seen([1]), NOW), [Wish { node: node(1), floor, from: None }]);
        rounds.ended(node(1), Some(NOW.after(3 * MARGIN_MS)), Ended::Whole, NOW);
        assert_eq!(rounds.due(seen([1, 2]), NOW), [Wish { node: node(2), floor, from: None }], "one that is new");
        rounds.ended(node(2), None, Ended::Whole, NOW);
        assert_eq!(rounds.due(seen([1, 2]), NOW.after(SETTLED_MS - 1)), []);
        let settled = NOW.after(SETTLED_MS);
        assert_eq!(rounds.due(seen([1, 2]), settled).len(), 2);
        [1, 2].into_iter().for_each(|n| rounds.ended(node(n), None, Ended::Whole, settled));
        assert_eq!(rounds.due(seen([1, 2]), settled.after(EVERY_MS - 1)), []);
        let again = rounds.due(seen([1, 2]), settled.after(EVERY_MS));
        assert_eq!(again.iter().map(|wish| wish.floor).collect::<Vec<_>>(), [NOW.after(2 * MARGIN_MS), floor]);
    }

    #[test]
    fn what_a_visit_did_not_reach_is_read_at_the_next() {
        let mut rounds = Rounds::new(UnixMillis(0));
        rounds.due(seen([1]), NOW);
        rounds.ended(node(1), Some(NOW), Ended::More(place(UnixMillis(7))), NOW);
        let [wish] = rounds.due(seen([1]), NOW)[..] else { panic!("it goes on at once") };
        assert_eq!((wish.floor, wish.from), (UnixMillis(0), Some(place(UnixMillis(7)))));
        rounds.ended(node(1), Some(UnixMillis(6)), Ended::Whole, NOW);
        let [wish] = rounds.due(seen([1]), NOW.after(SETTLED_MS))[..] else { panic!("once more") };
        assert_eq!((wish.floor, wish.from), (UnixMillis(NOW.0 - MARGIN_MS), None), "as of its newest visit");
    }

    #[test]
    fn who_is_connected_anew_is_read_again_and_who_was_dialled_for_it_is_not() {
        let mut rounds = Rounds::new(UnixMillis(0));
        let at = |since: UnixMillis| [Seen { node: node(1), since }];
        let read = |rounds: &mut Rounds, now| rounds.ended(node(1), None, Ended::Whole, now);
        let due = |rounds: &mut Rounds, since, now| rounds.due(at(since), now).len();
        assert_eq!(due(&mut rounds, UnixMillis(0), NOW), 1);
        let (first, second) = (NOW.after(10), NOW.after(SETTLED_MS + 20));
        read(&mut rounds, first);
        assert_eq!(due(&mut rounds, first, first), 0, "it was dialled to be read");
        assert_eq!(due(&mut rounds, first, second), 1);
        read(&mut rounds, second);
        assert_eq!(due(&mut rounds, UnixMillis(0), second.after(1)), 0, "and is gone");
        let back = second.after(2);
        assert_eq!(due(&mut rounds, back, back), 1, "it came by itself");
        read(&mut rounds, back.after(1));
        assert_eq!(due(&mut rounds, back, back.after(SETTLED_MS)), 0);
        assert_eq!(due(&mut rounds, back, back.after(1 + SETTLED_MS)), 1);
        read(&mut rounds, back.after(1 + SETTLED_MS));
        assert_eq!(due(&mut rounds, back, back.after(EVERY_MS)), 0);
    }

    #[test]
    fn a_buyer_is_asked_for_what_its_worker_alone_has_signed() {
        let mut rounds = Rounds::new(UnixMillis(0));
        for now in [NOW, NOW.after(SETTLED_MS)] {
            assert_eq!(rounds.due(seen([1]), now).len(), 1);
            rounds.ended(node(1), None, Ended::Whole, now);
        }
        let now = NOW.after(2 * SETTLED_MS);
        assert_eq!(rounds.due(seen([1]), now), []);
        [node(1), node(2)].iter().for_each(|buyer| rounds.ask(buyer, now));
        assert_eq!(rounds.due(seen([1]), now).len(), 1, "and none that is not there");
    }

    #[test]
    fn liars_and_the_silent_wait_and_nobody_starves() {
        let mut rounds = Rounds::new(UnixMillis(0));
        rounds.due(seen([1, 2]), NOW);
        rounds.ended(node(1), None, Ended::Silent, NOW);
        rounds.ended(node(2), None, Ended::Liar, NOW);
        assert_eq!(rounds.due(seen([1, 2]), NOW.after(RETRY_MS)).len(), 1);
        rounds.ask(&node(2), NOW);
        let back = [Seen { node: node(2), since: NOW.after(1) }];
        assert_eq!(rounds.due(back, NOW.after(1)), [], "a liar's coming back is no reason");
        assert_eq!(rounds.due(seen([1, 2]), NOW.after(LIAR_MS)).len(), 2);
        let all = || seen(0..=255);
        let mut read = std::collections::BTreeSet::new();
        for round in 0..4 {
            let now = NOW.after(2 * LIAR_MS + round);
            for wish in rounds.due(all(), now) {
                assert!(read.insert(wish.node), "no second time before all had a first");
                rounds.ended(wish.node, None, Ended::More(place(NOW)), now);
            }
        }
        assert_eq!(read.len(), 256);
        rounds.due(seen([1]), NOW);
        assert_eq!(rounds.nodes.len(), 1, "who is gone is forgotten");
    }
}
