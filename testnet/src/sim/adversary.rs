//! Who attacks, and how.

use super::{
    Who,
    dice::Dice,
    world::World,
    worker::{Conduct, Profile},
};
use infernet_wire::bid::JobBid;
use serde::Deserialize;

/// An attack.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adversary {
    /// Attacking nodes.
    #[serde(default)]
    pub nodes: u64,
}

impl World {
    /// The attackers take their places.
    pub(super) fn start_attack(&mut self, _dice: &mut Dice) {}

    /// What an attacker that poses as a worker is.
    pub(super) fn attacker_profile(&mut self, _who: Who) -> Option<Profile> {
        None
    }

    /// The attackers' turn.
    pub(super) fn on_attack(&mut self) {}

    /// A bid as its worker's conduct has it, and how long it waits with it.
    pub(super) fn disguised(&mut self, _conduct: Conduct, body: JobBid) -> (JobBid, u64) {
        (body, 0)
    }
}
