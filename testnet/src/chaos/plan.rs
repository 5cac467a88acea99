//! Which fault strikes whom, when, and for how long: pure, from a seed.

use crate::flood::dice::Dice;
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// A node, or what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Who {
    Hub(usize),
    Worker(usize),
    Buyer(usize),
}

/// How many there are of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cast {
    pub(crate) hubs: usize,
    pub(crate) workers: usize,
    pub(crate) buyers: usize,
    /// The workers and buyers with a disk of their own are the first so many of each.
    pub(crate) small_disks: usize,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// SIGKILL; a new process in the same home when it is over.
    Kill,
    /// SIGSTOP, then SIGCONT.
    Freeze,
    /// All links of a node to the mesh are cut.
    Isolate,
    /// The mesh falls into halves: every node keeps one hub, and the hubs lose each other.
    Split,
    /// A worker's chat endpoint can't be reached.
    CutChat,
    /// A worker's engine breaks off every answer, and refuses new ones.
    CutEngine,
    /// A worker's engine says nothing more.
    HangEngine,
    /// A node's disk is full.
    FullDisk,
    /// Somebody else keeps the disk of all nodes busy with synced writes.
    SlowDisk,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Fault::Kill,
        Fault::Freeze,
        Fault::Isolate,
        Fault::Split,
        Fault::CutChat,
        Fault::CutEngine,
        Fault::HangEngine,
        Fault::FullDisk,
        Fault::SlowDisk,
    ];

    /// Milliseconds, at least and at most.
    fn lasts(self) -> (u64, u64) {
        match self {
            // A supervisor is quick, a person less so.
            Fault::Kill => (100, 2_000),
            // Below and above what ends a stream for silence (10 s is), and what ends a mesh connection.
            Fault::Freeze | Fault::HangEngine => (500, 12_000),
            Fault::Isolate | Fault::Split | Fault::CutChat | Fault::CutEngine => (500, 8_000),
            Fault::FullDisk | Fault::SlowDisk => (1_000, 5_000),
        }
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strike {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) fault: Fault,
    pub(crate) who: Who,
}

impl Strike {
    pub(crate) fn ends(&self) -> Duration {
        self.at + self.lasts
    }
}

/// `kills` kills and half as many other faults, evenly over `time`, in the order of their beginnings. A node suffers one fault at
/// a time; who suffers is chance, weighted towards those who have something to lose.
pub(crate) fn plan(seed: u64, time: Duration, kills: usize, cast: Cast) -> Vec<Strike> {
    let mut dice = Dice::new(seed, 0);
    let others = kills.div_ceil(2).max(Fault::ALL.len());
    let total = kills + others;
    let mut busy: BTreeMap<Who, Duration> = BTreeMap::new();
    let mut killed = 0;
    (0..total)
        .filter_map(|n| {
            let at = time * u32::try_from(n).unwrap_or(u32::MAX) / u32::try_from(total.max(1)).unwrap_or(u32::MAX);
            // As many kills among the first n as among all.
            let is_kill = killed * total <= n * kills && killed < kills;
            killed += usize::from(is_kill);
            let fault = if is_kill { Fault::Kill } else { other(n, &mut dice, cast) };
            let (least, most) = fault.lasts();
            let lasts = Duration::from_millis(least + dice.below(most - least + 1));
            let free = |who: &Who| busy.get(who).is_none_or(|until| *until <= at);
            let mut victims: Vec<Who> = candidates(fault, cast).into_iter().filter(free).collect();
            if victims.is_empty() && is_kill {
                // Whoever suffers already may die of it.
                victims = candidates(fault, cast);
            }
            let who = *victims.get(usize::try_from(dice.below(victims.len().max(1) as u64)).unwrap_or(0))?;
            busy.insert(who, at + lasts);
            Some(Strike { at, lasts, fault, who })
        })
        .collect()
}

/// Each kind in turn first, then by chance.
fn other(n: usize, dice: &mut Dice, cast: Cast) -> Fault {
    let kinds: Vec<Fault> = Fault::ALL.into_iter().filter(|f| *f != Fault::Kill && !candidates(*f, cast).is_empty()).collect();
    let at = if n < 3 * kinds.len() { n / 3 } else { usize::try_from(dice.below(kinds.len() as u64)).unwrap_or(0) };
    kinds.get(at).copied().unwrap_or(Fault::Freeze)
}

fn candidates(fault: Fault, cast: Cast) -> Vec<Who> {
    let (hubs, workers, buyers) =
        ((0..cast.hubs).map(Who::Hub), (0..cast.workers).map(Who::Worker), (0..cast.buyers).map(Who::Buyer));
    match fault {
        // Workers and buyers twice: they hold receipts.
        Fault::Kill | Fault::Freeze => workers.clone().chain(workers).chain(buyers.clone()).chain(buyers).chain(hubs).collect(),
        Fault::Isolate => workers.chain(buyers).collect(),
        Fault::CutChat | Fault::CutEngine | Fault::HangEngine => workers.collect(),
        Fault::FullDisk => workers.take(cast.small_disks).chain(buyers.take(cast.small_disks)).collect(),
        // They strike everybody; one victim stands for all, so that there is one at a time.
        Fault::Split if cast.hubs < 2 => Vec::new(),
        Fault::Split | Fault::SlowDisk => vec![Who::Hub(0)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAST: Cast = Cast { hubs: 2, workers: 4, buyers: 3, small_disks: 1 };
    const TIME: Duration = Duration::from_secs(600);

    fn count(plan: &[Strike], fault: Fault) -> usize {
        plan.iter().filter(|strike| strike.fault == fault).count()
    }

    #[test]
    fn a_plan_has_all_kills_and_every_other_fault_in_order_and_in_time() {
        for seed in 0..50 {
            let plan = plan(seed, TIME, 200, CAST);
            assert_eq!(count(&plan, Fault::Kill), 200);
            for fault in Fault::ALL {
                assert!(count(&plan, fault) > 0, "{fault:?} of seed {seed}");
            }
            assert!(plan.is_sorted_by_key(|strike| strike.at));
            assert!(plan.iter().all(|strike| strike.at < TIME));
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(plan(1, TIME, 50, CAST), plan(1, TIME, 50, CAST));
        assert_ne!(plan(1, TIME, 50, CAST), plan(2, TIME, 50, CAST));
    }

    #[test]
    fn nobody_suffers_two_lasting_faults_at_once() {
        let plan = plan(3, TIME, 100, CAST);
        for (n, a) in plan.iter().enumerate() {
            let overlaps = |b: &&Strike| b.who == a.who && b.at < a.ends() && b.fault != Fault::Kill;
            assert_eq!(plan.iter().skip(n + 1).filter(overlaps).count(), 0, "{a:?}");
        }
    }

    #[test]
    fn what_can_not_be_done_is_not_planned() {
        let poor = Cast { hubs: 1, workers: 1, buyers: 1, small_disks: 0 };
        let plan = plan(1, TIME, 40, poor);
        assert_eq!((count(&plan, Fault::Split), count(&plan, Fault::FullDisk)), (0, 0));
        assert_eq!(count(&plan, Fault::Kill), 40);
    }
}
