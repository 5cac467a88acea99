//! Which nodes' receipts are read next, and down to where. Pure.
//!
//! A node is read when it comes, once more when gossip surely brings what it says, and then every [`EVERY_MS`]. It comes when it
//! is first seen, and when it is connected anew: a process that was killed may have signed what nobody heard. If only its worker
//! has signed a receipt, the buyer is asked for it, too. Each time a node is read down to where it was read before, with a margin
//! for receipts that were signed late; the first time down to the last receipt that was known at the start. What one visit does
//! not reach is read at the next, so that no node holds up the others.
//!
//! What costs others nothing to say costs us little to hear: being named as a buyer or coming back brings a node's turn forward
//! only so often, and who is gone is remembered, so that it is no stranger when it is back.

use infernet_wire::{id::NodeId, receipt_page::Place, time::UnixMillis};
use std::collections::BTreeMap;

/// Between two reads of a node that has told all.
pub const EVERY_MS: u64 = 60 * 60_000;
/// After a node has come: both ends' meshes of gossip are made anew in seconds, at the next of their heartbeats.
pub const SETTLED_MS: u64 = 30_000;
/// Before a node is tried again that did not answer, and twice as long each time, up to [`EVERY_MS`]; and before one is read again
/// because another names it.
const RETRY_MS: u64 = 60_000;
/// How often a node's coming back brings its turn forward, in the long run.
const BACK_MS: u64 = 5 * 60_000;
/// And how often in one such time: a machine that restarts a few times is not hostile.
const BACKS: u64 = 4;
/// And one that told what is not its own, or not signed.
const LIAR_MS: u64 = 24 * 60 * 60_000;
/// How much earlier than the newest that was read another may still come: a receipt is countersigned in seconds, or when the
/// buyer is there again.
const MARGIN_MS: u64 = 60 * 60_000;
/// Nodes that are being read or wait for it.
const AT_ONCE: usize = 64;
/// Nodes that are remembered though they are gone, for [`LIAR_MS`]: about two megabytes, and as many as a large network has.
const MAX_GONE: usize = 10_000;

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
    /// It could not be reached, or stopped answering; it was to go on from here.
    Silent(Option<Place>),
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
    /// By when its comings back are made good, each of which takes [`BACK_MS`].
    back: UnixMillis,
    /// Visits without an answer, one after another.
    silent: u32,
    is_liar: bool,
    /// A visit is under way, or waits for its turn.
    is_read: bool,
    /// Another has named it meanwhile.
    is_asked: bool,
    /// When it was last there; `None`: it is there.
    gone: Option<UnixMillis>,
    is_connected: bool,
}

impl Round {
    fn new(floor: UnixMillis) -> Self {
        let never = UnixMillis(0);
        Round {
            due: never,
            floor,
            from: None,
            newest: never,
            visited: never,
            is_new: true,
            back: never,
            silent: 0,
            is_liar: false,
            is_read: false,
            is_asked: false,
            gone: None,
            is_connected: false,
        }
    }

    fn is_there(&mut self, since: UnixMillis, now: UnixMillis) {
        self.gone = None;
        self.is_connected = since > UnixMillis(0);
        if since > self.visited && self.visited > UnixMillis(0) && !self.is_liar && !self.is_read {
            self.came_back(now);
        }
    }

    fn came_back(&mut self, now: UnixMillis) {
        let at = now.max(UnixMillis(self.back.0.saturating_sub((BACKS - 1) * BACK_MS)));
        if at < self.due {
            self.due = at;
            self.is_new = true;
            self.back = self.back.max(now).after(BACK_MS);
        }
    }

