//! A simulated node: what of it survives a crash, and what begins anew.

use super::{Who, buyer::Buying, job::Order, worker::Working};
use infernet_node::{
    earnings::Sum,
    net::{routes::Routes, rules::Rules},
    spend::{Book, Caps},
    store::{JournaledStore, TestDisk},
};
use infernet_wire::{envelope::SimulatedKey, id::NodeId, time::UnixMillis};
use std::{collections::BTreeMap, fmt};

/// When every simulation begins: a fixed moment, since it is in what nodes say.
pub const BEGINNING: UnixMillis = UnixMillis(1_800_000_000_000);

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It buys.
    Buyer,
    /// It sells.
    Worker,
    /// It attacks, by other means than a buyer or worker has.
    Attacker,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Not yet.
    Absent,
    /// It runs.
    Up,
    /// It has crashed and will be started again.
    Down,
    /// It has gone for good.
    Gone,
}

/// What its running sums say.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// Of jobs sold.
    pub earned: Sum,
    /// Of jobs bought.
    pub spent: Sum,
}

/// See the module.
pub struct Member {
    /// Its number.
    pub who: Who,
    /// What it is for.
    pub role: Role,
    /// What it signs with.
    pub key: SimulatedKey,
    /// Its id.
    pub id: NodeId,
    /// Whether it is there.
    pub life: Life,
    /// How often it was started: what belongs to an earlier life is void.
    pub epoch: u32,
    /// By how many milliseconds its clock is wrong.
    pub skew: i64,
    /// What it takes from its neighbours.
    pub rules: Rules,
    /// The ways back to buyers.
    pub routes: Routes,
    /// What survives.
    pub disk: TestDisk,
    /// What is on the disk, while the node is up.
    pub store: Option<JournaledStore>,
    /// Its running sums.
    pub books: Books,
    /// What its buyer may spend.
    pub caps: Caps,
    /// What of that is spent and reserved.
    pub purse: Book,
    /// Its buying side.
    pub buyer: Option<Box<Buying>>,
    /// Its selling side.
    pub worker: Option<Box<Working>>,
    /// Messages that neighbours should not have passed on.
    pub blamed: BTreeMap<Who, u32>,
    /// Others' ad sequences as they were last written to the index, which survives a kill.
    pub sequences: Vec<(NodeId, u64)>,
    /// Whether its next failure to write is its end.
    pub dies_writing: bool,
    /// The last order of a conversation that goes on: its number and turn.
    pub conversation: Option<(u64, u64, Order)>,
}

impl Member {
    /// Node `who` of the world named `world`, not started yet.
    pub fn new(who: Who, role: Role, world: u64, skew: i64) -> Self {
        let key = SimulatedKey::new(world, who.into());
        Member {
            who,
            role,
            id: key.id(),
            key,
            life: Life::Absent,
            epoch: 0,
            skew,
            rules: Rules::new(UnixMillis(0), Vec::new()),
            routes: Routes::new(),
            disk: TestDisk::default(),
            store: None,
            books: Books::default(),
            caps: Caps::default(),
            purse: Book::default(),
            buyer: None,
            worker: None,
            blamed: BTreeMap::new(),
            sequences: Vec::new(),
            dies_writing: false,
            conversation: None,
        }
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.life == Life::Up
    }

    /// Its clock at virtual time `ms`.
    pub fn clock(&self, ms: u64) -> UnixMillis {
        UnixMillis((BEGINNING.0 + ms).saturating_add_signed(self.skew))
    }

    /// The virtual time at which its clock shows `at`.
    pub fn virtual_ms(&self, at: UnixMillis) -> u64 {
        at.0.saturating_add_signed(-self.skew).saturating_sub(BEGINNING.0)
    }

    /// How the trace calls it.
    pub fn name(&self) -> Name {
        Name(self.role, self.who)
    }
}

/// A node's name for people.
#[derive(Debug, Clone, Copy)]
pub struct Name(pub Role, pub Who);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.0 {
            Role::Buyer => "buyer",
            Role::Worker => "worker",
            Role::Attacker => "attacker",
        };
        f.pad(&format!("{role} {}", self.1))
    }
}
