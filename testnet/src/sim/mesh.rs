//! Who is connected to whom, how long a message takes from one to the other, and what doesn't arrive.
//!
//! A node is in a region; a way has a last mile at each end and, between two regions, a far part. The gossip mesh is drawn at
//! random, as gossipsub's is: everybody looks for `degree` neighbours, and takes whoever asks. A node whose neighbours have gone
//! looks for others. A partition cuts every way between its two sides.

use super::{Who, dice::Dice, scenario::Network};
use std::collections::BTreeSet;

/// See the module.
#[derive(Debug)]
pub struct Mesh {
    network: Network,
    places: Vec<Place>,
    /// Milliseconds from one region to another.
    far: Vec<Vec<u64>>,
    /// Each node's neighbours by number, and how far they are.
    neighbours: Vec<Vec<(Who, u32)>>,
    /// Which side of a partition a node is on; all on one while there is none.
    sides: Vec<bool>,
    partitioned: bool,
    /// Milliseconds that everything takes longer now.
    pub slower_ms: u64,
    /// Gossip that is lost now beyond the usual, in thousandths.
    pub lossy_permille: u64,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    region: usize,
    mile: u64,
}

impl Mesh {
    /// Places `nodes` nodes; nobody is connected yet.
    pub fn new(network: Network, nodes: usize, dice: &mut Dice) -> Self {
        let regions = network.regions as usize;
        let mut far = vec![vec![0; regions]; regions];
        for a in 0..regions {
            for b in 0..a {
                let ms = dice.within(network.far_ms.ends());
                for (from, to) in [(a, b), (b, a)] {
                    if let Some(cell) = far.get_mut(from).and_then(|row| row.get_mut(to)) {
                        *cell = ms;
                    }
                }
            }
        }
        let place = |_| Place { region: dice.below(network.regions) as usize, mile: dice.within(network.mile_ms.ends()) };
        let places = (0..nodes).map(place).collect();
        Mesh {
            network,
            places,
            far,
            neighbours: vec![Vec::new(); nodes],
            sides: vec![false; nodes],
            partitioned: false,
            slower_ms: 0,
            lossy_permille: 0,
        }
    }

    /// Milliseconds from `a` to `b` if nothing is in the way.
    pub fn base_ms(&self, a: Who, b: Who) -> u64 {
        let (Some(from), Some(to)) = (self.places.get(a as usize), self.places.get(b as usize)) else { return 0 };
        let far = self.far.get(from.region).and_then(|row| row.get(to.region)).copied().unwrap_or_default();
        (from.mile + to.mile + far).max(1)
    }

    /// Milliseconds that a message takes from `a` to `b` now.
    pub fn takes_ms(&self, a: Who, b: Who, dice: &mut Dice) -> u64 {
        self.base_ms(a, b) + self.slower_ms + dice.below(self.network.jitter_ms + 1)
    }

    /// Milliseconds that a gossip message takes to a neighbour that is `base_ms` away; `None` if it is lost.
    pub fn gossip_ms(&self, base_ms: u32, dice: &mut Dice) -> Option<u64> {
        // One throw for both: the digits of a large number are as good as two.
        let thrown = dice.throw();
        let lost = thrown % 1_000 < self.network.loss_permille + self.lossy_permille;
        let jitter = (thrown >> 32) % (self.network.jitter_ms + 1);
        (!lost).then_some(u64::from(base_ms) + self.slower_ms + jitter)
    }

    /// Whether there is a way from `a` to `b`.
    pub fn has_way(&self, a: Who, b: Who) -> bool {
        !self.partitioned || self.sides.get(a as usize) == self.sides.get(b as usize)
    }

    /// Cuts all ways between `far_side` and the others.
    pub fn partition(&mut self, far_side: &BTreeSet<Who>) {
        self.partitioned = true;
        self.sides.iter_mut().zip(0..).for_each(|(side, who)| *side = far_side.contains(&who));
    }

    /// Ends a partition.
    pub fn heal(&mut self) {
        self.partitioned = false;
    }