    /// How long it waits after a visit that ended so.
    fn wait(&mut self, ended: Ended) -> u64 {
        self.silent = if let Ended::Silent(_) = ended { self.silent.saturating_add(1) } else { 0 };
        self.is_liar = ended == Ended::Liar;
        let is_asked = std::mem::take(&mut self.is_asked);
        match ended {
            Ended::Whole if std::mem::take(&mut self.is_new) => SETTLED_MS,
            Ended::Whole if is_asked => RETRY_MS,
            Ended::Whole => EVERY_MS,
            // At the next round, after those that were not read at all.
            Ended::More(_) => 0,
            Ended::Silent(_) => (RETRY_MS << (self.silent - 1).min(6)).min(EVERY_MS),
            Ended::Liar => LIAR_MS,
        }
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

    /// Those of `there` that are due and not being read: who is connected first, since they surely answer, then who waited
    /// longest. They are being read until [`Rounds::ended`].
    pub fn due(&mut self, there: impl IntoIterator<Item = Seen>, now: UnixMillis) -> Vec<Wish> {
        self.nodes.values_mut().for_each(|round| round.gone = round.gone.or(Some(now)));
        for Seen { node, since } in there {
            self.nodes.entry(node).or_insert_with(|| Round::new(self.floor)).is_there(since, now);
        }
        self.forget(now);
        let room = AT_ONCE.saturating_sub(self.nodes.values().filter(|round| round.is_read).count());
        let is_due = |round: &Round| round.gone.is_none() && !round.is_read && round.due <= now;
        let mut due: Vec<(&NodeId, &mut Round)> = self.nodes.iter_mut().filter(|(_, round)| is_due(round)).collect();
        due.sort_by_key(|(node, round)| (!round.is_connected, round.due, **node));
        let wish = |(node, round): (&NodeId, &mut Round)| {
            round.is_read = true;
            Wish { node: *node, floor: round.floor, from: round.from }
        };
        due.into_iter().take(room).map(wish).collect()
    }

    /// Who is gone for long, and of too many who are gone those who are so longest.
    fn forget(&mut self, now: UnixMillis) {
        self.nodes.retain(|_, round| round.is_read || round.gone.is_none_or(|gone| now < gone.after(LIAR_MS)));
        let gone = self.nodes.iter().filter(|(_, round)| !round.is_read);
        let mut gone: Vec<(UnixMillis, NodeId)> = gone.filter_map(|(node, round)| Some((round.gone?, *node))).collect();
        gone.sort_unstable();
        let excess = gone.len().saturating_sub(MAX_GONE);
        for (_, node) in gone.iter().take(excess) {
            self.nodes.remove(node);
        }
    }

    /// `buyer` may have signed what its worker does not know of. Anybody can have us ask: not at once again, and none that did not
    /// answer.
    pub fn ask(&mut self, buyer: &NodeId, now: UnixMillis) {
        let Some(round) = self.nodes.get_mut(buyer) else { return };
        round.is_asked = round.is_read;
        if round.silent == 0 && !round.is_liar {
            round.due = round.due.min(now.max(round.visited.after(RETRY_MS)));
        }
    }

    /// A visit has ended at `now`; `newest` is when the last receipt ended that it told of.
    pub fn ended(&mut self, node: NodeId, newest: Option<UnixMillis>, ended: Ended, now: UnixMillis) {
        let Some(round) = self.nodes.get_mut(&node) else { return };
        round.newest = round.newest.max(newest.unwrap_or_default());
        round.visited = now;
        round.is_read = false;
        if ended == Ended::Whole {
            round.floor = round.floor.max(UnixMillis(round.newest.0.saturating_sub(MARGIN_MS)));
        }
        round.from = match ended {
            Ended::More(from) => Some(from),
            Ended::Silent(from) => from,
            Ended::Whole | Ended::Liar => None,
        };
        round.due = now.after(round.wait(ended));
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

    /// A network of node 1, read whole at `NOW` and once more when gossip had its time.
    fn settled() -> (Rounds, UnixMillis) {
        let (mut rounds, settled) = (Rounds::new(UnixMillis(0)), NOW.after(SETTLED_MS));
        for now in [NOW, settled] {
            assert_eq!(rounds.due(seen([1]), now).len(), 1);
            rounds.ended(node(1), None, Ended::Whole, now);
        }
        (rounds, settled)
    }

    fn is_due(rounds: &mut Rounds, since: UnixMillis, now: UnixMillis) -> bool {
        let due = !rounds.due([Seen { node: node(1), since }], now).is_empty();
        if due {
            rounds.ended(node(1), None, Ended::Whole, now);
        }
        due
    }

    #[test]
    fn who_is_connected_anew_is_read_again_and_who_was_dialled_for_it_is_not() {
        let (mut rounds, now) = settled();
        assert!(!is_due(&mut rounds, now, now.after(1)), "it was dialled to be read");
        assert_eq!(rounds.due([], now.after(2)), [], "and is gone");
        assert!(!is_due(&mut rounds, UnixMillis(0), now.after(3)), "its ad alone says nothing new");
        let back = now.after(4);
        assert!(is_due(&mut rounds, back, back), "it came by itself");
        assert!(!is_due(&mut rounds, back, back.after(SETTLED_MS - 1)));
        assert!(is_due(&mut rounds, back, back.after(SETTLED_MS)));
        assert!(!is_due(&mut rounds, back, back.after(EVERY_MS)));
    }

    #[test]
    fn who_comes_back_again_and_again_is_read_so_often_and_no_more() {
        let (mut rounds, start) = settled();
        let looks = (1..=360).map(|look| start.after(look * 10_000));
        let reads = looks.filter(|now| is_due(&mut rounds, *now, *now)).count() as u64;
        let backs = BACKS - 1 + EVERY_MS / BACK_MS;
        assert!((backs..=2 * (backs + 1)).contains(&reads), "{reads} reads for at most {backs} comings back, each read twice");
    }

    #[test]
    fn who_is_gone_is_no_stranger_when_it_is_back() {
        let mut rounds = Rounds::new(UnixMillis(0));
        rounds.due(seen([1, 2]), NOW);
        rounds.ended(node(1), Some(NOW), Ended::Liar, NOW);
        rounds.ended(node(2), Some(NOW), Ended::Whole, NOW);
        assert_eq!(rounds.due([], NOW.after(1)), [], "a look without them");
        let now = NOW.after(EVERY_MS);
        let back = [1, 2].map(|n| Seen { node: node(n), since: now });
        let floor = UnixMillis(NOW.0 - MARGIN_MS);
        assert_eq!(rounds.due(back, now), [Wish { node: node(2), floor, from: None }], "one lied, one has told all till then");
        rounds.ended(node(2), None, Ended::Whole, now);
        rounds.due([], now);
        rounds.due([], now.after(LIAR_MS));
        assert!(rounds.nodes.is_empty(), "at last it is forgotten");
    }

    #[test]
    fn of_those_who_are_gone_the_last_are_remembered() {
        let mut rounds = Rounds::new(UnixMillis(0));
        let many = |from: usize, to: usize| {
            let id = |n: usize| NodeId(std::array::from_fn(|at| n.to_be_bytes().get(at).copied().unwrap_or_default()));
            (from..to).map(move |n| Seen { node: id(n), since: UnixMillis(0) }).collect::<Vec<_>>()
        };
        let all = |rounds: &mut Rounds, there, now| {
            for wish in rounds.due(there, now) {
                rounds.ended(wish.node, None, Ended::Whole, now);
            }
        };
        all(&mut rounds, many(0, 100), NOW);
        all(&mut rounds, many(100, 100 + MAX_GONE), NOW.after(1));
        all(&mut rounds, Vec::new(), NOW.after(2));
        assert_eq!(rounds.nodes.len(), MAX_GONE);
        assert!(many(0, 100).iter().all(|seen| !rounds.nodes.contains_key(&seen.node)));
    }

    #[test]
    fn a_buyer_is_asked_for_what_its_worker_alone_has_signed_but_not_over_and_over() {
        let (mut rounds, visited) = settled();
        let is_due = |rounds: &mut Rounds, now| is_due(rounds, UnixMillis(0), now);
        [node(1), node(2)].iter().for_each(|buyer| rounds.ask(buyer, visited));
        assert!(!is_due(&mut rounds, visited.after(RETRY_MS - 1)));
        assert!(is_due(&mut rounds, visited.after(RETRY_MS)));
        assert!(!rounds.nodes.contains_key(&node(2)), "none that is not there");
        let later = visited.after(3 * RETRY_MS);
        rounds.ask(&node(1), later);
        assert_eq!(rounds.due(seen([1]), later).len(), 1, "at once if its last visit is long ago");
        rounds.ask(&node(1), later);
        rounds.ended(node(1), None, Ended::Whole, later);
        assert!(!is_due(&mut rounds, later.after(RETRY_MS - 1)));
        assert!(is_due(&mut rounds, later.after(RETRY_MS)), "what it signed during the visit");
    }

    #[test]
    fn who_does_not_answer_waits_ever_longer_and_goes_on_where_it_was() {
        let (mut rounds, mut now) = (Rounds::new(UnixMillis(0)), NOW);
        let from = Some(place(UnixMillis(7)));
        let mut waits = Vec::new();
        rounds.due(seen([1]), now);
        for _ in 0..8 {
            rounds.ended(node(1), None, Ended::Silent(from), now);
            rounds.ask(&node(1), now.after(EVERY_MS));
            waits.push(rounds.nodes[&node(1)].due.since(now));
            now = now.after(EVERY_MS);
            assert_eq!(rounds.due(seen([1]), now), [Wish { node: node(1), floor: UnixMillis(0), from }]);
        }
        let minutes = waits.iter().map(|wait| wait / RETRY_MS).collect::<Vec<_>>();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60, 60], "though others name it");
        rounds.ended(node(1), None, Ended::Whole, now);
        rounds.due(seen([1]), now.after(SETTLED_MS));
        rounds.ended(node(1), None, Ended::Silent(None), now);
        assert_eq!(rounds.nodes[&node(1)].due, now.after(RETRY_MS), "from the beginning");
    }

