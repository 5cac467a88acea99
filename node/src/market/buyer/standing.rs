//! What the buyer knows of those whose ads it may accept without an auction; the choice is [`choose`]'s.

use super::{Buyer, Wishes};
use crate::market::{
    affinity::Warm,
    standing::{BUSY_MS, COMPARE_EVERY_MS, Choice, Contender, NotStanding, PathChoice, choose},
};
use infernet_wire::{capability::CapabilityAd, envelope::Verified, id::NodeId, offer::JobOffer, time::UnixMillis};
use std::collections::BTreeSet;

impl Buyer {
    /// Whose ad to accept for `offer`. Workers in `excluded` failed it already; `running` tells how many of our jobs a worker
    /// runs. Told that it is time to compare, the caller must hold an auction: nobody else is told so for a while.
    pub fn standing(
        &mut self,
        offer: &JobOffer,
        wishes: &Wishes,
        excluded: &[NodeId],
        running: impl Fn(&NodeId) -> u32,
        now: UnixMillis,
    ) -> Result<Choice, NotStanding> {
        let compared = self.auctioned.get(&offer.model).is_some_and(|at| now.since(*at) < COMPARE_EVERY_MS);
        let warm = self.affinity.warm(&wishes.conversation, now);
        let ads = self.ads(wishes.path, now).filter(|ad| {
            let worker = ad.signer();
            !excluded.contains(&worker) && wishes.trust.judge(&worker, Some(ad), self.reputation.of(&worker)).is_ok()
        });
        let contenders = ads.map(|ad| self.contender(ad, warm, running(&ad.signer()), now));
        let choice = choose(offer, wishes.path, compared, contenders);
        if choice == Err(NotStanding::TimeToCompare) {
            self.auctioned.insert(offer.model.clone(), now);
        }
        choice
    }

    /// `worker` refused a job at its standing price: it has no room, or has been restarted.
    pub fn refused_standing(&mut self, worker: NodeId, now: UnixMillis) {
        self.busy.insert(worker, now.after(BUSY_MS));
    }

    /// Whether a connection to `worker` is worth keeping: its last job for us went well.
    pub fn is_proven(&self, worker: &NodeId) -> bool {
        self.facts(worker).in_row > 0
    }

    /// The live ads to look at: of those we know, so that a large network costs a job nothing; of all, if any will do.
    fn ads(&self, path: PathChoice, now: UnixMillis) -> Box<dyn Iterator<Item = &Verified<CapabilityAd>> + '_> {
        if path == PathChoice::Standing {
            return Box::new(self.registry.workers(now).map(|(_, ad)| ad));
        }
        let met: BTreeSet<NodeId> = self.facts.iter().map(|(worker, _)| *worker).chain(self.records.workers()).collect();
        Box::new(met.into_iter().filter_map(move |worker| self.registry.get(&worker, now)))
    }

    fn contender<'a>(
        &self,
        ad: &'a Verified<CapabilityAd>,
        warm: Option<Warm>,
        running: u32,
        now: UnixMillis,
    ) -> Contender<'a> {
        let worker = ad.signer();
        let busy = self.busy.get(&worker).is_some_and(|until| *until > now);
        let (facts, regard) = (self.facts_for(&worker, warm), self.records.regard(&worker));
        Contender { ad, facts, regard, running, busy, warm: warm.is_some_and(|warm| warm.worker == worker) }
    }
}