    /// With whom `who` exchanges gossip, and how far they are in milliseconds.
    pub fn links(&self, who: Who) -> &[(Who, u32)] {
        self.neighbours.get(who as usize).map_or(&[], Vec::as_slice)
    }

    /// With whom `who` exchanges gossip.
    pub fn neighbours(&self, who: Who) -> impl Iterator<Item = Who> + '_ {
        self.links(who).iter().map(|(other, _)| *other)
    }

    /// How many they are.
    pub fn degree(&self, who: Who) -> usize {
        self.links(who).len()
    }

    /// Whether the two are neighbours.
    pub fn is_connected(&self, a: Who, b: Who) -> bool {
        self.links(a).iter().any(|(other, _)| *other == b)
    }

    /// Makes the two neighbours. Whether they were not before.
    pub fn connect(&mut self, a: Who, b: Who) -> bool {
        if a == b || self.is_connected(a, b) {
            return false;
        }
        let far = u32::try_from(self.base_ms(a, b)).unwrap_or(u32::MAX);
        for (from, to) in [(a, b), (b, a)] {
            if let Some(neighbours) = self.neighbours.get_mut(from as usize) {
                let at = neighbours.partition_point(|(other, _)| *other < to);
                neighbours.insert(at, (to, far));
            }
        }
        true
    }

    /// The two are neighbours no more.
    pub fn disconnect(&mut self, a: Who, b: Who) {
        for (from, to) in [(a, b), (b, a)] {
            if let Some(neighbours) = self.neighbours.get_mut(from as usize) {
                neighbours.retain(|(other, _)| *other != to);
            }
        }
    }

    /// `who` is gone; returns those who were its neighbours.
    pub fn leave(&mut self, who: Who) -> Vec<Who> {
        let left: Vec<Who> = self.neighbours(who).collect();
        left.iter().for_each(|other| self.disconnect(who, *other));
        left
    }

    /// `who` looks for neighbours among `others`: half of its degree, since as many will find it. Returns the new ones.
    pub fn join(&mut self, who: Who, others: &[Who], dice: &mut Dice) -> Vec<Who> {
        let wanted = self.network.degree.div_ceil(2);
        let mut found = Vec::new();
        // So often that a small network is surely used up.
        for _ in 0..wanted * 6 {
            if found.len() >= wanted || self.degree(who) >= self.network.degree {
                break;
            }
            if let Some(other) = dice.pick(others).filter(|other| self.connect(who, **other)) {
                found.push(*other);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(nodes: usize) -> Mesh {
        let (mut dice, all) = (Dice::new(1, "mesh"), (0..nodes as Who).collect::<Vec<_>>());
        let mut mesh = Mesh::new(Network::default(), nodes, &mut dice);
        all.iter().for_each(|who| _ = mesh.join(*who, &all, &mut dice));
        mesh
    }

    #[test]
    fn everybody_reaches_everybody() {
        let mesh = mesh(200);
        let (mut reached, mut edge) = (BTreeSet::from([0]), vec![0]);
        while let Some(who) = edge.pop() {
            edge.extend(mesh.neighbours(who).filter(|other| reached.insert(*other)));
        }
        assert_eq!(reached.len(), 200);
        assert!((0..200).all(|who| mesh.degree(who) >= 3));
        assert!((1_000..1_400).contains(&(0..200).map(|who| mesh.degree(who)).sum::<usize>()), "six each, about");
    }

    #[test]
    fn a_partition_cuts_ways_between_its_sides_only() {
        let mut mesh = mesh(4);
        mesh.partition(&BTreeSet::from([0, 1]));
        assert!(mesh.has_way(0, 1) && mesh.has_way(2, 3) && !mesh.has_way(1, 2));
        mesh.heal();
        assert!(mesh.has_way(1, 2));
    }

    #[test]
    fn a_way_is_as_long_as_the_way_back() {
        let mesh = mesh(30);
        assert!((0..30).all(|a| (0..30).all(|b| mesh.base_ms(a, b) == mesh.base_ms(b, a))));
    }
}