    #[test]
    fn a_visit_that_does_not_end_holds_up_nobody_else() {
        let mut rounds = Rounds::new(UnixMillis(0));
        assert_eq!(rounds.due(seen([1, 2]), NOW).len(), 2);
        rounds.ended(node(2), None, Ended::Whole, NOW);
        let [wish] = rounds.due(seen([1, 2]), NOW.after(SETTLED_MS))[..] else { panic!("the other") };
        assert_eq!(wish.node, node(2));
        assert_eq!(rounds.due([], NOW.after(LIAR_MS)), []);
        rounds.ended(node(1), None, Ended::Whole, NOW.after(LIAR_MS));
        assert_eq!(rounds.nodes[&node(1)].visited, NOW.after(LIAR_MS), "it is known to its end");
    }

    #[test]
    fn who_is_connected_is_read_before_those_of_whom_there_is_only_an_ad() {
        let mut rounds = Rounds::new(UnixMillis(0));
        let connected = Seen { node: node(255), since: NOW };
        let wishes = rounds.due(seen(0..=254).into_iter().chain([connected]), NOW);
        assert_eq!((wishes.len(), wishes[0].node), (AT_ONCE, node(255)));
    }

    #[test]
    fn liars_wait_and_nobody_starves() {
        let mut rounds = Rounds::new(UnixMillis(0));
        rounds.due(seen([1]), NOW);
        rounds.ended(node(1), None, Ended::Liar, NOW);
        rounds.ask(&node(1), NOW);
        let back = [Seen { node: node(1), since: NOW.after(1) }];
        assert_eq!(rounds.due(back, NOW.after(LIAR_MS - 1)), [], "a liar's coming back is no reason");
        assert_eq!(rounds.due(back, NOW.after(LIAR_MS)).len(), 1);
        rounds.ended(node(1), None, Ended::Whole, NOW.after(LIAR_MS));
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
    }
}
