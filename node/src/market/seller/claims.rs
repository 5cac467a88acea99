//! How an accept gets its slot: one of our bid, for which a slot is held, or one of our ad, for which there may be room.

use super::{Claim, Seller, count};
use crate::market::{
    admission::{ClaimError, StandingWish},
    outcome::{Asked, Ending, Outcome},
    quote,
    rank::{Facts, Terms, Weight},
};
use infernet_wire::{
    accept::JobAccept, bid::NoBidReason, envelope::Verified, id::NodeId, limits::CLOCK_SKEW_MS, offer::JobOffer,
    standing::StandingAccept, time::UnixMillis,
};

impl Seller {
    /// Turns a hold into a running job. `from` is the peer whose identity the stream has proved: it must be the signer.
    pub fn claim(&mut self, accept: &Verified<JobAccept>, from: NodeId, now: UnixMillis) -> Result<Claim, ClaimError> {
        let claim = self.try_claim(accept, from, now);
        self.count_claim(&claim);
        claim
    }

    /// Takes a slot for the accept of one of our ads. `from` is as for [`Seller::claim`].
    pub fn claim_standing(&mut self, standing: StandingAccept, from: NodeId, now: UnixMillis) -> Result<Claim, ClaimError> {
        let claim = self.try_claim_standing(standing, from, now);
        self.count_claim(&claim);
        claim
    }

    fn count_claim(&mut self, claim: &Result<Claim, ClaimError>) {
        match claim {
            Ok(Claim { standing: true, .. }) => self.tally.standing += 1,
            Ok(_) => self.tally.claims += 1,
            Err(reason) => count(&mut self.tally.claims_refused, reason.label()),
        }
    }

    fn try_claim(&mut self, accept: &Verified<JobAccept>, from: NodeId, now: UnixMillis) -> Result<Claim, ClaimError> {
        self.check_named(accept, from, now)?;
        self.check_terms(accept)?;
        self.admission.claim(&accept.offer, &accept.bid, &from, accept.job, now)?;
        let bid = self.open.remove(&accept.offer).ok_or(ClaimError::NoHold)?;
        self.outcomes.push(bid.outcome(Ending::Won, None, now));
        self.working.insert(accept.job, bid.model.clone());
        Ok(Claim {
            job: accept.job,
            buyer: from,
            model: bid.model,
            price: bid.asked.price,
            offer: bid.offer.into_body(),
            accept: accept.digest(),
            standing: false,
            rate: accept.units_per_micro_usd(),
        })
    }

    fn try_claim_standing(&mut self, standing: StandingAccept, from: NodeId, now: UnixMillis) -> Result<Claim, ClaimError> {
        let accept = standing.accept();
        self.check_named(accept, from, now)?;
        let asked = self.check_standing(accept, standing.offer(), now)?;
        self.admission.expire(now);
        self.check_model_slots(&accept.model, None).map_err(ClaimError::Unwilling)?;
        let (offer, job, until) = (accept.offer, accept.job, accept.expires.after(CLOCK_SKEW_MS));
        self.admission.claim_standing(&StandingWish { offer, buyer: from, job, until }, now)?;
        let (model, rate, accept) = (accept.model.clone(), accept.units_per_micro_usd(), accept.digest());
        let (asked_for, ceiling) = (standing.offer().model.clone(), standing.offer().ceiling);
        let (ending, ours) = (Ending::Standing, Some(asked));
        self.working.insert(job, model.clone());
        self.outcomes.push(Outcome { at: now, offer, model: asked_for, ceiling, ending, ours, winner: None });
        Ok(Claim { job, buyer: from, model, price: asked.price, offer: standing.into_offer(), accept, standing: true, rate })
    }

    /// Whether a live ad of ours promises just this, and we can keep it: the engine still has the model.
    fn check_standing(&self, accept: &JobAccept, offer: &JobOffer, now: UnixMillis) -> Result<Asked, ClaimError> {
        if accept.issued < self.started {
            return Err(ClaimError::BeforeStart);
        }
        if !self.own_ads.has(&accept.bid, now) {
            return Err(ClaimError::UnknownAd);
        }
        let model = self.own_ads.model(&accept.bid, &accept.model, now).ok_or(ClaimError::TermsDiffer)?;
        if model.price != accept.price {
            return Err(ClaimError::TermsDiffer);
        }
        self.check_willing().map_err(ClaimError::Unwilling)?;
        quote::quote(offer, model).map_err(ClaimError::Unwilling)?;
        if !self.catalogue.iter().any(|served| served.id == model.id) {
            return Err(ClaimError::Unwilling(NoBidReason::UNKNOWN_MODEL));
        }
        let score = Weight::of(offer, &Terms::from(model), &Facts::default()).score(offer.rule);
        Ok(Asked { price: model.price, score })
    }

    fn check_named(&self, accept: &Verified<JobAccept>, from: NodeId, now: UnixMillis) -> Result<(), ClaimError> {
        if accept.signer() != from {
            return Err(ClaimError::WrongBuyer);
        }
        if accept.winner != self.me {
            return Err(ClaimError::NotWinner);
        }
        if accept.expires.after(CLOCK_SKEW_MS) < now { Err(ClaimError::Expired) } else { Ok(()) }
    }

    fn check_terms(&self, accept: &JobAccept) -> Result<(), ClaimError> {
        match self.open.get(&accept.offer) {
            Some(bid) if bid.model != accept.model || bid.asked.price != accept.price => Err(ClaimError::TermsDiffer),
            _ => Ok(()),
        }
    }
}
